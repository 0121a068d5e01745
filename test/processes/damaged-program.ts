/** One of many processes that write to sessions of their own, and to one that is damaged meanwhile. Says what it did when it is asked to stop. */
import { isStoreError, SessionStore } from '../../src/index.js'

export interface Told {
  /** Turns of its own session that were acknowledged, before and after it was told of the damage. */
  readonly turns: number
  readonly turnsAfter: number
  /** What became of its appends to the damaged session: those acknowledged, and codes of refusals, since then. */
  readonly appended: number
  readonly refusals: readonly string[]
  readonly failures: readonly string[]
}

const [dir, name] = process.argv.slice(2) as [string, string]
const store = await SessionStore.open(dir, { durability: 'process' })
const refusals: string[] = []
const failures: string[] = []
let turns = 0
let turnsAfter = 0
let appended = 0
let damaged = false
let stopped = false

process.on('message', (message) => {
  if (message === 'damaged') damaged = true
  else stopped = true
})

async function toldOf(work: () => Promise<unknown>): Promise<void> {
  const isAfter = damaged
  try {
    await work()
    if (isAfter) appended++
  } catch (error) {
    if (isAfter && isStoreError(error)) refusals.push(error.code)
    else if (!isStoreError(error, 'LOG_CORRUPT')) failures.push(String(error))
  }
}

process.send!('ready')
for (let n = 0; !stopped; n++) {
  try {
    await store.runTurn(`well:${name}`, { input: { asked: n } }, (turn) => turn.append({ answered: n }))
    turns++
    if (damaged) turnsAfter++
  } catch (error) {
    failures.push(String(error))
  }
  await toldOf(() => store.session('hurt').append({ by: name, n }))
  await toldOf(() => store.session('hurt').tail(1))
  if (n % 10 === 0) await toldOf(() => store.runTurn('hurt', { input: { by: name, turn: n } }, () => 'done'))
  await new Promise((resolve) => setImmediate(resolve))
}
await store.close()
process.send!({ turns, turnsAfter, appended, refusals: [...new Set(refusals)], failures } satisfies Told)
process.disconnect()

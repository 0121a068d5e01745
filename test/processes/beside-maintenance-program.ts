/** One process beside others: turns of its own, or maintenance of the store without a pause. Says what it did when it is asked to stop. */
import { SessionStore } from '../../src/index.js'

export type Role = 'turns' | 'synced turns' | 'checkpoint' | 'always' | 'rotate' | 'compact' | 'care'

export interface Told {
  /** Turns that were acknowledged, or rounds of maintenance. */
  readonly rounds: number
  readonly failures: readonly string[]
  readonly lockWaitMsMax: number
  readonly lockTimeouts: number
  /** The longest single step of a turn: its start, an append, a look at what is pending, its end. */
  readonly stepMsMax: number
}

/** So many that turns use most of the locks that transcripts have, and come upon one that somebody keeps. */
const keys = 24

const [dir, role, name] = process.argv.slice(2) as [string, Role, string]
const durability = role === 'synced turns' ? 'power' : 'process'
const store = await SessionStore.open(dir, { durability, checkpoint: role === 'always' ? 'always' : 'auto' })
const failures: string[] = []
let rounds = 0
let stepMsMax = 0
let stopped = false

async function timed<R>(step: Promise<R>): Promise<R> {
  const beganMs = performance.now()
  const result = await step
  stepMsMax = Math.max(stepMsMax, performance.now() - beganMs)
  return result
}

async function turns(n: number): Promise<void> {
  let beganMs = performance.now()
  const step = () => {
    stepMsMax = Math.max(stepMsMax, performance.now() - beganMs)
    beganMs = performance.now()
  }
  await store.runTurn(`turns:${name}:${n % keys}`, { input: { asked: n } }, async (turn) => {
    step()
    await timed(turn.pending())
    await timed(turn.append({ answered: n }))
    beganMs = performance.now()
  })
  step()
}

const work: Record<Role, (n: number) => Promise<unknown>> = {
  turns,
  'synced turns': turns,
  checkpoint: async () => {
    await store.update(`checkpointed:${name}`, (entry) => ({ n: ((entry?.n as number) ?? 0) + 1 }))
    await store.checkpoint()
  },
  always: (n) => store.update(`always:${name}:${n % 50}`, () => ({ n, filler: 'x'.repeat(500) })),
  rotate: async (n) => {
    const session = store.session(`rotated:${name}:${n % 5}`)
    await session.append({ n })
    await session.rotate({ reason: 'test' })
    if (n % 7 === 0) await store.delete(session.key)
  },
  // The conversations of the first three, over and over: what turns have said, a summary, and then the bytes.
  async compact(n) {
    const session = store.session(`turns:${n % 3}:${n % keys}`)
    await session.compact({ keepLast: 2, summarize: (records) => `${records.length} records` })
    await session.compactBytes()
  },
  async care(n) {
    await store.session(`kept:${name}:${n}`).append({ n })
    const { unsatisfied } = await store.retain({ rules: { prefixes: { [`kept:${name}:`]: { maxCount: 5 } } } })
    if (unsatisfied.length > 0) failures.push(`cannot be kept: ${JSON.stringify(unsatisfied)}`)
    const { damage } = await store.verify()
    for (const { message } of damage) failures.push(`verify: ${message}`)
    await store.maintain({ compactBytes: {}, verifyShare: 0.1 })
  },
}

process.on('message', () => {
  stopped = true
})
// The conversations are there: naming a new one is a commit to the metadata, and waits for others' like any other.
if (role.endsWith('turns')) for (let n = 0; n < keys; n++) await store.session(`turns:${name}:${n}`).append({ asked: 'nothing' })
process.send!('ready')
while (!stopped) {
  try {
    await work[role](rounds)
    rounds++
  } catch (error) {
    failures.push(`${(error as { code?: string }).code ?? ''} ${String(error)}`)
  }
  await new Promise((resolve) => setImmediate(resolve))
}
const { lockWaitMsMax, lockTimeouts } = store.stats()
await store.close()
process.send!({ rounds, failures, lockWaitMsMax, lockTimeouts, stepMsMax } satisfies Told)
process.disconnect()

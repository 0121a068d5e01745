/** A process that asks for turns on a few keys, in every way there is, until its channel is closed; and writes down, at once and for good,
 *  what it is about to ask, what its functions have been told, and what it was answered. What a predecessor of the same name has asked and
 *  was not answered, because it was killed, it asks again first, as a client would. */
import fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { isStoreError, SessionStore } from '../../src/index.js'
import type { Turn, WhenBusy } from '../../src/types.js'
import { seededRandom } from '../simulation/seeded-random.js'
import type { Fact, Told, WorkerOptions } from './turns-trial.js'

const options = JSON.parse(process.argv[2] ?? '{}') as WorkerOptions
const { dir, ledger, keys, seed, maxTurnMs, loops, durability } = options
const random = seededRandom(seed)
const store = await SessionStore.open(dir, {
  durability,
  lanes: { main: 3, cron: 1 },
  closeMs: 5_000,
  lock: { maxHoldMs: 500, waitMs: 20_000 },
})
const before = fs.existsSync(ledger) ? readAsked() : []
const fd = fs.openSync(ledger, 'a')
let count = 0
// Without somebody who listens for it the channel keeps nobody alive.
process.on('disconnect', () => {})

function note(fact: Fact): void {
  fs.writeSync(fd, `${JSON.stringify(fact)}\n`)
}

function readAsked(): Extract<Fact, { is: 'asked' }>[] {
  const facts = fs
    .readFileSync(ledger, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        return line ? [JSON.parse(line) as Fact] : []
      } catch {
        return [] // It was killed while it wrote.
      }
    })
  const answered = new Set(facts.flatMap((fact) => (fact.is === 'answered' || fact.is === 'refused' ? [fact.uid] : [])))
  return facts.filter((fact): fact is Extract<Fact, { is: 'asked' }> => fact.is === 'asked' && fact.given && !answered.has(fact.uid))
}

const uid = () => `${process.pid}-${seed}-${count++}`
const one = <T>(of: readonly T[]) => of[Math.floor(random() * of.length)]!
const ways: readonly WhenBusy[] = ['queue', 'queue', 'queue', 'coalesce', 'coalesce', 'interrupt', 'reject']

function work(key: string, asked: string) {
  return async (turn: Turn): Promise<string> => {
    note({
      is: 'ran',
      uid: asked,
      key,
      request: turn.requestId,
      turn: turn.turn,
      attempt: turn.attempt,
      inputs: turn.inputs.map(({ record }) => String(record.uid)),
    })
    for (let left = Math.floor(random() * 3); left >= 0; left--) {
      if (random() < 0.3) await pause(random() * 8)
      if (random() < 0.4) for (const { record } of await turn.pending()) note({ is: 'seen', uid: String(record.uid), key, turn: turn.turn })
      const mine = uid()
      const { seq } = await turn.append({ uid: mine, text: 'x'.repeat(Math.floor(random() * 200)) })
      note({ is: 'appended', uid: mine, key, turn: turn.turn, seq })
      if (turn.signal.aborted && random() < 0.7) throw turn.signal.reason
    }
    if (random() < 0.1) throw new Error('it fails, now and then')
    return asked
  }
}

async function ask(again?: Extract<Fact, { is: 'asked' }>): Promise<void> {
  const key = again?.key ?? one(keys)
  const given = again ? true : random() < 0.6
  const asked = again?.uid ?? uid()
  const whenBusy = again?.whenBusy ?? one(ways)
  if (!again) note({ is: 'asked', uid: asked, key, given, whenBusy })
  const giving = new AbortController()
  const timer = !again && random() < 0.1 ? setTimeout(() => giving.abort(new Error('given up')), random() * 60) : undefined
  try {
    const result = await store.runTurn(
      key,
      {
        whenBusy,
        maxTurnMs,
        waitMs: 60_000,
        input: { uid: asked },
        signal: giving.signal,
        lane: random() < 0.1 ? 'cron' : 'main',
        ...(given && { requestId: asked }),
      },
      work(key, asked),
    )
    const { outcome, turn, sessionId, seqs, value, requestId } = result
    const told: Told = {
      is: 'answered',
      uid: asked,
      key,
      outcome,
      turn,
      sessionId,
      seqs,
      request: requestId,
      value: typeof value === 'string' ? value : undefined,
    }
    note(told)
    if (outcome === 'coalesced' && random() < 0.1 && process.connected) process.send?.(told, undefined, undefined, () => {})
  } catch (error) {
    const code = isStoreError(error) ? error.code : error instanceof Error ? error.message : String(error)
    note({ is: 'refused', uid: asked, key, code, effect: isStoreError(error) ? error.effect : 'none', text: String(error).slice(0, 300) })
  } finally {
    clearTimeout(timer)
  }
}

async function always(): Promise<void> {
  while (process.connected) {
    await ask()
    if (random() < 0.3) await pause(random() * 5)
  }
}

for (const asked of before) await ask(asked)
await Promise.all(Array.from({ length: loops }, always))
await store.close()
process.exit(0)

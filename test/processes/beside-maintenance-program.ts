/** One process beside others: turns of its own, or maintenance of the store without a pause. Says what it did when it is asked to stop. */
import { SessionStore } from '../../src/index.js'

export type Role = 'turns' | 'checkpoint' | 'always' | 'rotate'

export interface Told {
  /** Turns that were acknowledged, or rounds of maintenance. */
  readonly rounds: number
  readonly failures: readonly string[]
  readonly lockWaitMsMax: number
  readonly lockTimeouts: number
  /** The longest single step of a turn: its start, an append, a look at what is pending, its end. */
  readonly stepMsMax: number
}

const [dir, role, name] = process.argv.slice(2) as [string, Role, string]
const store = await SessionStore.open(dir, { durability: 'process', checkpoint: role === 'always' ? 'always' : 'auto' })
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

const work: Record<Role, (n: number) => Promise<unknown>> = {
  async turns(n) {
    let beganMs = performance.now()
    const step = () => {
      stepMsMax = Math.max(stepMsMax, performance.now() - beganMs)
      beganMs = performance.now()
    }
    await store.runTurn(`turns:${name}:${n % 3}`, { input: { asked: n } }, async (turn) => {
      step()
      await timed(turn.pending())
      await timed(turn.append({ answered: n }))
      beganMs = performance.now()
    })
    step()
  },
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
}

process.on('message', () => {
  stopped = true
})
// The conversations are there: naming a new one is a commit to the metadata, and waits for others' like any other.
if (role === 'turns') for (let n = 0; n < 3; n++) await store.session(`turns:${name}:${n}`).append({ asked: 'nothing' })
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

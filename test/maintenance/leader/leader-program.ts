/** One of many processes that write, with maintenance on. Every acknowledged append is noted in a file of its own; it goes on until it is told to stop. */
import fs from 'node:fs'
import { SessionStore } from '../../../src/index.js'

export interface Acknowledged {
  readonly key: string
  readonly sessionId: string
  readonly seq: number
  readonly said: string
}

export interface Told {
  readonly failures: readonly string[]
  readonly failedSteps: readonly string[]
  readonly lockTimeouts: number
  readonly rounds: number
}

const [dir, name, notes] = process.argv.slice(2) as [string, string, string]
const failedSteps: string[] = []
const store = await SessionStore.open(dir, {
  durability: 'process',
  maintenance: {
    everyMs: 150,
    leaseMs: 1_000,
    budgetMs: 20,
    pauseMs: 2,
    verifyShare: 0.2,
    // Many of these come, and most of them go.
    retention: { prefixes: { 'gone:': { maxCount: 3 } }, archives: { maxAgeMs: 3_600_000 } },
    onEvent: ({ outcome, step, text }) => {
      if (outcome === 'failed') failedSteps.push(`${step} ${text}`)
    },
  },
})
const failures: string[] = []
const note = fs.openSync(notes, 'a')
let stopped = false
process.on('message', () => {
  stopped = true
})

async function append(key: string, said: string): Promise<void> {
  const { sessionId, seq } = await store.session(key).append({ said })
  fs.writeSync(note, `${JSON.stringify({ key, sessionId, seq, said } satisfies Acknowledged)}\n`)
}

process.send!('ready')
for (let n = 0; !stopped; n++) {
  try {
    await append(`kept:${name}:${n % 5}`, `${name} ${n}`)
    // Now and then one is archived just before it is appended to again.
    await append(`gone:${name}:${n >> 1}`, `${name} ${n}`)
  } catch (error) {
    failures.push(`${(error as { code?: string }).code ?? ''} ${String(error)}`)
  }
  await new Promise((resolve) => setTimeout(resolve, 4))
}
const { lockTimeouts, maintenanceRounds: rounds } = store.stats()
await store.close()
process.send!({ failures, failedSteps, lockTimeouts, rounds } satisfies Told)
process.disconnect()

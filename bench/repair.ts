/** A transcript of 50,000 lines, one of them broken: finding out (verify), planning, and repairing; each on a handle of its own. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { RepairPlan } from '../src/index.js'
import { SessionStore } from '../src/index.js'
import { alternate, type Contestant, named, rowOf, type Slice } from './harness/measure.js'
import { staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'
import { writeTranscript } from './transcript-open.js'

const lines = 50_000

interface Subject {
  readonly dir: string
  /** Puts the broken line back. */
  damage(): void
}

async function subjectIn(dir: string): Promise<Subject> {
  await writeTranscript(dir, 'long', lines)
  const store = await SessionStore.open(dir, { readOnly: true })
  const path = join(dir, 'transcripts', `${(await store.get('long'))!.sessionId}.jsonl`)
  await store.close()
  const bytes = readFileSync(path)
  const at = bytes.indexOf('"message"', bytes.length >> 1)
  bytes[at + 1]! ^= 1
  return { dir, damage: () => writeFileSync(path, bytes) }
}

/** Only what `work` does counts. */
async function repeated({ dir, damage }: Subject, sliceMs: number, work: (store: SessionStore) => Promise<number>): Promise<Slice> {
  const beganMs = performance.now()
  let ops = 0
  let elapsedMs = 0
  do {
    damage()
    const store = await SessionStore.open(dir, { durability: 'process' })
    elapsedMs += await work(store)
    ops++
    await store.close()
  } while (performance.now() - beganMs < sliceMs)
  return { ops, elapsedMs }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now()
  await work()
  return performance.now() - startedMs
}

export const repair: Workload = {
  name: 'repair',
  title: 'one broken line in a transcript of 50,000',
  async run(bench) {
    const subject = await subjectIn(join(bench.dir, 'broken'))
    const contestant = (name: string, work: (store: SessionStore) => Promise<number>): Contestant => ({
      name,
      slice: (ms) => repeated(subject, ms, work),
    })
    const applied = async (store: SessionStore, plan: RepairPlan) => {
      const report = await store.repair(plan)
      if (!report.ok) throw new Error(`not repaired: ${JSON.stringify(report.actions)}`)
    }
    const all = await alternate(
      [
        contestant('verify', (store) => timed(() => store.verify())),
        contestant('planRepair', (store) => timed(() => store.planRepair())),
        contestant('repair', async (store) => {
          const plan = await store.planRepair()
          return timed(() => applied(store, plan))
        }),
      ],
      bench.rounds,
      bench.sliceMs,
    )
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [staysWithin('repair: within 2 x of verify', named(all, 'repair')!, named(all, 'verify')!, 2)],
    }
  },
}

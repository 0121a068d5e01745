/** One conversation goes on while its store is verified, compacted and pruned: what that adds to an append. Maintenance runs in a process of its own,
 *  as `holdfast maintain --watch` does, and then in the very process that appends. Slices take turns with slices that nobody disturbs. */
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { type MaintenanceEvent, type MaintenanceOptions, SessionStore } from '../src/index.js'
import { Worker } from './harness/crew.js'
import { messageRecord } from './harness/data.js'
import { median, quantile } from './harness/measure.js'
import { formatTime } from './harness/verdict.js'
import type { Bench, Row, Verdict, Workload } from './harness/workload.js'
import { writeTranscript } from './transcript-open.js'

const lines = 30_000
const pruned = 400
const summarized = 6
const recordsEach = 1_500
const betweenMs = 1
const timesMax = 3

/** Without a pause between rounds: something of it is always under way. */
export const busyMaintenance: MaintenanceOptions = {
  everyMs: 100,
  jitter: 0,
  verifyShare: 1,
  compactBytes: { minBytes: 100_000, voidShare: 0.3 },
  retention: { prefixes: { 'gone:': { maxCount: 10 } } },
}

/** How often each thing was done. */
export type Done = Record<string, number>

export function counting(done: Done): (event: MaintenanceEvent) => void {
  return ({ step, outcome }) => {
    const name = step ? `${step} ${outcome}` : outcome
    done[name] = (done[name] ?? 0) + 1
  }
}

export const besideMaintenance: Workload = {
  name: 'beside-maintenance',
  title: 'an append to one session while the store is verified, compacted and pruned; durability power',
  async run(bench) {
    const latencies: Record<'idle' | 'another process' | 'this process', number[]> = { idle: [], 'another process': [], 'this process': [] }
    const done: Done = {}
    const rounds = bench.quick ? 1 : 3
    const sliceMs = bench.quick ? 1_000 : 3_000
    for (let round = 0; round < rounds; round++) {
      for (const who of ['another process', 'this process'] as const) {
        const dir = join(bench.dir, `${round} ${who}`)
        await prepare(dir)
        latencies.idle.push(...(await withStore(dir, undefined, (store) => appending(store, sliceMs))))
        latencies[who].push(...(await beside(who, dir, sliceMs, done)))
      }
    }
    bench.note(
      `done meanwhile: ${Object.entries(done)
        .map(([what, times]) => `${what} ${times}`)
        .join(', ')}`,
    )
    const rows = Object.entries(latencies).map(([name, all]) => rowOf(name, all))
    return { rows, verdicts: [verdictFor(rows[1]!, rows[0]!, false), verdictFor(rows[2]!, rows[0]!, true)] }
  },
}

async function beside(who: 'another process' | 'this process', dir: string, sliceMs: number, done: Done): Promise<number[]> {
  if (who === 'this process') return withStore(dir, { ...busyMaintenance, onEvent: counting(done) }, (store) => appending(store, sliceMs))
  const worker = new Worker({ kind: 'maintain', dir })
  await worker.next()
  const all = await withStore(dir, undefined, (store) => appending(store, sliceMs))
  for (const [what, times] of Object.entries((await worker.stop()) as Done)) done[what] = (done[what] ?? 0) + times
  return all
}

async function prepare(dir: string): Promise<void> {
  await writeTranscript(dir, 'long', lines)
  const store = await SessionStore.open(dir, { durability: 'process' })
  for (let at = 0; at < pruned; at += 100)
    await Promise.all(Array.from({ length: 100 }, (_, of) => store.session(`gone:${at + of}`).append(messageRecord(of))))
  for (let at = 0; at < summarized; at++) {
    const session = store.session(`long-ago:${at}`)
    for (let from = 0; from < recordsEach; from += 500)
      await session.append(Array.from({ length: 500 }, (_, of) => messageRecord(from + of)))
    await session.compact({ keepLast: 10, summarize: async () => 'what was said long ago' })
  }
  await store.close()
}

async function withStore<R>(
  dir: string,
  maintenance: MaintenanceOptions | undefined,
  work: (store: SessionStore) => Promise<R>,
): Promise<R> {
  const store = await SessionStore.open(dir, maintenance ? { maintenance } : {})
  try {
    return await work(store as SessionStore)
  } finally {
    await store.close()
  }
}

/** Of each append, ms. */
async function appending(store: SessionStore, sliceMs: number): Promise<number[]> {
  const session = store.session('live')
  const all: number[] = []
  for (let warm = 0; warm < 100; warm++) await session.append(messageRecord(warm))
  for (const untilMs = performance.now() + sliceMs; performance.now() < untilMs; ) {
    const beganMs = performance.now()
    await session.append(messageRecord(all.length))
    all.push(performance.now() - beganMs)
    await sleep(betweenMs)
  }
  return all
}

function rowOf(contestant: string, all: readonly number[]): Row {
  const us = all.map((ms) => ms * 1_000)
  return {
    contestant,
    median: median(us),
    low: Math.min(...us),
    high: Math.max(...us),
    p99: quantile(all, 0.99),
    longest: Math.max(...all),
    unit: 'us',
  }
}

function verdictFor(row: Row, idle: Row, optional: boolean): Verdict {
  const ratio = row.p99! / idle.p99!
  return {
    requirement: `p99 beside maintenance in ${row.contestant}: within ${timesMax} x of idle`,
    measured: formatTime(row.p99! * 1_000),
    floor: `idle ${formatTime(idle.p99! * 1_000)}`,
    ratio: ratio.toFixed(2),
    required: `at most ${timesMax} x`,
    ok: ratio <= timesMax,
    ...(optional && { optional }),
  }
}

export async function runMaintenance(bench: Pick<Bench, 'dir'>): Promise<{ finish(): Promise<Done> }> {
  const done: Done = {}
  const store = await SessionStore.open(bench.dir, { maintenance: { ...busyMaintenance, onEvent: counting(done) } })
  return {
    async finish() {
      await store.close()
      return done
    },
  }
}

/** For how long each call keeps everything else in the process from running. A ticker runs through the event loop all the time and notes its
 *  longest gap while the call is under way; beside it the gap with no call at all, which is the machine's own. */
import { performance } from 'node:perf_hooks'
import { SessionStore } from '../src/index.js'
import { seeded } from './harness/contestants.js'
import { entryFields, messageRecord, sessionKey } from './harness/data.js'
import { median } from './harness/measure.js'
import { formatTime } from './harness/verdict.js'
import type { Row, Verdict, Workload } from './harness/workload.js'
import { writeTranscript } from './transcript-open.js'

const sessions = 10_000
const lines = 50_000
const requiredMs = 20

type Store = SessionStore<Record<string, unknown>>
interface Call {
  readonly name: string
  /** Not measured. */
  before?(store: Store): Promise<unknown>
  run(store: Store, dir: string): Promise<unknown>
}

/** Turns of the event loop, timers and immediates included: promises that resolve each other for long count as blocking, for they do. */
async function longestGap(work: () => Promise<unknown>): Promise<number> {
  let longestMs = 0
  let lastMs = performance.now()
  let on = true
  const tick = () => {
    const nowMs = performance.now()
    longestMs = Math.max(longestMs, nowMs - lastMs)
    lastMs = nowMs
    if (on) setImmediate(tick)
  }
  setImmediate(tick)
  await new Promise((resolve) => setTimeout(resolve, 2))
  globalThis.gc?.()
  await new Promise((resolve) => setTimeout(resolve, 2))
  longestMs = 0
  try {
    await work()
    await new Promise((resolve) => setTimeout(resolve, 2))
  } finally {
    on = false
  }
  return longestMs
}

const drain = async (iterable: AsyncIterable<unknown>) => {
  let count = 0
  for await (const _ of iterable) count++
  return count
}

/** Makes the journal worth folding. */
const changeMany = async (store: Store) => {
  for (let round = 0; round < 2; round++)
    await Promise.all(Array.from({ length: 500 }, (_, index) => store.update(sessionKey(index * 20), () => entryFields(round))))
}

const calls: readonly Call[] = [
  { name: 'nothing, 50 ms', run: () => new Promise((resolve) => setTimeout(resolve, 50)) },
  { name: 'open', run: async (_, dir) => (await SessionStore.open(dir)).close() },
  { name: 'open, read only, first get', run: async (_, dir) => openReadOnly(dir) },
  { name: 'get', run: (store) => store.get(sessionKey(5)) },
  { name: 'entries()', run: (store) => drain(store.entries()) },
  { name: 'update', run: (store) => store.update(sessionKey(6), (entry) => ({ ...entryFields(6), n: Number(entry?.revision) })) },
  { name: 'withStoreLock over all entries', run: (store) => store.withStoreLock((view) => [...view.entries()].length) },
  {
    name: '500 updates at once',
    run: (store) => Promise.all(Array.from({ length: 500 }, (_, at) => store.update(sessionKey(at), () => entryFields(at)))),
  },
  { name: 'checkpoint', before: changeMany, run: (store) => store.checkpoint() },
  { name: 'append', run: (store) => store.session('long').append(messageRecord(1)) },
  { name: 'append of 1,000', run: (store) => store.session('batch').append(Array.from({ length: 1_000 }, (_, at) => messageRecord(at))) },
  { name: 'tail(50), 50,000 lines', run: (store) => store.session('long').tail(50) },
  { name: 'read, 50,000 lines', run: (store) => drain(store.session('long').read()) },
  { name: 'verify', run: (store) => store.verify() },
  { name: 'retain, dry run', run: (store) => store.retain({ rules: { maxCount: 1_000 }, dryRun: true }) },
  { name: 'maintain', run: (store) => store.maintain({ verifyShare: 0.2 }) },
  { name: 'rotate', before: (store) => store.session('turned').append(messageRecord(1)), run: (store) => store.session('turned').rotate() },
  { name: 'delete', before: (store) => store.update('gone', () => entryFields(1)), run: (store) => store.delete('gone') },
]

async function openReadOnly(dir: string): Promise<void> {
  const store = await SessionStore.open(dir, { readOnly: true })
  await store.get(sessionKey(9))
  await store.close()
}

export const eventLoop: Workload = {
  name: 'event-loop',
  title: 'longest time that a call keeps the event loop from turning, 10,000 sessions; median and range over the runs',
  async run(bench) {
    const holdfast = bench.named('holdfast')[0]!
    const dir = await seeded(bench, holdfast, sessions)
    await writeTranscript(dir, 'long', lines)
    const runs = bench.quick ? 3 : 7
    const rows: Row[] = []
    let store: Store = await SessionStore.open(dir)
    for (const call of calls) {
      const gaps: number[] = []
      for (let run = 0; run < runs; run++) {
        await call.before?.(store)
        gaps.push(await longestGap(() => call.run(store, dir)))
      }
      rows.push(rowOfGaps(call.name, gaps))
    }
    const closing: number[] = []
    for (let run = 0; run < runs; run++) {
      await changeMany(store)
      closing.push(await longestGap(() => store.close()))
      store = await SessionStore.open(dir)
    }
    await store.close()
    rows.push(rowOfGaps('close, with a journal to fold', closing))
    return { rows, verdicts: rows.slice(1).map((row) => verdictFor(row, rows[0]!)) }
  },
}

function rowOfGaps(contestant: string, gaps: readonly number[]): Row {
  return { contestant, median: median(gaps), low: Math.min(...gaps), high: Math.max(...gaps), unit: 'ms' }
}

function verdictFor(row: Row, idle: Row): Verdict {
  return {
    requirement: `${row.contestant}: under 20 ms`,
    measured: formatTime(row.median * 1000),
    floor: `${idle.contestant} ${formatTime(idle.median * 1000)}`,
    ratio: (row.median / requiredMs).toFixed(2),
    required: `under ${requiredMs} ms`,
    ok: row.median < requiredMs,
  }
}

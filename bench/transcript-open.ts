/** The first append to, and the first tail(50) of, a transcript that this handle has not seen before: 500 lines against 50,000. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { SessionStore } from '../src/index.js'
import { messageRecord } from './harness/data.js'
import { alternate, type Contestant, named, rowOf, type Slice } from './harness/measure.js'
import { staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const lengths = [500, 50_000] as const

async function withFreshStores(
  dir: string,
  sliceMs: number,
  first: (store: SessionStore<Record<string, unknown>>) => Promise<unknown>,
): Promise<Slice> {
  const beganMs = performance.now()
  let ops = 0
  let elapsedMs = 0
  do {
    const store = await SessionStore.open(dir, { durability: 'process' })
    const startedMs = performance.now()
    await first(store)
    elapsedMs += performance.now() - startedMs
    ops++
    await store.close()
  } while (performance.now() - beganMs < sliceMs)
  return { ops, elapsedMs }
}

export async function writeTranscript(dir: string, key: string, lines: number): Promise<void> {
  mkdirSync(dir, { recursive: true })
  const store = await SessionStore.open(dir, { durability: 'process' })
  for (let from = 0; from < lines; from += 500) {
    const records = Array.from({ length: Math.min(500, lines - from) }, (_, at) => messageRecord(from + at))
    await store.session(key).append(records)
  }
  await store.close()
}

export const transcriptOpen: Workload = {
  name: 'transcript-open',
  title: 'first append and first tail(50), 500 against 50,000 lines',
  async run(bench) {
    const contestants: Contestant[] = []
    for (const lines of lengths) {
      const dir = join(bench.dir, String(lines))
      await writeTranscript(dir, 'long', lines)
      const label = lines.toLocaleString('en-US')
      contestants.push({
        name: `append, ${label}`,
        slice: (ms) => withFreshStores(dir, ms, (store) => store.session('long').append({ type: 'ping' })),
      })
      contestants.push({ name: `tail(50), ${label}`, slice: (ms) => withFreshStores(dir, ms, (store) => store.session('long').tail(50)) })
    }
    const all = await alternate(contestants, bench.rounds, bench.sliceMs)
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: ['append', 'tail(50)'].map((what) =>
        staysWithin(`${what}: 50,000 lines within 1.5 x of 500`, named(all, `${what}, 50,000`)!, named(all, `${what}, 500`)!, 1.5),
      ),
    }
  },
}

/** The same update with 100 and with 100,000 sessions: cost must not grow with the store (P9). */
import { join } from 'node:path'
import { prepare } from './harness/contestants.js'
import { journalLine } from './harness/data.js'
import { floorSync } from './harness/floor.js'
import { alternate, named, rowOf } from './harness/measure.js'
import { staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const few = 100
const many = 100_000

export const metadataScale: Workload = {
  name: 'metadata-scale',
  title: 'durable metadata update, 100 against 100,000 sessions',
  async run(bench) {
    // A whole-file rewrite of 100,000 entries takes more than a second; one peer of that kind shows it.
    const peers = bench.named('holdfast', 'sqlite WAL FULL', ...(bench.quick ? [] : ['design card']))
    const small = await prepare(bench, peers, few)
    const large = await prepare(bench, peers, many)
    const label = (contestants: typeof small.contestants, count: number) =>
      contestants.map((one) => ({
        name: `${one.name}, ${count.toLocaleString('en-US')}`,
        every: one.every ?? 1,
        slice: one.slice.bind(one),
      }))
    const pairs = label(small.contestants, few).flatMap((one, at) => [one, label(large.contestants, many)[at]!])
    const all = await alternate([floorSync(join(bench.dir, 'floor'), journalLine(1)), ...pairs], bench.rounds, bench.sliceMs)
    await small.close()
    await large.close()
    const with100 = named(all, 'holdfast, 100')!
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [staysWithin('100,000 sessions within 1.25 x the time with 100', named(all, 'holdfast, 100,000')!, with100, 1.25)],
    }
  },
}

/** The lock by itself: one process taking and giving it back, then eight that want it all the time. */
import { join } from 'node:path'
import { Crew } from './harness/crew.js'
import { openLock } from './harness/locks.js'
import { alternate, type Contestant, median, quantile, rowOf, sliceAsync } from './harness/measure.js'
import { isBelow } from './harness/verdict.js'
import type { Row, Workload } from './harness/workload.js'

const writers = 8
const contendedMs = 5_000

export const lock: Workload = {
  name: 'lock',
  title: 'lock cycle: alone, then by 8 processes for 5 s',
  async run(bench) {
    const kinds = bench.named('design card').length > 0 ? (['holdfast', 'proper-lockfile'] as const) : (['holdfast'] as const)
    const alone = kinds.map((kind): Contestant => {
      const { cycle } = openLock(kind, join(bench.dir, kind))
      return { name: `${kind}, alone`, slice: (sliceMs) => sliceAsync(cycle, sliceMs, 16) }
    })
    const all = await alternate(alone, bench.rounds, bench.sliceMs)
    const rows: Row[] = all.map((one) => rowOf(one))
    const verdicts = [isBelow('cycle alone: 20 us', median(all[0]!.rounds), 20, 'us')]
    for (const kind of kinds) {
      const { row, unfairness } = await contended(kind, join(bench.dir, `${kind}-8`), bench.quick ? 1_500 : contendedMs)
      rows.push(row)
      if (kind !== 'holdfast') continue
      verdicts.push(isBelow('8 processes: luckiest to unluckiest within 3 x', unfairness, 3, 'x'))
      verdicts.push(isBelow('8 processes: longest wait 100 ms', row.longest!, 100, 'ms'))
    }
    return { rows, verdicts }
  },
}

async function contended(kind: 'holdfast' | 'proper-lockfile', path: string, forMs: number): Promise<{ row: Row; unfairness: number }> {
  const crew = await Crew.hire(
    `${kind}, 8 processes`,
    Array.from({ length: writers }, () => ({ kind: 'lock' as const, lock: kind, path })),
  )
  const { ops, elapsedMs } = await crew.slice(forMs)
  await crew.dismiss()
  const us = (elapsedMs * 1000) / ops
  const counts = crew.opsByWorker()
  const least = Math.min(...counts)
  const most = Math.max(...counts)
  const latencies = crew.latenciesMs()
  const row: Row = {
    contestant: crew.name,
    median: us,
    low: us,
    high: us,
    unit: 'us',
    perSecond: 1e6 / us,
    p99: quantile(latencies, 0.99),
    longest: quantile(latencies, 1),
    remark: `least ${least}, most ${most} cycles`,
  }
  return { row, unfairness: most / Math.max(1, least) }
}

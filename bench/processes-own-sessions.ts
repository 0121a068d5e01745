/** Eight processes, each appending durably to its own session of one store, against eight processes that do the same writes and syncs to
 *  files of their own without any lock. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { remarkOf } from './harness/contestants.js'
import { Crew } from './harness/crew.js'
import { sessionKey } from './harness/data.js'
import { alternate, named, quantile, rowOf } from './harness/measure.js'
import { reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const writers = 8
const each = <T>(make: (index: number) => T) => Array.from({ length: writers }, (_, index) => make(index))

export const processesOwnSessions: Workload = {
  name: 'processes-own-sessions',
  title: '8 processes, own sessions, durable appends; times are per append of all together',
  async run(bench) {
    const peers = bench.named('holdfast', 'sqlite WAL FULL', 'lmdb', 'design card')
    const dirs = peers.map((peer) => join(bench.dir, peer.name.replaceAll(/[^a-z0-9]+/gi, '-')))
    for (const dir of dirs) mkdirSync(dir)
    const floor = await Crew.hire(
      'floor F2 by 8 processes',
      each((index) => ({ kind: 'floor', path: join(bench.dir, `floor-${index}`), index })),
    )
    const crews: Crew[] = []
    for (const [at, peer] of peers.entries()) {
      const tasks = each((index) => ({ kind: 'append' as const, peer: peer.name, dir: dirs[at]!, session: sessionKey(index) }))
      crews.push(await Crew.hire(peer.name, tasks, peer.execPath, remarkOf(peer)))
    }
    const all = await alternate([floor, ...crews], bench.rounds, bench.sliceMs * 2)
    await floor.dismiss()
    for (const crew of crews) await crew.dismiss()

    const rows = [{ ...rowOf(all[0]!), p99: quantile(floor.latenciesMs(), 0.99), longest: quantile(floor.latenciesMs(), 1) }]
    for (const [at, peer] of peers.entries()) {
      const acknowledged = crews[at]!.opsByWorker()
      const stored = await Promise.all(each((index) => peer.recordCount!(dirs[at]!, sessionKey(index))))
      rows.push({
        ...rowOf(all[at + 1]!),
        p99: quantile(crews[at]!.latenciesMs(), 0.99),
        longest: quantile(crews[at]!.latenciesMs(), 1),
        acknowledged: sum(acknowledged),
        lost: sum(acknowledged.map((count, index) => Math.max(0, count - stored[index]!))),
      } as (typeof rows)[0])
    }
    return { rows, verdicts: [reachesShare('0.7 x 8 processes doing F2 without any lock', named(all, 'holdfast')!, all[0]!, 0.7)] }
  },
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0)
}

/** Eight processes change random entries of one store, durably. Every acknowledged change is counted, and counted again in what is stored. */
import { countersOf, remarkOf, seeded } from './harness/contestants.js'
import { Crew } from './harness/crew.js'
import { alternate, named, quantile, rowOf } from './harness/measure.js'
import { isAhead, isBelow } from './harness/verdict.js'
import type { Row, Workload } from './harness/workload.js'

const writers = 8
const sessions = 10_000

export const processesMetadata: Workload = {
  name: 'processes-metadata',
  title: '8 processes, one metadata file of 10,000 sessions, durable; times are per update of all together',
  async run(bench) {
    const peers = bench.named('holdfast', 'sqlite WAL FULL', 'lmdb', 'design card', 'fs-safe jsonStore')
    const crews: Crew[] = []
    const dirs: string[] = []
    for (const peer of peers) {
      const dir = await seeded(bench, peer, sessions)
      const tasks = Array.from({ length: writers }, (_, index) => ({
        kind: 'update' as const,
        peer: peer.name,
        dir,
        sessions,
        seed: index + 1,
      }))
      crews.push(await Crew.hire(peer.name, tasks, peer.execPath, remarkOf(peer)))
      dirs.push(dir)
    }
    const all = await alternate(crews, bench.rounds, bench.sliceMs * 2)
    for (const crew of crews) await crew.dismiss()

    const rows: Row[] = []
    for (const [at, peer] of peers.entries()) {
      const crew = crews[at]!
      const acknowledged = crew.opsByWorker().reduce((total, count) => total + count, 0)
      const stored = [...(await countersOf(peer, dirs[at]!)).values()].reduce((total, count) => total + count, 0)
      const latencies = crew.latenciesMs()
      rows.push({
        ...rowOf(all[at]!),
        p99: quantile(latencies, 0.99),
        longest: quantile(latencies, 1),
        acknowledged,
        lost: Math.max(0, acknowledged - stored),
      })
    }
    const lockWaits = crews[0]!.lockWaitsMs()
    return {
      rows,
      verdicts: [
        isBelow('nothing lost', rows[0]!.lost!, 0, 'updates'),
        isAhead(all[0]!, named(all, 'sqlite WAL FULL'), 'better-sqlite3 (BEGIN IMMEDIATE, FULL)'),
        isBelow('lock wait p99 under 50 ms', quantile(lockWaits, 0.99), 50, 'ms'),
      ],
    }
  },
}

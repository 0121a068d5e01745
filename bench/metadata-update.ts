/** One process changes one of 10,000 entries after another, and waits for each to be on the disk. */
import { join } from 'node:path'
import { prepare } from './harness/contestants.js'
import { journalLine } from './harness/data.js'
import { floorSync } from './harness/floor.js'
import { alternate, named, rowOf } from './harness/measure.js'
import { isAhead, reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const sessions = 10_000

export const metadataUpdate: Workload = {
  name: 'metadata-update',
  title: 'durable metadata update, one after another, 10,000 sessions',
  async run(bench) {
    const peers = bench.named('holdfast', 'sqlite WAL FULL', 'sqlite WAL NORMAL', 'lmdb', 'design card', 'fs-safe jsonStore')
    const { contestants, close } = await prepare(bench, peers, sessions)
    const all = await alternate([floorSync(join(bench.dir, 'floor'), journalLine(1)), ...contestants], bench.rounds, bench.sliceMs)
    await close()
    const [floor, holdfast] = all as [(typeof all)[0], (typeof all)[0]]
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [
        reachesShare("0.6 x F2's rate", holdfast, floor, 0.6),
        isAhead(holdfast, named(all, 'sqlite WAL FULL'), 'better-sqlite3 (WAL, FULL)'),
      ],
    }
  },
}

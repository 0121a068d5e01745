/** One record after another to one transcript; acknowledged means that the disk has it. Not among the requirements; the usual case. */
import { join } from 'node:path'
import { appending } from './harness/appending.js'
import { transcriptLine } from './harness/data.js'
import { floorSync } from './harness/floor.js'
import { alternate, named, rowOf } from './harness/measure.js'
import { isAhead, reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

export const appendPower: Workload = {
  name: 'append-power',
  title: 'append of one record, one after another, durability power',
  async run(bench) {
    const { contestants, close } = await appending(bench, ['holdfast', 'sqlite WAL FULL', 'lmdb', 'design card'], 1)
    const all = await alternate([floorSync(join(bench.dir, 'floor'), transcriptLine(1)), ...contestants], bench.rounds, bench.sliceMs)
    await close()
    const holdfast = named(all, 'holdfast')!
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [
        { ...reachesShare("0.6 x F2's rate", holdfast, all[0]!, 0.6), optional: true },
        { ...isAhead(holdfast, named(all, 'sqlite WAL FULL'), 'better-sqlite3 (WAL, FULL) inserts'), optional: true },
      ],
    }
  },
}

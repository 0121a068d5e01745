/** One record after another to one transcript; acknowledged means that the kernel has it. */
import { join } from 'node:path'
import { appending } from './harness/appending.js'
import { transcriptLine } from './harness/data.js'
import { floorWrite } from './harness/floor.js'
import { alternate, named, rowOf } from './harness/measure.js'
import { isAhead, staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

export const appendProcess: Workload = {
  name: 'append-process',
  title: 'append of one record, one after another, durability process',
  async run(bench) {
    const { contestants, close } = await appending(bench, ['holdfast (process)', 'sqlite WAL NORMAL', 'lmdb noSync'], 8)
    const all = await alternate([floorWrite(join(bench.dir, 'floor'), transcriptLine(1)), ...contestants], bench.rounds, bench.sliceMs)
    await close()
    const holdfast = named(all, 'holdfast (process)')!
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [
        staysWithin("within 25 x F1's time", holdfast, all[0]!, 25),
        isAhead(holdfast, named(all, 'sqlite WAL NORMAL'), 'better-sqlite3 (WAL, NORMAL) inserts'),
      ],
    }
  },
}

/** 64 updates of different sessions at once, as a gateway has them: they should share the disk's work, not queue for it. */
import { join } from 'node:path'
import { countUp, remarkOf, seeded } from './harness/contestants.js'
import { journalLine, randomIndex, sessionKey } from './harness/data.js'
import { floorSync } from './harness/floor.js'
import { alternate, type Contestant, named, rowOf, sliceAsync } from './harness/measure.js'
import { isAhead, staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const sessions = 10_000
const together = 64

export const metadataConcurrent: Workload = {
  name: 'metadata-concurrent',
  title: '64 concurrent durable updates, 10,000 sessions; times are for the whole 64',
  async run(bench) {
    const contestants: Contestant[] = [
      floorSync(join(bench.dir, 'floor'), Buffer.concat(Array(together).fill(journalLine(1))), 'floor F2, 64 lines at once'),
    ]
    const closers: (() => unknown)[] = []
    for (const peer of bench.named('holdfast', 'sqlite WAL FULL', 'lmdb', 'design card')) {
      const store = await peer.sessions(await seeded(bench, peer, sessions))
      const random = randomIndex(11)
      const one = () => countUp(store, sessionKey(random(sessions)))
      const remark = remarkOf(peer)
      const base = remark === undefined ? {} : { remark }
      if (peer.name === 'holdfast') contestants.push({ name: 'holdfast, one', slice: (sliceMs) => sliceAsync(one, sliceMs) })
      contestants.push({
        ...base,
        name: peer.name,
        slice: (sliceMs) => sliceAsync(() => Promise.all(Array.from({ length: together }, one)), sliceMs),
      })
      closers.push(() => store.close())
    }
    const all = await alternate(contestants, bench.rounds, bench.sliceMs)
    for (const close of closers) await close()
    const holdfast = named(all, 'holdfast')!
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [
        staysWithin('whole batch in at most 4 x the time of one', holdfast, named(all, 'holdfast, one')!, 4),
        isAhead(holdfast, named(all, 'sqlite WAL FULL'), 'better-sqlite3 (WAL, FULL)'),
      ],
    }
  },
}

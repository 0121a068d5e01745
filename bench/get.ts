/** Reading one entry of a store that is open and warm: fresh, that is checked against the disk, and without a lock. */
import { lstatSync } from 'node:fs'
import { seeded } from './harness/contestants.js'
import { randomIndex, sessionKey } from './harness/data.js'
import { alternate, type Contestant, median, named, rowOf, sliceAsync, sliceSync } from './harness/measure.js'
import { formatCount } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const sessions = 10_000
const required = 300_000

export const get: Workload = {
  name: 'get',
  title: 'get of a random entry, warm store, 10,000 sessions',
  async run(bench) {
    const contestants: Contestant[] = [{ name: 'floor: one lstat', slice: (sliceMs) => sliceSync(() => lstatSync(bench.dir), sliceMs, 64) }]
    const closers: (() => unknown)[] = []
    for (const peer of bench.named('holdfast', 'sqlite WAL FULL', 'lmdb')) {
      const store = await peer.sessions(await seeded(bench, peer, sessions))
      const random = randomIndex(3)
      contestants.push({ name: peer.name, slice: (sliceMs) => sliceAsync(() => store.get(sessionKey(random(sessions))), sliceMs, 64) })
      closers.push(() => store.close())
    }
    const all = await alternate(contestants, bench.rounds, bench.sliceMs)
    for (const close of closers) await close()
    const holdfast = named(all, 'holdfast')!
    const rate = 1e6 / median(holdfast.rounds)
    return {
      rows: all.map((one) => rowOf(one)),
      verdicts: [
        {
          requirement: '300,000 gets a second',
          measured: `${formatCount(rate)}/s`,
          floor: `${all[0]!.name} ${formatCount(1e6 / median(all[0]!.rounds))}/s`,
          ratio: (rate / required).toFixed(2),
          required: `at least ${formatCount(required)}/s`,
          ok: rate >= required,
        },
      ],
    }
  },
}

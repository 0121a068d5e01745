/** 1,000 appends to one session, awaited together: they share one write. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { messageRecord, sessionKey, transcriptLine } from './harness/data.js'
import { floorWrite } from './harness/floor.js'
import { alternate, type Contestant, median, named, rowOf, sliceAsync } from './harness/measure.js'
import { reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const together = 1_000
const required = 200_000

export const appendTogether: Workload = {
  name: 'append-together',
  title: '1,000 appends awaited together, durability process; times are for the whole 1,000',
  async run(bench) {
    const records = Array.from({ length: together }, (_, index) => messageRecord(index))
    const lines = Buffer.concat(records.map((_, index) => transcriptLine(index)))
    const contestants: Contestant[] = [floorWrite(join(bench.dir, 'floor'), lines, 'floor: the same bytes by one write')]
    const closers: (() => unknown)[] = []
    for (const peer of bench.named('holdfast (process)', 'sqlite WAL NORMAL', 'lmdb noSync')) {
      const dir = join(bench.dir, peer.name.replaceAll(/[^a-z0-9]+/gi, '-'))
      mkdirSync(dir)
      const transcripts = await peer.transcripts!(dir)
      const each = () => Promise.all(records.map((record) => transcripts.append(sessionKey(1), record)))
      contestants.push({ name: peer.name, slice: (sliceMs) => sliceAsync(each, sliceMs) })
      contestants.push({
        name: `${peer.name}, one call of 1,000`,
        slice: (sliceMs) => sliceAsync(() => transcripts.appendMany!(sessionKey(2), records), sliceMs),
      })
      closers.push(() => transcripts.close())
    }
    const all = await alternate(contestants, bench.rounds, bench.sliceMs)
    for (const close of closers) await close()
    const holdfast = named(all, 'holdfast (process)')!
    const rate = (1e6 / median(holdfast.rounds)) * together
    const share = reachesShare('200,000 records/s or 0.5 x the floor', holdfast, all[0]!, 0.5, together)
    return {
      rows: all.map((one) => rowOf(one, 'ms', together)),
      verdicts: [
        {
          ...share,
          required: `at least ${required.toLocaleString('en-US')}/s, or 0.5 x the floor's rate`,
          ok: share.ok || rate >= required,
        },
      ],
    }
  },
}

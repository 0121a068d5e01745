/** Resident memory of a process that has opened 10,000 sessions of 600 bytes, read and changed a thousand, and collected its garbage; with
 *  that of a bare Node beside it. Every sample is a process of its own. */
import { remarkOf, seeded } from './harness/contestants.js'
import { errand } from './harness/crew.js'
import { median } from './harness/measure.js'
import { isBelow } from './harness/verdict.js'
import type { Row, Workload } from './harness/workload.js'

const sessions = 10_000
const requiredMb = 120

export const memory: Workload = {
  name: 'memory',
  title: 'resident memory, 10,000 sessions of 600 bytes, after 1,000 gets and updates (10 where every update rewrites the file)',
  async run(bench) {
    const samples = bench.quick ? 1 : 3
    const rows: Row[] = []
    const measure = async (contestant: string, peer: string | undefined, dir: string, execPath?: string, remark?: string) => {
      const megabytes: number[] = []
      for (let sample = 0; sample < samples; sample++)
        megabytes.push(((await errand({ kind: 'memory', peer, dir }, execPath)) as number) / 1e6)
      rows.push({ contestant, median: median(megabytes), low: Math.min(...megabytes), high: Math.max(...megabytes), unit: 'MB', remark })
    }
    await measure('Node alone (this worker, no store)', undefined, bench.dir)
    for (const peer of bench.named('holdfast', 'sqlite WAL FULL', 'lmdb', 'design card', 'fs-safe jsonStore'))
      await measure(peer.name, peer.name, await seeded(bench, peer, sessions), peer.execPath, remarkOf(peer))
    return {
      rows,
      verdicts: [isBelow("120 MB with Node's own", rows[1]!.median, requiredMb, 'MB', `Node alone ${rows[0]!.median.toFixed(1)} MB`)],
    }
  },
}

/** 10,000 conversations that had a turn each, and are idle: what is left of that in memory, and in the time of the next turn. The sessions
 *  were there before, so that only the turns are measured. In a process of its own. */
import { join } from 'node:path'
import { errand } from './harness/crew.js'
import { isBelow } from './harness/verdict.js'
import type { Row, Workload } from './harness/workload.js'

const keys = 10_000

/** Before the turns, and after them. */
export interface IdleLanes {
  readonly heapBytes: readonly [number, number]
  /** Timers, watchers, open files that Node knows of. */
  readonly resources: readonly [number, number]
  /** Of one empty turn, durability process, microseconds. */
  readonly turnUs: readonly [number, number]
}

export const idleLanes: Workload = {
  name: 'idle-lanes',
  title: `${keys.toLocaleString('en-US')} idle lanes: before a turn on each, and after`,
  async run(bench) {
    const { heapBytes, resources, turnUs } = (await errand({ kind: 'idle-lanes', dir: join(bench.dir, 'store'), keys })) as IdleLanes
    const row = (contestant: string, unit: Row['unit'], [before, after]: readonly [number, number]): Row[] =>
      [before, after].map((value, at) => ({
        contestant: `${contestant}, ${at ? 'after' : 'before'}`,
        median: value,
        low: value,
        high: value,
        unit,
      }))
    const [heapBefore, heapAfter] = heapBytes
    return {
      rows: [...row('heap', 'MB', [heapBefore / 1e6, heapAfter / 1e6]), ...row('an empty turn', 'us', turnUs)],
      verdicts: [
        isBelow('heap: at most 64 bytes more for each', (heapAfter - heapBefore) / keys, 64, 'bytes'),
        isBelow('timers, watchers and files: none more', resources[1] - resources[0], 0, 'of them'),
        isBelow("an empty turn's time: the same within 1.25 x", turnUs[1] / turnUs[0], 1.25, 'x'),
      ],
    }
  },
}

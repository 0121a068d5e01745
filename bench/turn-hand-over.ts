/** How soon whoever waits in another process goes on: from the moment at which a turn's end is on the disk to the moment at which the next
 *  turn's function is called, in another process. In between lie the release, the waking and a durable commit, the start of the next turn.
 *  Turns last so long that the waiter has long been asleep. */
import { join } from 'node:path'
import { Crew } from './harness/crew.js'
import { median, quantile } from './harness/measure.js'
import { isBelow } from './harness/verdict.js'
import type { Bench, Row, Workload } from './harness/workload.js'

/** On the monotonic clock, which all processes share. */
export interface TimedTurn {
  readonly turn: number
  readonly startedMs: number
  readonly completedMs: number
}

const handOvers = 300

export const turnHandOver: Workload = {
  name: 'turn-hand-over',
  title:
    'from the end of a turn to the function of the next one, in another process, durable; 2 and 8 processes on one key, turns of 60 ms',
  async run(bench) {
    const two = await handingOver(bench, 2)
    const eight = await handingOver(bench, 8)
    return {
      rows: [two, eight],
      verdicts: [
        isBelow('2 processes: p50 under 5 ms', two.median, 5, 'ms'),
        isBelow('2 processes: p99 under 50 ms', two.p99!, 50, 'ms'),
        { ...isBelow('8 processes: p50 under 5 ms', eight.median, 5, 'ms'), optional: true },
        { ...isBelow('8 processes: p99 under 50 ms', eight.p99!, 50, 'ms'), optional: true },
      ],
    }
  },
}

async function handingOver(bench: Bench, processes: number): Promise<Row> {
  const dir = join(bench.dir, `by-${processes}`)
  const lastMs = 60
  const task = { kind: 'turns' as const, dir, key: 'shared', lastMs }
  const crew = await Crew.hire(
    `${processes} processes`,
    Array.from({ length: processes }, () => task),
  )
  await crew.slice((bench.quick ? handOvers / 3 : handOvers) * (lastMs + 5))
  const told = (await crew.dismiss()) as TimedTurn[][]
  const all = told.flatMap((turns, by) => turns.map((turn) => ({ ...turn, by }))).sort((a, b) => a.turn - b.turn)
  const took = all.flatMap((turn, at) => {
    const before = all[at - 1]
    return before && before.by !== turn.by && before.turn === turn.turn - 1 ? [turn.startedMs - before.completedMs] : []
  })
  return {
    contestant: crew.name,
    median: median(took),
    low: Math.min(...took),
    high: Math.max(...took),
    unit: 'ms',
    p99: quantile(took, 0.99),
    longest: Math.max(...took),
    remark: `${took.length} hand-overs`,
  }
}

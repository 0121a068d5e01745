/** What a workload is given, and what it hands back. Numbers only: report.ts makes them readable. */
import type { Peer } from '../compare/peer.js'

export interface Bench {
  /** An empty directory of this workload's own; removed afterwards. */
  readonly dir: string
  readonly quick: boolean
  readonly rounds: number
  /** How long a contestant works before the next one has its turn. */
  readonly sliceMs: number
  /** Holdfast first, then whatever is installed. */
  readonly peers: readonly Peer[]
  /** The peers of these names that are there, in this order. */
  named(...names: string[]): Peer[]
  note(text: string): void
}

/** One contestant's line: the median over the rounds, and how far they lay apart. */
export interface Row {
  readonly contestant: string
  readonly median: number
  readonly low: number
  readonly high: number
  readonly unit: 'us' | 'ms' | 'MB'
  /** What one operation is, when `perSecond` is worth printing. */
  readonly perSecond?: number | undefined
  readonly p99?: number | undefined
  readonly longest?: number | undefined
  readonly acknowledged?: number | undefined
  readonly lost?: number | undefined
  readonly remark?: string | undefined
}

export interface Verdict {
  readonly requirement: string
  readonly measured: string
  readonly floor: string
  readonly ratio: string
  readonly required: string
  readonly ok: boolean
  /** Worth knowing, not asked for. */
  readonly optional?: boolean
}

export interface Result {
  readonly rows: readonly Row[]
  readonly verdicts: readonly Verdict[]
}

export interface Workload {
  readonly name: string
  readonly title: string
  run(bench: Bench): Promise<Result>
}

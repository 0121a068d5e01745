/** What was attempted and how it ended, put together from the writers' ledgers. */
import type { AckLine, ErrorLine, Ledger, LedgerLine, SawLine, TryLine } from './ledger.js'

/** acknowledged: the promise resolved · refused: it said that nothing was written · unknown: it failed and could not say, or the
 *  writer died over it. */
export type Outcome = 'acknowledged' | 'refused' | 'unknown'

export interface Operation {
  readonly op: string
  readonly kind: TryLine['kind']
  readonly keys: readonly string[]
  readonly parts: number
  /** Who issued it: one handle of one incarnation of one writer. */
  readonly issuer: string
  /** Its place among what the issuer issued. */
  readonly nth: number
  /** Monotonic microseconds: when it was first called, and when it was acknowledged (Infinity when it was not). */
  readonly invokedAt: number
  settledAt: number
  outcome: Outcome
  /** Tried again, under the same id, by a later incarnation. */
  retried: boolean
  /** One for each key and run of the mutator, in the order of the runs. */
  readonly saws: SawLine[]
  ack: AckLine | undefined
  error: ErrorLine | undefined
}

export type Operations = ReadonlyMap<string, Operation>

/** @param ledgers  a writer's own in the order of its incarnations */
export function collectOperations(ledgers: Iterable<Ledger>): Operations {
  const operations = new Map<string, Operation>()
  for (const ledger of ledgers) for (const line of ledger.lines) take(operations, line)
  return operations
}

function take(operations: Map<string, Operation>, line: LedgerLine): void {
  const known = operations.get(line.op)
  if (line.is === 'try') {
    if (known) known.retried = true
    else operations.set(line.op, begun(line))
    return
  }
  if (!known) throw new Error(`the ledger speaks of ${line.op}, which was never tried`)
  if (line.is === 'saw') known.saws.push(line)
  else if (line.is === 'ack') {
    known.ack = line
    known.outcome = 'acknowledged'
    known.settledAt = line.at
  } else {
    known.error = line
    // Of a second try only the second is refused: the first one may have been written.
    known.outcome = line.effect === 'none' && !known.retried ? 'refused' : 'unknown'
  }
}

function begun({ op, kind, keys, parts, at }: TryLine): Operation {
  const dot = op.lastIndexOf('.')
  return {
    op,
    kind,
    keys,
    parts: parts ?? 1,
    issuer: op.slice(0, dot),
    nth: Number(op.slice(dot + 1)),
    invokedAt: at,
    settledAt: Number.POSITIVE_INFINITY,
    outcome: 'unknown',
    retried: false,
    saws: [],
    ack: undefined,
    error: undefined,
  }
}

/** How long each update waited from its call until its mutator first ran: queue, lock and refresh. Microseconds, ascending. */
export function lockWaitsUs(operations: Operations): Float64Array {
  const waits: number[] = []
  for (const { saws, invokedAt } of operations.values()) if (saws[0]) waits.push(saws[0].at - invokedAt)
  return Float64Array.from(waits).sort()
}

/** @param sorted  ascending */
export function quantile(sorted: Float64Array, q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0
}

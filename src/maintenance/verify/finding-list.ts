/** Findings as they come, in bounded memory: neighbours of one kind are told as one, and of each kind in a file only so many. */
import type { Finding, FindingKind, Range } from '../../findings.js'

const perKindMax = 1_000

export type Found = Partial<Finding> & Pick<Finding, 'kind' | 'severity' | 'meaning' | 'repairable'>

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

export class FindingList {
  /** How many more there are than are listed, of which kind. */
  readonly omitted: Partial<Record<FindingKind, number>> = {}
  #findings: Mutable<Finding>[] = []
  #counts = new Map<FindingKind, number>()
  #about: Pick<Finding, 'file' | 'key' | 'sessionId'>

  constructor(about: { file: string; key?: string | undefined; sessionId?: string | undefined }) {
    this.#about = { key: undefined, sessionId: undefined, ...about }
  }

  get findings(): readonly Finding[] {
    return this.#findings
  }

  add(found: Found): void {
    const { kind, count = 1 } = found
    const last = this.#findings[this.#findings.length - 1]
    if (last && isNeighbour(last, found)) {
      // In place: there may be a million of them.
      last.bytes = { from: last.bytes!.from, to: found.bytes!.to }
      last.seqs = span(last.seqs, found.seqs)
      last.count += count
      return
    }
    const listed = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, listed)
    if (listed <= perKindMax) this.#findings.push({ ...this.#about, bytes: undefined, seqs: undefined, ...found, count })
    else this.omitted[kind] = (this.omitted[kind] ?? 0) + count
  }
}

function isNeighbour(one: Finding, next: Found): boolean {
  return (
    one.kind === next.kind &&
    one.bytes !== undefined &&
    one.bytes.to === next.bytes?.from &&
    one.bytes.to > one.bytes.from &&
    one.severity === next.severity &&
    one.meaning === next.meaning
  )
}

/** From the lowest to the highest of both; undefined is neither. */
export function span(one: Range | undefined, other: Range | undefined): Range | undefined {
  if (!one || !other) return one ?? other
  return { from: Math.min(one.from, other.from), to: Math.max(one.to, other.to) }
}

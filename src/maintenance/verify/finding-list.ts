/** Findings as they come, in bounded memory: neighbours of one kind are told as one, and of each kind in a file only so many. */
import type { Finding, FindingKind, Range } from '../../findings.js'

const perKindMax = 1_000

export type Found = Partial<Finding> & Pick<Finding, 'kind' | 'severity' | 'meaning' | 'repairable'>

export class FindingList {
  readonly findings: Finding[] = []
  /** How many more there are than are listed, of which kind. */
  readonly omitted: Partial<Record<FindingKind, number>> = {}
  #counts = new Map<FindingKind, number>()
  #about: Pick<Finding, 'file' | 'key' | 'sessionId'>

  constructor(about: { file: string; key?: string | undefined; sessionId?: string | undefined }) {
    this.#about = { key: undefined, sessionId: undefined, ...about }
  }

  add(found: Found): void {
    const finding: Finding = { ...this.#about, bytes: undefined, seqs: undefined, count: 1, ...found }
    const last = this.findings[this.findings.length - 1]
    if (last && isNeighbour(last, finding)) {
      this.findings[this.findings.length - 1] = together(last, finding)
      return
    }
    const count = (this.#counts.get(finding.kind) ?? 0) + 1
    this.#counts.set(finding.kind, count)
    if (count <= perKindMax) this.findings.push(finding)
    else this.omitted[finding.kind] = (this.omitted[finding.kind] ?? 0) + finding.count
  }
}

function isNeighbour(one: Finding, next: Finding): boolean {
  return (
    one.kind === next.kind &&
    one.severity === next.severity &&
    one.meaning === next.meaning &&
    one.bytes !== undefined &&
    one.bytes.to > one.bytes.from &&
    one.bytes.to === next.bytes?.from
  )
}

function together(one: Finding, next: Finding): Finding {
  return { ...one, bytes: { from: one.bytes!.from, to: next.bytes!.to }, seqs: span(one.seqs, next.seqs), count: one.count + next.count }
}

/** From the lowest to the highest of both; undefined is neither. */
export function span(one: Range | undefined, other: Range | undefined): Range | undefined {
  if (!one || !other) return one ?? other
  return { from: Math.min(one.from, other.from), to: Math.max(one.to, other.to) }
}

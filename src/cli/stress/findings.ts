/** What an analysis found, counted by kind, with the first few in words. */

/** What a store must never do. */
export const violationKinds = {
  lost: 'acknowledged, and not there',
  doubled: 'written once, there twice',
  outOfOrder: 'later than what was begun after it was acknowledged, or not at the seq that it was told',
  staleReads: 'a read without something that was acknowledged before it began, or with something that never was',
  halfDone: 'some of a write that is all or nothing',
  denied: 'there, although the error said that nothing was written',
  forked: 'one session key, two session ids',
  altered: 'not what was written, or written by nobody',
} as const

export type ViolationKind = keyof typeof violationKinds

export interface Violations {
  readonly counts: Readonly<Record<ViolationKind, number>>
  /** The first of each kind, as sentences. */
  readonly examples: readonly string[]
}

const examplesOfEachMax = 5

export class ViolationCounter implements Violations {
  readonly counts: Record<ViolationKind, number> = {
    lost: 0,
    doubled: 0,
    outOfOrder: 0,
    staleReads: 0,
    halfDone: 0,
    denied: 0,
    forked: 0,
    altered: 0,
  }
  readonly examples: string[] = []

  add(kind: ViolationKind, sentence: string): void {
    if (++this.counts[kind] <= examplesOfEachMax) this.examples.push(`${kind}: ${sentence}`)
  }
}

/** What befalls the writers, and when: a pure function of the seed. The same seed strikes the same writers at the same moments; how the
 *  machine interleaves them in between is its own. */
import { seededRandom } from './random.js'

/** kill: SIGKILL, then a new incarnation · freeze: SIGSTOP for longer than maxHoldMs, then SIGCONT · stall: the event loop blocked inside a
 *  mutator for longer than maxHoldMs · unlock: somebody's `rm -rf` of a lock. */
export const faultKinds = ['kill', 'freeze', 'stall', 'unlock'] as const
export type FaultKind = (typeof faultKinds)[number]

export interface Fault {
  /** Since the writers began. */
  readonly atMs: number
  readonly kind: FaultKind
  /** By position. */
  readonly writer: number
  /** Inside a mutator, so surely with a lock held; otherwise at whatever instruction it happens to be. A stall is always inside. */
  readonly inside: boolean
  /** Of a freeze or a stall; always longer than maxHoldMs. */
  readonly forMs: number
  /** From 0 to 1: which of the locks, for `unlock`. */
  readonly pick: number
}

export interface ScheduleOptions {
  readonly seed: string
  readonly seconds: number
  readonly writers: number
  readonly kinds: readonly FaultKind[]
  readonly maxHoldMs: number
  /** Mean time between faults. */
  readonly gapMs: number
}

/** Kills are cheap; a freeze or a stall inside costs everybody a maxHoldMs of waiting. */
const weights: Record<FaultKind, number> = { kill: 5, freeze: 2, stall: 2, unlock: 2 }

export function planFaults({ seed, seconds, writers, kinds, maxHoldMs, gapMs }: ScheduleOptions): Fault[] {
  const random = seededRandom(`faults ${seed}`)
  const bag = kinds.flatMap((kind) => Array<FaultKind>(weights[kind]).fill(kind))
  const faults: Fault[] = []
  if (bag.length === 0 || writers === 0) return faults
  for (let atMs = gapMs; atMs < seconds * 1_000; atMs += random.between(0.4, 1.6) * gapMs) {
    const kind = random.pick(bag)
    faults.push({
      atMs: Math.round(atMs),
      kind,
      writer: random.below(writers),
      inside: kind === 'stall' || (kind !== 'unlock' && random.next() < 0.5),
      forMs: Math.round(maxHoldMs * random.between(1.3, 2.2)),
      pick: random.next(),
    })
  }
  return faults
}

/** Is a recorded history linearizable? The algorithm of Wing and Gong (Testing and Verifying Concurrent Objects, JPDC 1993) with Lowe's
 *  memoisation of configurations already seen (Testing for Linearizability, CCPE 2017), in the iterative form that Horn and Kroening give
 *  (Faster Linearizability Checking via P-Compositionality, FORTE 2015): a history of many keys is linearizable when each key's is.
 *
 *  The object is a register that is swapped: a write puts a value that nobody else writes and tells which one it replaced. */
import type { Operations } from '../../src/cli/stress/operations.js'
import { seededRandom } from '../../src/cli/stress/random.js'

export type Value = string | null

export interface RegisterOperation {
  readonly name: string
  readonly invokedAt: number
  /** Infinity: it never came back; it took effect at some moment after its call, or never. */
  readonly respondedAt: number
  /** Swap: the value that it puts. Undefined: a read. */
  readonly puts: Value | undefined
  /** What it found, any of these: one for what came back; for what did not, all that it may have found. */
  readonly found: readonly Value[]
}

interface Link {
  readonly operation: number
  readonly call: boolean
  match: Link | undefined
  previous: Link | undefined
  next: Link | undefined
}

/** @returns undefined when it is linearizable, else an operation near which no order is left */
export function whereNotLinearizable(history: readonly RegisterOperation[]): string | undefined {
  const head = linked(history)
  const done = new DoneSet(history.length)
  const seen = new Set<string>()
  const stack: { call: Link; before: Value }[] = []
  let value: Value = null
  let deepest = { depth: -1, name: '' }
  let link = head.next
  while (link) {
    const operation = history[link.operation]!
    if (link.call) {
      const after = apply(operation, value)
      if (after !== undefined) {
        done.flip(link.operation)
        const configuration = `${done.name} ${after}`
        if (!seen.has(configuration)) {
          seen.add(configuration)
          stack.push({ call: link, before: value })
          value = after
          lift(link)
          link = head.next
          continue
        }
        done.flip(link.operation)
      }
      link = link.next
      continue
    }
    // It has returned, and could not be put anywhere before its return: take the last choice back.
    if (stack.length > deepest.depth) deepest = { depth: stack.length, name: operation.name }
    const last = stack.pop()
    if (!last) return deepest.name
    done.flip(last.call.operation)
    value = last.before
    unlift(last.call)
    link = last.call.next
  }
  // Only calls are left that never returned; they need not have happened.
  return undefined
}

function apply({ puts, found }: RegisterOperation, value: Value): Value | undefined {
  if (!found.includes(value)) return undefined
  return puts === undefined ? value : puts
}

/** Calls and returns in the order of time; at the same moment calls come first, so that the two overlap. */
function linked(history: readonly RegisterOperation[]): Link {
  const events: { at: number; link: Link }[] = []
  for (const [operation, { invokedAt, respondedAt }] of history.entries()) {
    const call: Link = { operation, call: true, match: undefined, previous: undefined, next: undefined }
    events.push({ at: invokedAt, link: call })
    if (respondedAt === Number.POSITIVE_INFINITY) continue
    call.match = { operation, call: false, match: undefined, previous: undefined, next: undefined }
    events.push({ at: respondedAt, link: call.match })
  }
  events.sort((a, b) => a.at - b.at || Number(b.link.call) - Number(a.link.call))
  const head: Link = { operation: -1, call: true, match: undefined, previous: undefined, next: undefined }
  let last = head
  for (const { link } of events) {
    last.next = link
    link.previous = last
    last = link
  }
  return head
}

function lift(call: Link): void {
  for (const link of call.match ? [call, call.match] : [call]) {
    link.previous!.next = link.next
    if (link.next) link.next.previous = link.previous
  }
}

/** Undoes `lift`: in the reverse order, each finds its old neighbours still pointed at. */
function unlift(call: Link): void {
  for (const link of call.match ? [call.match, call] : [call]) {
    link.previous!.next = link
    if (link.next) link.next.previous = link
  }
}

/** Which operations are done, in whatever order: a sum of random numbers, one for each (Zobrist). Two sets that collide could hide a way
 *  through, so that a good history is refused, once in 2^64; they cannot make a bad one pass, since that takes an order that was found. */
class DoneSet {
  readonly #first: Uint32Array
  readonly #second: Uint32Array
  #sums: [number, number] = [0, 0]

  constructor(size: number) {
    const random = seededRandom('zobrist')
    this.#first = Uint32Array.from({ length: size }, () => random.below(2 ** 32))
    this.#second = Uint32Array.from({ length: size }, () => random.below(2 ** 32))
  }

  flip(operation: number): void {
    const [first, second] = this.#sums
    this.#sums = [first ^ this.#first[operation]!, second ^ this.#second[operation]!]
  }

  get name(): string {
    return this.#sums.join(':')
  }
}

/** The histories of the updated keys, from what the writers wrote down. */
export function historiesOf(operations: Operations): Map<string, RegisterOperation[]> {
  const histories = new Map<string, RegisterOperation[]>()
  for (const { op, kind, keys, invokedAt, settledAt, outcome, saws, ack } of operations.values()) {
    // A refused call says of itself that it never happened; a read that failed saw nothing.
    if (kind === 'append' || outcome === 'refused' || (kind === 'get' && !ack)) continue
    for (const key of keys) {
      const ran = saws.filter((saw) => saw.key === key).map(({ last }) => last)
      const found = kind === 'get' ? [ack?.last ?? null] : outcome === 'acknowledged' ? ran.slice(-1) : ran
      if (found.length === 0) continue
      const history = histories.get(key) ?? []
      histories.set(key, history)
      history.push({ name: op, invokedAt, respondedAt: settledAt, puts: kind === 'get' ? undefined : op, found })
    }
  }
  return histories
}

/** Slots, and a line in front of them: first come, first served. Pure: no clock, no promise; who is let in is the caller's to tell.
 *
 *  A slot is somebody's until `leave`; nothing here frees one by time. While anybody waits, every slot is taken. Entering, leaving and
 *  giving up, at whatever place, cost the same with 10,000 waiting as with one; only `before` walks. */

export type About = Readonly<Record<string, unknown>>

/** Somebody's place: outside, then in line or at once inside, then outside for good. */
export class Place {
  readonly about: About
  /** Since when it is where it is: monotonic, for ages; and epoch ms, for people. */
  sinceMs: number
  since: number
  state: 'outside' | 'waiting' | 'inside' = 'outside'
  next: Place | undefined
  previous: Place | undefined
  letIn: () => void = () => {}
  refuse: (reason: unknown) => void = () => {}

  constructor(about: About, sinceMs: number, since: number) {
    this.about = about
    this.sinceMs = sinceMs
    this.since = since
  }
}

export class Line {
  readonly kind: 'key' | 'lane'
  readonly name: string
  readonly slots: number
  /** In the order in which they were let in. */
  readonly inside = new Set<Place>()
  #waiting = 0
  #first: Place | undefined
  #last: Place | undefined

  constructor(kind: 'key' | 'lane', name: string, slots: number) {
    this.kind = kind
    this.name = name
    this.slots = slots
  }

  get waiting(): number {
    return this.#waiting
  }

  get idle(): boolean {
    return this.inside.size === 0
  }

  /** Takes a free slot; false when there is none. */
  enter(place: Place): boolean {
    if (this.inside.size >= this.slots) return false
    place.state = 'inside'
    this.inside.add(place)
    return true
  }

  wait(place: Place): void {
    place.state = 'waiting'
    place.previous = this.#last
    if (this.#last) this.#last.next = place
    else this.#first = place
    this.#last = place
    this.#waiting++
  }

  /** Out of the line, from wherever in it; without effect on one that does not wait. */
  withdraw(place: Place): void {
    if (place.state !== 'waiting') return
    place.state = 'outside'
    if (place.previous) place.previous.next = place.next
    else this.#first = place.next
    if (place.next) place.next.previous = place.previous
    else this.#last = place.previous
    place.previous = undefined
    place.next = undefined
    this.#waiting--
  }

  /** For one that is inside: gives the slot to the first in line, who is returned. */
  leave(place: Place): Place | undefined {
    place.state = 'outside'
    this.inside.delete(place)
    const next = this.#first
    if (!next) return undefined
    this.withdraw(next)
    this.enter(next)
    return next
  }

  /** How many stand in line before this one. */
  before(place: Place): number {
    let count = 0
    for (let at = place.previous; at; at = at.previous) count++
    return count
  }

  *line(): Generator<Place> {
    for (let at = this.#first; at; at = at.next) yield at
  }
}

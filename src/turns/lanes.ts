/** Who may run now, within one process: first the key's lane, one at a time, then a global lane with a number of slots.
 *
 *  - First come, first served, in both; whoever is told to go has not been aborted, and whoever has left the line never runs later (F41).
 *  - A slot is held until `Leave` is called, which is when the work has settled. Nothing here frees one by time: neither a timeout nor an
 *    abort of whoever is inside (F33).
 *  - Every line is bounded, and so is every wait; refusals name who is ahead, since when, and what to do next (P7).
 *  - A key is forgotten when nobody is inside (F39). So 10,000 idle conversations cost nothing.
 *
 *  Take the key first, then the lane, and give both back: two who do it the other way round wait for each other until their time is over. */
import type { Clock } from '../clock.js'
import { StoreError } from '../errors.js'
import { type About, Line, Place } from './line.js'

/** Gives the place back; call it when the work has settled. A second call does nothing. */
export type Leave = () => void

export interface EnterOptions {
  /** At most this long; 0: now or not at all. */
  readonly waitMs: number
  readonly signal?: AbortSignal | undefined
  /** What others are told of whoever waits or is inside: key, request, channel… Also its identity for `position`: an object of its own. */
  readonly about: About
}

export interface LanesOptions {
  /** How many may wait for one key, or in one lane. Default 1,000. */
  readonly queuedMax?: number
  /** A wait longer than this is reported, once. Default 10,000. */
  readonly reportAfterMs?: number
  /** Must not throw. */
  readonly report?: (message: About) => void
}

/** Somebody who is inside, or in line. */
export interface Standing {
  readonly in: 'key' | 'lane'
  readonly name: string
  readonly about: About
  /** 0: inside; otherwise how many will be let in up to and including this one. */
  readonly position: number
  /** Since when it is inside, or in line; epoch ms. */
  readonly since: number
  readonly ageMs: number
}

export const defaultLanes: Readonly<Record<string, number>> = { main: 4, subagent: 8, cron: 1 }

/** An error names at most so many of those ahead. */
const namedMax = 8
const retryMsMin = 250
const retryMsMax = 60_000
/** Timers count in 31 bits: a longer wait sleeps in pieces. */
const sleepMsMax = 1 << 30

export class Lanes {
  #clock: Clock
  #queuedMax: number
  #reportAfterMs: number
  #report: (message: About) => void
  #keys = new Map<string, Line>()
  #lanes = new Map<string, Line>()
  #places = new Map<About, { line: Line; place: Place }>()
  /** How long work took lately: the guess when a slot will be free. */
  #heldMs = new Map<string, number>()
  #inside = 0
  #closed = false
  #emptied: (() => void)[] = []

  /** @param lanes  slots by name, 1 to 10,000; those of `defaultLanes` are there anyway. */
  constructor(clock: Clock, lanes: Readonly<Record<string, number>> = {}, options: LanesOptions = {}) {
    this.#clock = clock
    this.#queuedMax = options.queuedMax ?? 1_000
    this.#reportAfterMs = options.reportAfterMs ?? 10_000
    this.#report = options.report ?? (() => {})
    for (const [name, slots] of Object.entries({ ...defaultLanes, ...lanes }))
      this.#lanes.set(name, new Line('lane', name, checkedSlots(name, slots)))
  }

  /** Resolves when it is this caller's turn for the key.
   *  @throws TURN_BUSY  nobody was let in for `waitMs` · LANE_FULL  the line is full · STORE_CLOSED · the signal's reason. Nothing has run. */
  enterKey(key: string, options: EnterOptions): Promise<Leave> {
    return this.#enter(() => this.#lineOf(key), options)
  }

  /** Resolves when a slot of the lane is this caller's.
   *  @throws LANE_FULL  at once when the line is full, or no slot for `waitMs` · INVALID_OPTION · STORE_CLOSED · the signal's reason. */
  enterLane(name: string, options: EnterOptions): Promise<Leave> {
    return this.#enter(() => this.#lane(name), options)
  }

  /** @throws INVALID_OPTION  there is no such lane. */
  assertLane(name: string): void {
    this.#lane(name)
  }

  slotsOf(name: string): number {
    return this.#lane(name).slots
  }

  /** Somebody of this process is inside. */
  isBusy(key: string): boolean {
    return this.#keys.has(key)
  }

  /** In what it has entered last: 0 for who is inside, 1 for who is let in next…; undefined when it has left that, or was never here. */
  position(about: About): number | undefined {
    const at = this.#places.get(about)
    return at && positionOf(at.line, at.place)
  }

  /** Everybody: those inside first, then those in line, in order. */
  *standings(): Generator<Standing> {
    const nowMs = this.#clock.monotonicMs()
    for (const line of [...this.#keys.values(), ...this.#lanes.values()]) {
      for (const place of line.inside) yield standing(line, place, 0, nowMs)
      let position = 0
      for (const place of line.line()) yield standing(line, place, ++position, nowMs)
    }
  }

  /** How many keys are remembered: those with somebody inside. */
  get size(): number {
    return this.#keys.size
  }

  /** Refuses new ones and those in line, waits for those inside, at most `waitMs`, and says who is still there then. */
  async close(waitMs: number): Promise<Standing[]> {
    this.#closed = true
    for (const line of [...this.#keys.values(), ...this.#lanes.values()]) for (const place of [...line.line()]) place.refuse(closedError())
    if (this.#inside > 0) {
      const over = new AbortController()
      this.#emptied.push(() => over.abort(null))
      const deadlineMs = this.#clock.monotonicMs() + waitMs
      for (let leftMs = waitMs; leftMs > 0 && this.#inside > 0; leftMs = deadlineMs - this.#clock.monotonicMs())
        await this.#clock.sleep(Math.min(leftMs, sleepMsMax), over.signal)
    }
    return [...this.standings()]
  }

  #lineOf(key: string): Line {
    const known = this.#keys.get(key)
    if (known) return known
    const line = new Line('key', key, 1)
    this.#keys.set(key, line)
    return line
  }

  #lane(name: string): Line {
    const line = this.#lanes.get(name)
    if (line) return line
    const known = [...this.#lanes.keys()]
    throw new StoreError('INVALID_OPTION', `there is no lane ${JSON.stringify(name)}.`, {
      details: { lane: name, lanes: known },
      hint: `Nothing was started. There are ${known.join(', ')}; the store's option \`lanes\` names more.`,
    })
  }

  async #enter(find: () => Line, options: EnterOptions): Promise<Leave> {
    options.signal?.throwIfAborted()
    if (this.#closed) throw closedError()
    const line = find()
    const place = new Place(options.about, this.#clock.monotonicMs(), this.#clock.wallMs())
    if (line.enter(place)) this.#cameIn(line, place)
    else await this.#wait(line, place, options)
    const leave = () => this.#leave(line, place)
    // Aborted between being let in and getting here: whoever is aborted does not run.
    if (options.signal?.aborted) {
      leave()
      throw options.signal.reason
    }
    return leave
  }

  #cameIn(line: Line, place: Place): void {
    this.#inside++
    this.#places.set(place.about, { line, place })
  }

  #leave(line: Line, place: Place): void {
    if (place.state !== 'inside') return
    const nowMs = this.#clock.monotonicMs()
    const kept = line.kind === 'lane' ? line.name : ''
    this.#heldMs.set(kept, ((this.#heldMs.get(kept) ?? nowMs - place.sinceMs) * 3 + nowMs - place.sinceMs) / 4)
    this.#forget(place)
    const next = line.leave(place)
    this.#inside--
    if (next) {
      next.sinceMs = nowMs
      next.since = this.#clock.wallMs()
      this.#cameIn(line, next)
      next.letIn()
    } else if (line.idle && line.kind === 'key') this.#keys.delete(line.name)
    if (this.#inside === 0) for (const tell of this.#emptied.splice(0)) tell()
  }

  #forget(place: Place): void {
    if (this.#places.get(place.about)?.place === place) this.#places.delete(place.about)
  }

  // — waiting —

  #wait(line: Line, place: Place, { signal, waitMs }: EnterOptions): Promise<void> {
    if (waitMs <= 0) throw this.#late(line, place, 0)
    if (line.waiting >= this.#queuedMax) throw this.#full(line)
    line.wait(place)
    this.#places.set(place.about, { line, place })
    return new Promise((resolve, reject) => {
      const over = new AbortController()
      const onAbort = () => place.refuse(signal?.reason)
      const end = () => {
        over.abort(null)
        signal?.removeEventListener('abort', onAbort)
      }
      place.letIn = () => {
        end()
        resolve()
      }
      place.refuse = (reason) => {
        if (place.state !== 'waiting') return
        line.withdraw(place)
        this.#forget(place)
        end()
        reject(reason)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      void this.#time(line, place, waitMs, over.signal)
    })
  }

  async #time(line: Line, place: Place, waitMs: number, over: AbortSignal): Promise<void> {
    const deadlineMs = place.sinceMs + waitMs
    let reportAtMs = place.sinceMs + this.#reportAfterMs
    while (!over.aborted) {
      const nowMs = this.#clock.monotonicMs()
      if (nowMs >= deadlineMs) return place.refuse(this.#late(line, place, waitMs))
      if (nowMs >= reportAtMs) {
        reportAtMs = Number.POSITIVE_INFINITY
        this.#report({ event: 'waiting', ...place.about, waitedMs: nowMs - place.sinceMs, ...this.#facts(line, place) })
      }
      await this.#clock.sleep(Math.min(deadlineMs - nowMs, reportAtMs - nowMs, sleepMsMax), over)
    }
  }

  // — refusals —

  #facts(line: Line, place?: Place) {
    const nowMs = this.#clock.monotonicMs()
    const ahead = [...line.inside].slice(0, namedMax).map(({ about, since, sinceMs }) => ({ ...about, since, heldMs: nowMs - sinceMs }))
    const waitingBefore = place?.state === 'waiting' ? line.before(place) : line.waiting
    return {
      [line.kind]: line.name,
      slots: line.slots,
      ahead,
      waitingBefore,
      queued: line.waiting,
      retryAfterMs: this.#retryAfterMs(line, nowMs),
    }
  }

  /** When about one more will have been let in, going by how long work has taken lately, or is taking. */
  #retryAfterMs(line: Line, nowMs: number): number {
    const [oldest] = line.inside
    const heldMs = this.#heldMs.get(line.kind === 'lane' ? line.name : '') ?? (oldest ? nowMs - oldest.sinceMs : 0)
    return Math.round(Math.min(retryMsMax, Math.max(retryMsMin, heldMs / line.slots)))
  }

  #late(line: Line, place: Place, waitMs: number): StoreError {
    const facts = this.#facts(line, place)
    const who = `inside: ${facts.ahead.map(named).join('; ')}; ${facts.waitingBefore} more in line before this one`
    const details = { ...facts, waitMs }
    if (line.kind === 'key')
      return new StoreError('TURN_BUSY', `waited ${Math.round(waitMs)} ms for the conversation ${JSON.stringify(line.name)}; ${who}.`, {
        details,
        hint: `Its function was not run. Try again in ${facts.retryAfterMs} ms, wait longer, or interrupt the turn that is inside.`,
      })
    return new StoreError('LANE_FULL', `waited ${Math.round(waitMs)} ms for one of ${line.slots} slots of the lane ${line.name}; ${who}.`, {
      details: { ...details, max: this.#queuedMax },
      hint: `Its function was not run. Try again in ${facts.retryAfterMs} ms, or give the lane more slots (the store's option \`lanes\`).`,
    })
  }

  #full(line: Line): StoreError {
    const facts = this.#facts(line)
    const what = line.kind === 'key' ? `the conversation ${JSON.stringify(line.name)}` : `the lane ${line.name}`
    return new StoreError('LANE_FULL', `${line.waiting} wait for ${what}, and no more may; inside: ${facts.ahead.map(named).join('; ')}.`, {
      details: { ...facts, max: this.#queuedMax },
      hint: `Its function was not run. Try again in ${facts.retryAfterMs} ms.`,
    })
  }
}

/** @throws INVALID_OPTION */
export function assertLanes(lanes: Readonly<Record<string, number>> | undefined): void {
  for (const [name, slots] of Object.entries(lanes ?? {})) checkedSlots(name, slots)
}

function checkedSlots(name: string, slots: number): number {
  if (/^[\w.-]{1,64}$/.test(name) && Number.isInteger(slots) && slots >= 1 && slots <= 10_000) return slots
  throw new StoreError('INVALID_OPTION', `the lane ${JSON.stringify(name)} with ${slots} slots.`, {
    details: { lane: name, slots },
    hint: 'Nothing was done. A lane has a name of 1 to 64 letters, digits, dots, dashes or underscores, and 1 to 10,000 slots.',
  })
}

function closedError(): StoreError {
  return new StoreError('STORE_CLOSED', 'the store has been closed.', { hint: 'Its function was not run. Open the store again.' })
}

function positionOf(line: Line, place: Place): number {
  return place.state === 'inside' ? 0 : line.before(place) + 1
}

function standing(line: Line, { about, since, sinceMs }: Place, position: number, nowMs: number): Standing {
  return { in: line.kind, name: line.name, about, position, since, ageMs: nowMs - sinceMs }
}

function named(who: About & { readonly heldMs: number }): string {
  const request = who.requestId === undefined ? '' : `request ${who.requestId}`
  const key = who.key === undefined ? '' : `of ${JSON.stringify(who.key)}`
  return `${[request, key].filter(Boolean).join(' ') || 'somebody'} for ${Math.round(who.heldMs)} ms`
}

/** What a transcript says of its turns: who is active, which inputs nobody has taken, which requests have been answered.
 *
 *  A start or end of a turn lists the inputs that are pending behind it; a long list not every time, else a long line would be written down
 *  again with each turn. So the last one with a list, and what follows it, tells who is active and what is pending. Which requests were answered takes the whole log; only a caller who names its request asks for that. */

import type { EarlierRequest, InputAt } from '../../backend.js'
import {
  type Header,
  headerPrefix,
  isInput,
  type LineMark,
  type PendingInput,
  type RequestRow,
  readBody,
  startsWith,
  type TurnEvent,
  type TurnOutcome,
  turnPrefix,
} from '../log/record.js'
import { stringAt, stringEnd } from '../metadata/cells.js'

export interface ActiveTurn {
  readonly n: number
  readonly request: string
  readonly attempt: number
  readonly lane: string
  readonly channel: string | undefined
  readonly at: number
  readonly lease: number
  readonly startSeq: number
}

/** state taken: its input went into a turn of another request. turn: 0 while there is none. */
export interface KnownRequest extends EarlierRequest {
  readonly id: string
  /** Of its input; 0 records when it had none, or it is in an earlier session. */
  readonly seq: number
  readonly count: number
  readonly given: boolean
}

type StartEvent = TurnEvent & { event: 'start' }
type EndEvent = TurnEvent & { event: 'end' }

/** A list as short as this is always written; a longer one so seldom that it costs as much. */
const listedAlways = 8
export const requestsKept = 10_000
/** Of requests that cannot come again: as long as their callers may still ask. */
const passingKept = 1_000

export class TurnLog {
  readonly sessionId: string
  /** Number of the last turn that has begun; 0 for none. */
  last = 0
  active: ActiveTurn | undefined
  /** Inputs that no turn has taken, oldest first. */
  pending = new Map<string, PendingInput>()
  /** Whether the above can be relied on: a start, an end or the header has been seen. */
  known = false
  #given = new Map<string, KnownRequest>()
  #passing = new Map<string, KnownRequest>()
  /** Starts and ends since the last one with a list. */
  #withoutList = 0
  /** Of the last turns. */
  #outcomes = new Map<number, TurnOutcome>()

  constructor(sessionId: string) {
    this.sessionId = sessionId
  }

  request(id: string): KnownRequest | undefined {
    return this.#given.get(id) ?? this.#passing.get(id) ?? this.#fromPending(id)
  }

  /** What is pending says the last start or end, too; the input itself may stand further back than was read, or be long ago. */
  #fromPending(id: string): KnownRequest | undefined {
    const pending = this.pending.get(id)
    return pending && { ...this.#blank(id, pending[4] === 1), seq: pending[1], count: pending[2] }
  }

  /** How a turn ended; undefined when that is long ago, or while it is active. */
  outcomeOf(turn: number): TurnOutcome | undefined {
    return this.#outcomes.get(turn)
  }

  /** For one who has the lease, or closes the session: whether the turn that took an input came to nothing. An active one has lost its holder. */
  cameToNothing(turn: number): boolean {
    const outcome = this.active?.n === turn ? 'interrupted' : this.outcomeOf(turn)
    return outcome === 'failed' || outcome === 'interrupted'
  }

  /** Knows from now on what the other knows, and nothing else. */
  replaceWith(other: TurnLog): void {
    this.last = other.last
    this.active = other.active
    this.pending = other.pending
    this.known = other.known
    this.#withoutList = other.#withoutList
    this.#given = other.#given
    this.#passing = other.#passing
    this.#outcomes = other.#outcomes
  }

  /** Takes note of a record of the log. */
  note(mark: LineMark, bytes: Buffer, start: number): void {
    if (bytes[start + 1] !== 0x22 || bytes[start + 2] !== 0x24 || bytes[start + 3] !== 0x24) return
    if (isInput(bytes, start)) this.#input(mark, bytes, start)
    else if (startsWith(bytes, start, turnPrefix)) this.#event(readEvent(bytes, start, mark), mark)
    else if (mark.prev === 0 && startsWith(bytes, start, headerPrefix)) this.#begin(readBody(bytes, start, mark).system?.header)
  }

  #begin(header: Header | undefined): void {
    this.known = true
    this.last = header?.turns?.last ?? 0
    for (const [request, turn, attempt, state, sessionId, endSeq] of header?.turns?.requests ?? [])
      this.#remember({ id: request, state, turn, attempt, sessionId, endSeq, seq: 0, count: 0, given: true })
  }

  #input(mark: LineMark, bytes: Buffer, start: number): void {
    const { input, count = 1, when = 'queue', given } = readInput(bytes, start)
    this.pending.set(input, [input, mark.seq, count, when, given ? 1 : 0])
    const before = this.request(input)
    this.#remember({ ...this.#blank(input, given), attempt: before?.attempt ?? 0, seq: mark.seq, count })
  }

  #event(event: TurnEvent, mark: LineMark): void {
    if (event.event === 'take') return this.#take(event.n, event.takes, '')
    if (event.event === 'withdraw') return this.#withdraw(event.request)
    if (event.event === 'start') this.#start(event, mark)
    else this.#end(event, mark)
    if (typeof event.pending === 'number') {
      this.#withoutList++
      return
    }
    this.pending = new Map(event.pending?.map((one) => [one[0], one]))
    this.#withoutList = 0
    this.known = true
  }

  /** What the next start or end says of what is pending behind it. */
  pendingPart(pending: readonly PendingInput[]): { pending?: readonly PendingInput[] | number } {
    if (pending.length === 0) return {}
    const due = pending.length <= listedAlways || this.#withoutList >= pending.length / listedAlways
    return { pending: due ? pending : pending.length }
  }

  #start(event: StartEvent, mark: LineMark): void {
    const { n, request, attempt, lane, channel, at, lease } = event
    this.#interrupt()
    this.#take(n, event.takes ?? [], request)
    this.last = n
    this.active = { n, request, attempt, lane, channel, at, lease, startSeq: mark.seq }
    const own = event.takes?.find(([id]) => id === request)
    this.#remember({
      ...(this.request(request) ?? this.#blank(request, event.given === true)),
      ...(own && { seq: own[1], count: own[2] }),
      state: 'active',
      turn: n,
      attempt,
      endSeq: -1,
      sessionId: this.sessionId,
    })
  }

  #end({ n, request, outcome }: EndEvent, mark: LineMark): void {
    if (this.active?.n === n) this.active = undefined
    this.last = Math.max(this.last, n)
    const before = this.request(request) ?? this.#blank(request, false)
    this.#ended(n, outcome)
    this.#remember({ ...before, state: outcome, turn: n, endSeq: mark.seq, sessionId: this.sessionId })
  }

  /** The active turn's holder is no more. */
  #interrupt(): void {
    const { active } = this
    if (!active) return
    this.#ended(active.n, 'interrupted')
    const before = this.request(active.request)
    if (before?.turn === active.n && before.state === 'active') this.#remember({ ...before, state: 'interrupted' })
  }

  #ended(turn: number, outcome: TurnOutcome): void {
    this.#outcomes.set(turn, outcome)
    if (this.#outcomes.size > passingKept) for (const oldest of this.#outcomes.keys()) return void this.#outcomes.delete(oldest)
  }

  #take(turn: number, takes: readonly InputAt[], own: string): void {
    for (const [request, seq, count] of takes) {
      const pending = this.pending.get(request)
      this.pending.delete(request)
      if (request === own) continue
      const before = this.request(request) ?? this.#blank(request, pending?.[4] === 1)
      this.#remember({ ...before, state: 'taken', turn, seq, count, sessionId: this.sessionId })
    }
  }

  /** As if it had never been there: the request may come again. */
  #withdraw(request: string): void {
    this.pending.delete(request)
    this.#given.delete(request)
    this.#passing.delete(request)
  }

  #blank(id: string, given: boolean): KnownRequest {
    return { id, state: 'pending', turn: 0, attempt: 0, sessionId: this.sessionId, endSeq: -1, seq: 0, count: 0, given }
  }

  #remember(known: KnownRequest): void {
    const { id } = known
    const map = known.given ? this.#given : this.#passing
    const kept = known.given ? requestsKept : passingKept
    map.delete(id)
    map.set(id, known)
    if (map.size <= kept * 2) return
    let surplus = map.size - kept
    for (const oldest of map.keys()) {
      if (surplus-- <= 0) break
      map.delete(oldest)
    }
  }

  /** For the header of the log that comes next; what was active then, was interrupted by that. */
  forHeader(): NonNullable<Header['turns']> {
    const rows = [...this.#given.values()].flatMap((known): RequestRow[] => {
      const { id, state, turn, attempt, sessionId, endSeq } = known
      return state === 'pending' ? [] : [[id, turn, attempt, this.#finalState(known), sessionId, endSeq]]
    })
    const requests = rows.slice(-requestsKept)
    return { last: this.last, ...(requests.length > 0 && { requests }) }
  }

  /** An input that a turn took and answered, was answered: that was its own request's answer, too. */
  #finalState({ state, turn }: KnownRequest): TurnOutcome {
    if (state === 'taken') return this.cameToNothing(turn) ? 'interrupted' : 'completed'
    return state === 'active' || state === 'pending' ? 'interrupted' : state
  }
}

const inputAt = '{"$$":{"input":'.length
const restPattern = /^(?:,"count":(\d+))?(?:,"when":"([a-z]+)")?(,"given":true)?\}/

/** Of a record that begins with `turnPrefix`: it has nothing else in it. */
export function readEvent(bytes: Buffer, start: number, mark: LineMark): TurnEvent {
  return (JSON.parse(`${bytes.toString('utf8', start, start + mark.bodyBytes)}}`) as { $$: { turn: TurnEvent } }).$$.turn
}

/** The marks of an input, without parsing the record, which may be large. */
function readInput(bytes: Buffer, start: number): { input: string; count: number; when: PendingInput[3]; given: boolean } {
  const found = stringEnd(bytes, start + inputAt)
  const rest = restPattern.exec(bytes.toString('latin1', found.end + 1, found.end + 80))
  return {
    input: stringAt(bytes, start + inputAt, found),
    count: rest?.[1] ? Number(rest[1]) : 1,
    when: (rest?.[2] ?? 'queue') as PendingInput[3],
    given: rest?.[3] !== undefined,
  }
}

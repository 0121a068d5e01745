/** The right to run a key's turns, while it is ours, and what turns write under it. Every write is fenced in its own statement: by the log's row,
 *  which says whose turn it is, and by the lease's. */
import { uuidv7 } from 'uuidv7'
import type {
  BeginOptions,
  BegunTurn,
  EncodedRecord,
  InputAt,
  LeaseEvents,
  RequestFacts,
  StartedTurn,
  TurnEnding,
  TurnLease,
} from '../../backend.js'
import type { StoreError } from '../../errors.js'
import type { AppendOptions, AppendReceipt, StoredRecord, TailOptions } from '../../types.js'
import type { Database } from '../database.js'
import type { Appends } from '../transcripts/appends.js'
import { readConversation, readInputs } from '../transcripts/conversation.js'
import { lostTurn, sessionGone } from '../transcripts/refusals.js'
import type { Beating, Heart } from './heart.js'

export interface LeaseTools {
  readonly database: Database
  readonly schema: string
  readonly appends: Appends
  readonly heart: Heart
  /** Somebody here may be waiting for it. */
  released(key: string): void
}

/** As JSON text: whatever string it is, a database can keep it. */
export const asText = (text: string | undefined) => (text === undefined ? null : JSON.stringify(text))

/** What an input's first record says of it. */
export function inputPart({ requestId, given, whenBusy }: RequestFacts, count: number): string {
  return JSON.stringify({ input: requestId, ...(count > 1 && { count }), when: whenBusy, ...(given && { given }) })
}

export class KeyLease implements TurnLease, Beating {
  readonly key: string
  readonly token: number
  readonly maxTurnMs: number
  progressed = false
  readonly #tools: LeaseTools
  readonly #events: LeaseEvents
  /** The caller's place in line, gone when its turn begins. */
  readonly #place: string | undefined
  #progressAtMs = performance.now()
  #lost = false
  #released = false
  #expired = false
  #heardAt: number | undefined
  #written: { readonly at: InputAt; readonly records: readonly EncodedRecord[] } | undefined
  /** Taken, says the log, and not handed out yet: reading them has failed. */
  #owed: InputAt[] = []

  constructor(tools: LeaseTools, key: string, token: number, maxTurnMs: number, events: LeaseEvents, place: string | undefined) {
    this.#tools = tools
    this.key = key
    this.token = token
    this.maxTurnMs = maxTurnMs
    this.#events = events
    this.#place = place
  }

  begin(request: RequestFacts, records: readonly EncodedRecord[] | undefined, { signal }: BeginOptions = {}): Promise<BegunTurn> {
    signal?.throwIfAborted()
    return this.#begin(request, records, false)
  }

  beginForLeft(request: RequestFacts): Promise<BegunTurn> {
    return this.#begin(request, undefined, true)
  }

  async #begin(request: RequestFacts, records: readonly EncodedRecord[] | undefined, onlyForLeft: boolean): Promise<BegunTurn> {
    const { requestId, given, lane, channelId } = request
    this.progress()
    const answer = await this.#call('begin_turn', 'beginning a turn', [
      this.key,
      uuidv7(),
      asText(requestId),
      given,
      onlyForLeft,
      asText(lane),
      asText(channelId),
      this.token,
      this.#place ?? null,
      records ? inputPart(request, records.length) : null,
      records?.map(({ json }) => json) ?? null,
    ])
    const [kind, sessionId = '', turnText, attemptText, fifth, countText, fresh, left] = answer
    const turn = Number(turnText)
    if (kind === 'nothing') return { kind }
    if (kind === 'lost') throw lostTurn({ key: this.key, sessionId, turn }, 'lease', turn)
    const attempt = Number(attemptText)
    if (kind === 'answered' || kind === 'coalesced') return { kind, sessionId, turn, attempt, endSeq: Number(fifth) }
    this.progress()
    const input: InputAt | undefined = fifth ? [requestId, Number(fifth), Number(countText)] : undefined
    const inputIsNew = fresh === '1'
    this.#written = records && input && inputIsNew ? { at: input, records } : undefined
    return { kind: 'started', key: this.key, sessionId, turn, attempt, input, inputIsNew, left: JSON.parse(left!) as InputAt[] }
  }

  append(turn: StartedTurn, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt> {
    const { expectedSessionId } = options
    if (expectedSessionId !== undefined && expectedSessionId !== turn.sessionId)
      return Promise.reject(sessionGone(turn.key, expectedSessionId, turn.sessionId))
    return this.#tools.appends.append(turn.key, records, options, { ...turn, lease: this.token })
  }

  async take(turn: StartedTurn): Promise<StoredRecord[]> {
    const [outcome, taken] = await this.#fenced('take_inputs', 'taking inputs', turn, [])
    if (outcome !== 'taken') throw lineLost(turn, outcome!)
    this.#owed.push(...(JSON.parse(taken!) as InputAt[]))
    const owed = this.#owed.splice(0)
    return this.inputs(turn, owed).catch((error: unknown) => {
      this.#owed.unshift(...owed)
      throw error
    })
  }

  async inputs(turn: StartedTurn, at: readonly InputAt[]): Promise<StoredRecord[]> {
    if (this.#written && at.length === 1 && at[0] === this.#written.at) return storedInput(this.#written.at, this.#written.records)
    return readInputs(this.#tools, turn.sessionId, at)
  }

  tail(turn: StartedTurn, count: number, { compacted = false }: TailOptions = {}): Promise<StoredRecord[]> {
    return readConversation(this.#tools, turn.sessionId, count, compacted)
  }

  async end(turn: StartedTurn, request: RequestFacts, { outcome, value, error }: TurnEnding): Promise<{ left: number }> {
    const valueText = value === undefined ? null : JSON.stringify(value)
    const answer = await this.#fenced('end_turn', 'ending a turn', turn, [asText(request.requestId), outcome, valueText, asText(error)])
    const [ended, left, free] = answer
    if (ended !== 'ended') throw lineLost(turn, ended!)
    if (free === '1') this.#letGo()
    return { left: Number(left) }
  }

  stands(): boolean {
    return !this.#lost && !this.#released && !this.#tools.heart.overdue
  }

  progress(): void {
    this.progressed = true
    this.#progressAtMs = performance.now()
  }

  async release(): Promise<void> {
    if (this.#released) return
    this.#letGo()
    const { database, schema } = this.#tools
    await database.write(`delete from ${schema}.leases where key = $1 and token = $2`, [this.key, this.token], {
      doing: 'giving a turn back',
    })
    this.#tools.released(this.key)
  }

  #letGo(): void {
    this.#released = true
    this.#tools.heart.remove(this)
    this.#tools.released(this.key)
  }

  // — for the heart —

  lost(reason: StoreError): void {
    this.#lost = true
    this.#events.onLost(reason)
  }

  /** Asked of one turn, it is not asked of the next one under the same lease. */
  interruptedBy(asked: { readonly by: string; readonly at: number } | undefined): void {
    if (!asked || asked.at === this.#heardAt) return
    this.#heardAt = asked.at
    this.#events.onInterrupt(asked.by)
  }

  look(): void {
    if (this.#expired || performance.now() - this.#progressAtMs < this.maxTurnMs) return
    this.#expired = true
    this.#events.onExpired()
  }

  #fenced(name: string, doing: string, { key, sessionId, turn }: StartedTurn, values: readonly unknown[]): Promise<readonly string[]> {
    this.progress()
    return this.#call(name, doing, [key, sessionId, turn, this.token, ...values])
  }

  async #call(name: string, doing: string, values: readonly unknown[]): Promise<readonly string[]> {
    const { database, schema } = this.#tools
    const places = ['$1', '$2', ...values.map((_, at) => `$${at + 3}`)].join(', ')
    const text = `select ${schema}.${name}(${places}) as result`
    const [answer] = await database.write(text, [uuidv7(), database.waitMs, ...values], { doing })
    return answer!.result as string[]
  }
}

function lineLost(turn: StartedTurn, line: string): StoreError {
  const [, , number = '', why = ''] = line.split('|')
  return lostTurn(turn, why, Number(number))
}

/** As a reader of the transcript would find it. */
function storedInput([request, seq]: InputAt, records: readonly EncodedRecord[]): StoredRecord[] {
  return records.map(({ json }, at) => ({
    seq: seq + at,
    ...(at === 0 && { request }),
    record: JSON.parse(json) as Record<string, unknown>,
  }))
}

/** Turns of a store in a database: leases and places in tables that all processes see, events in the log, which decides. */
import { createHash } from 'node:crypto'
import { uuidv7 } from 'uuidv7'
import type { EarlierRequest, EncodedRecord, LeaseHolder, LeftInput, Place, RequestFacts, TurnPort } from '../../backend.js'
import type { LockStatus, TurnStatus, TurnsOptions, WaitOptions } from '../../types.js'
import type { Counters } from '../counters.js'
import type { Database, Row } from '../database.js'
import type { Appends } from '../transcripts/appends.js'
import { type PastTurn, readTurns } from '../transcripts/conversation.js'
import { logOf, type Part } from '../transcripts/reading.js'
import { Heart } from './heart.js'
import { KeyPlace, type PlaceTools } from './place.js'
import { asText, inputPart } from './turn-lease.js'

export interface PostgresTurnsTools {
  readonly database: Database
  readonly schema: string
  readonly counters: Counters
  readonly appends: Appends
  readonly leaseMs: number
  assertWritable(): void
}

const pastTurnsDefault = 50

export class PostgresTurns implements TurnPort {
  readonly #tools: PostgresTurnsTools
  readonly #heart: Heart
  readonly #placeTools: PlaceTools
  /** Of each key, whoever waits here for its lease. */
  readonly #resting = new Map<string, Set<() => void>>()

  constructor(tools: PostgresTurnsTools) {
    this.#tools = tools
    this.#heart = new Heart(tools)
    const { database, schema, counters, appends } = tools
    this.#placeTools = {
      database,
      schema,
      counters,
      appends,
      heart: this.#heart,
      holderOf: (key) => this.#holderOf(key),
      released: (key) => this.#wake(key),
      rest: (key, ms, signal) => this.#rest(key, ms, signal),
    }
  }

  enlist(key: string, request: RequestFacts): Place {
    this.#tools.assertWritable()
    return new KeyPlace(key, request, this.#placeTools)
  }

  async leaveInput(key: string, records: readonly EncodedRecord[], request: RequestFacts, wait: WaitOptions): Promise<LeftInput> {
    wait.signal?.throwIfAborted()
    const { requestId, given, whenBusy } = request
    const part = inputPart(request, records.length)
    const bodies = records.map(({ json }) => json)
    const answer = await this.#call(
      'leave_input',
      'leaving an input',
      [key, uuidv7(), asText(requestId), given, whenBusy, part, bodies],
      wait,
    )
    const [sessionId, seq, count, activeTurn, activeRequest, activeLease, ...known] = answer
    const first = Number(seq)
    return {
      sessionId: sessionId!,
      seqs: Array.from({ length: Number(count) }, (_, at) => first + at),
      earlier: known.length > 0 ? earlierOf(known) : undefined,
      active:
        activeTurn === null || activeTurn === undefined
          ? undefined
          : { turn: Number(activeTurn), requestId: JSON.parse(activeRequest!) as string, lease: Number(activeLease) },
    }
  }

  async withdrawInput(key: string, request: RequestFacts): Promise<boolean> {
    const [outcome] = await this.#call('withdraw_input', 'taking an input back', [key, asText(request.requestId)], {})
    return outcome === 'withdrawn'
  }

  async find(key: string, request: RequestFacts, { signal }: WaitOptions): Promise<EarlierRequest | undefined> {
    signal?.throwIfAborted()
    const { database, schema } = this.#tools
    const [row] = await database.read(
      `select ${schema}.request_line(r) as known from ${schema}.entries e join ${schema}.requests r on r.origin = e.origin
       where e.key = $1 and r.request = $2`,
      [key, asText(request.requestId)],
      { doing: 'looking for a request' },
    )
    return row && earlierOf(row.known as string[])
  }

  async valueOf(sessionId: string, endSeq: number): Promise<unknown> {
    if (endSeq < 0) return undefined
    const { database, schema } = this.#tools
    const [row] = await database.read(
      `select part from ${schema}.records where session_id = $1 and seq = $2 and kind = 't'`,
      [sessionId, endSeq],
      { doing: 'reading an answer' },
    )
    const event = row && (JSON.parse(row.part as string) as Part).turn
    return event?.event === 'end' ? event.value : undefined
  }

  async list({ key, limit = pastTurnsDefault }: TurnsOptions): Promise<TurnStatus[]> {
    const { database, schema } = this.#tools
    const rows = await database.read(
      `select l.key, l.session_id, l.turn, l.request, l.channel, l.lane, 'active' as state, l.since, 0::bigint as n, h.pid, h.host,
         ${schema}.lease_stands(l) as stands, ${schema}.now_ms() as now
       from ${schema}.leases l left join ${schema}.handles h on h.id = l.handle where l.turn is not null and ($1::text is null or l.key = $1)
       union all
       select p.key, null, null, p.request, p.channel, p.lane, 'queued', p.since, p.n, h.pid, h.host, true, ${schema}.now_ms()
       from ${schema}.places p join ${schema}.handles h on h.id = p.handle
       where h.until > clock_timestamp() and ($1::text is null or p.key = $1)
       order by n`,
      [key ?? null],
      { doing: 'listing turns' },
    )
    const positions = new Map<string, number>()
    const live = rows.map((row) => liveStatus(row, positions))
    if (key === undefined) return live.sort((a, b) => a.since - b.since)
    const log = limit === 0 ? undefined : await logOf(this.#tools, key)
    const past = log ? await readTurns(this.#tools, log.sessionId, limit) : []
    const shown = new Set(live.map(({ turn }) => turn))
    const nowMs = Number(rows[0]?.now ?? Date.now())
    return [...live, ...past.filter(({ turn }) => !shown.has(turn)).map((turn) => pastStatus(key, log!.sessionId, turn, nowMs))]
  }

  async interrupt(key: string, by: string): Promise<boolean> {
    const { database, schema } = this.#tools
    const rows = await database.write(
      `update ${schema}.leases l set interrupt_by = $2, interrupt_at = ${schema}.now_ms()
       where key = $1 and turn is not null and ${schema}.lease_stands(l) returning 1 as told`,
      [key, by.replaceAll('\u0000', '\ufffd').toWellFormed()],
      { doing: 'interrupting a turn' },
    )
    return rows.length > 0
  }

  async leases(): Promise<LockStatus[]> {
    const rows = await this.#leaseRows()
    return rows.map((row) => ({
      lock: `turns/${createHash('sha256')
        .update(row.key as string)
        .digest('hex')
        .slice(0, 32)}`,
      key: row.key as string,
      state: 'held',
      entry: undefined,
      fencingToken: Number(row.token),
      holder: { ...holderOf(row), does: 'turn' },
      waiting: Number(row.waiting),
    }))
  }

  async close(): Promise<void> {
    await this.#heart.stop()
  }

  async #holderOf(key: string): Promise<LeaseHolder | undefined> {
    const [row] = await this.#leaseRows(key)
    return row?.stands === true ? holderOf(row) : undefined
  }

  #leaseRows(key?: string): Promise<readonly Row[]> {
    const { database, schema } = this.#tools
    return database.read(
      `select l.*, h.pid, h.host, ${schema}.lease_stands(l) as stands, h.until > clock_timestamp() as alive,
         (extract(epoch from clock_timestamp() - l.progress) * 1000)::float8 as held_ms,
         (select count(*) from ${schema}.places p join ${schema}.handles w on w.id = p.handle where p.key = l.key and w.until > clock_timestamp()) as waiting
       from ${schema}.leases l left join ${schema}.handles h on h.id = l.handle where $1::text is null or l.key = $1 order by l.key`,
      [key ?? null],
      { doing: 'looking at leases' },
    )
  }

  async #call(name: string, doing: string, values: readonly unknown[], wait: WaitOptions): Promise<readonly (string | null)[] & string[]> {
    const { database, schema } = this.#tools
    const waitMs = wait.waitMs ?? database.waitMs
    const places = ['$1', '$2', ...values.map((_, at) => `$${at + 3}`)].join(', ')
    const [answer] = await database.write(`select ${schema}.${name}(${places}) as result`, [uuidv7(), Math.ceil(waitMs), ...values], {
      doing,
      waitMs,
    })
    return answer!.result as string[]
  }

  // — waiting here for what is given back here: a hint, behind which stands asking —

  #wake(key: string): void {
    for (const wake of this.#resting.get(key) ?? []) wake()
  }

  #rest(key: string, ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const resting = this.#resting.get(key) ?? new Set()
      this.#resting.set(key, resting)
      const wake = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', wake)
        resting.delete(wake)
        if (resting.size === 0) this.#resting.delete(key)
        resolve()
      }
      const timer = setTimeout(wake, ms)
      signal?.addEventListener('abort', wake, { once: true })
      resting.add(wake)
      if (signal?.aborted) wake()
    })
  }
}

function earlierOf([state, sessionId, turn, attempt, endSeq]: readonly (string | null)[]): EarlierRequest {
  return {
    state: state as EarlierRequest['state'],
    sessionId: sessionId!,
    turn: Number(turn),
    attempt: Number(attempt),
    endSeq: Number(endSeq),
  }
}

function holderOf(row: Row): LeaseHolder {
  const stands = row.stands === true
  const dead = row.alive !== true
  return {
    pid: Number(row.pid ?? 0),
    host: (row.host as string | null) ?? 'unknown',
    verdict: stands ? 'alive' : dead ? 'dead' : 'expired',
    why: stands ? 'its process has given a sign of life' : dead ? 'its process gives no sign of life' : 'no progress for its maxTurnMs',
    heldMs: Number(row.held_ms),
    maxHoldMs: Number(row.max_ms),
    token: Number(row.token),
    requestId: row.turn === null ? undefined : (JSON.parse(row.request as string) as string),
    turn: row.turn === null ? undefined : Number(row.turn),
  }
}

const textOf = (text: unknown) => (typeof text === 'string' ? (JSON.parse(text) as string) : undefined)

function liveStatus(row: Row, positions: Map<string, number>): TurnStatus {
  const key = row.key as string
  const since = Number(row.since)
  const interrupted = row.state === 'active' && row.stands !== true
  const position = row.state === 'active' ? 0 : (positions.get(key) ?? 0) + 1
  if (row.state === 'queued') positions.set(key, position)
  const verdict = interrupted ? 'dead' : 'alive'
  return {
    key,
    sessionId: (row.session_id as string | null) ?? undefined,
    turn: row.turn === null ? undefined : Number(row.turn),
    requestId: textOf(row.request)!,
    channelId: textOf(row.channel),
    lane: textOf(row.lane)!,
    state: interrupted ? 'interrupted' : (row.state as 'active' | 'queued'),
    position: interrupted ? undefined : position,
    since,
    ageMs: Math.max(0, Number(row.now) - since),
    holder: {
      pid: Number(row.pid ?? 0),
      host: (row.host as string | null) ?? 'unknown',
      verdict,
      why: `its process ${interrupted ? 'gives no sign of life, or has made no progress for its time' : 'has given a sign of life'}`,
    },
  }
}

function pastStatus(
  key: string,
  sessionId: string,
  { turn, requestId, channelId, lane, state, since }: PastTurn,
  nowMs: number,
): TurnStatus {
  const ageMs = Math.max(0, nowMs - since)
  return { key, sessionId, turn, requestId, channelId, lane, state, position: undefined, since, ageMs, holder: undefined }
}

/** A request's place in the line of its key among all processes, and the way from there to the lease. */
import { uuidv7 } from 'uuidv7'
import type { LeaseEvents, LeaseHolder, Place, RequestFacts, TurnLease } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'
import type { Counters } from '../counters.js'
import { asText, KeyLease, type LeaseTools } from './turn-lease.js'

export interface PlaceTools extends LeaseTools {
  readonly counters: Counters
  holderOf(key: string): Promise<LeaseHolder | undefined>
  /** Resolves after `ms`, or when a lease of that key was given back here, or the signal aborts. */
  rest(key: string, ms: number, signal: AbortSignal | undefined): Promise<void>
}

/** How often one that waits asks, between these; it begins with the shorter. */
const pollMsMin = 10
const pollMsMax = 100
const retryMsMin = 250
const retryMsMax = 60_000

export class KeyPlace implements Place {
  readonly #key: string
  readonly #request: RequestFacts
  readonly #tools: PlaceTools
  readonly #id = uuidv7()
  #shown: Promise<unknown> | undefined
  #left = false

  constructor(key: string, request: RequestFacts, tools: PlaceTools) {
    this.#key = key
    this.#request = request
    this.#tools = tools
  }

  async tryLease(maxTurnMs: number, events: LeaseEvents): Promise<TurnLease | undefined> {
    const { database, schema, heart, counters } = this.#tools
    const { requestId, channelId, lane } = this.#request
    await this.#shown
    const place = this.#shown ? this.#id : undefined
    const askedAtMs = performance.now()
    const [answer] = await database.write(
      `select * from ${schema}.take_lease($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
      [this.#key, place ?? null, ...heart.facts, asText(requestId), asText(channelId), asText(lane), maxTurnMs],
      { doing: 'taking a turn' },
    )
    heart.confirmed(askedAtMs)
    const { token, over } = answer!
    if (token === null) return undefined
    if (over === 'dead' || over === 'expired') counters.takeovers[over]++
    const lease = new KeyLease(this.#tools, this.#key, Number(token), maxTurnMs, events, place)
    heart.add(lease, askedAtMs)
    return lease
  }

  async lease(maxTurnMs: number, events: LeaseEvents, { waitMs, signal }: WaitOptions & { waitMs: number }): Promise<TurnLease> {
    await this.show()
    const deadlineMs = performance.now() + waitMs
    for (let pauseMs = pollMsMin; ; pauseMs = Math.min(pollMsMax, pauseMs * 1.5)) {
      signal?.throwIfAborted()
      const lease = await this.tryLease(maxTurnMs, events)
      if (lease && signal?.aborted) await lease.release()
      signal?.throwIfAborted()
      if (lease) return lease
      const leftMs = deadlineMs - performance.now()
      if (leftMs <= 0) throw await this.#busy(waitMs)
      await this.#tools.rest(this.#key, Math.min(leftMs, pauseMs * (0.5 + Math.random())), signal)
    }
  }

  holder(): Promise<LeaseHolder | undefined> {
    return this.#tools.holderOf(this.#key)
  }

  async isElsewhere(): Promise<boolean> {
    const { database, schema } = this.#tools
    await this.#shown
    const [found] = await database.read(
      `select exists (select from ${schema}.places p join ${schema}.handles h on h.id = p.handle
         where p.key = $1 and p.request = $2 and p.id <> $3 and h.until > clock_timestamp())
       or exists (select from ${schema}.leases l where l.key = $1 and l.request = $2 and l.turn is not null and ${schema}.lease_stands(l)) as there`,
      [this.#key, asText(this.#request.requestId), this.#id],
      { doing: 'looking who is in line' },
    )
    return found!.there === true
  }

  async othersWait(): Promise<boolean> {
    const { database, schema } = this.#tools
    const [found] = await database.read(
      `select exists (select from ${schema}.places p join ${schema}.handles h on h.id = p.handle
         where p.key = $1 and p.request <> $2 and h.until > clock_timestamp()) as there`,
      [this.#key, asText(this.#request.requestId)],
      { doing: 'looking who is in line' },
    )
    return found!.there === true
  }

  /** Never fails: a place that cannot be written is only not seen. */
  show(): Promise<void> {
    if (!this.#shown && !this.#left) {
      const { database, schema, heart } = this.#tools
      const { requestId, channelId, lane, whenBusy } = this.#request
      heart.addPlace()
      this.#shown = database
        .write(
          `select ${schema}.show_place($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
          [this.#id, this.#key, ...heart.facts, asText(requestId), asText(channelId), asText(lane), whenBusy],
          { doing: 'standing in line' },
        )
        .catch(() => {})
    }
    return Promise.resolve(this.#shown).then(() => {})
  }

  async leave(): Promise<void> {
    if (this.#left) return
    this.#left = true
    if (!this.#shown) return
    await this.#shown
    const { database, schema, heart } = this.#tools
    heart.removePlace()
    await database.write(`delete from ${schema}.places where id = $1`, [this.#id], { doing: 'leaving the line' }).catch(() => {})
  }

  async #busy(waitMs: number): Promise<StoreError> {
    const { database, schema } = this.#tools
    const holder = await this.holder()
    const [ahead] = await database.read(
      `select count(*)::integer as n from ${schema}.places p join ${schema}.handles h on h.id = p.handle
       where p.key = $1 and h.until > clock_timestamp() and p.n < (select n from ${schema}.places where id = $2)`,
      [this.#key, this.#id],
      { doing: 'looking who is in line' },
    )
    const waitingBefore = ahead!.n as number
    const retryAfterMs = Math.min(retryMsMax, Math.max(retryMsMin, holder?.heldMs ?? 0))
    const who = holder
      ? `pid ${holder.pid} on ${holder.host} has it, last progress ${Math.round(holder.heldMs ?? 0)} ms ago${holder.turn === undefined ? '' : `, turn ${holder.turn}, request ${holder.requestId}`}`
      : 'it changed hands all the time'
    return new StoreError(
      'TURN_BUSY',
      `waited ${Math.round(waitMs)} ms for the turn of ${JSON.stringify(this.#key)}; ${who}; ${waitingBefore} wait before this one.`,
      {
        details: { key: this.#key, waitMs, holder, turn: holder?.turn, requestId: holder?.requestId, waitingBefore, retryAfterMs },
        hint: `Its function was not run. Try again in ${retryAfterMs} ms, wait longer, or interrupt the turn; \`holdfast turns\` shows who is active.`,
      },
    )
  }
}

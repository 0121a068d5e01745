/** One request on its way through a conversation: in at the key's lane and its lease, through a slot of the global lane, one turn, out.
 *
 *  1 the key's line and its lease      idle: at once. Busy: as `whenBusy` says; the input is in the log before anything is waited for
 *  2 a slot of the lane
 *  3 the start, in the log             takes the inputs it answers; says so when the request was answered before
 *  4 the function                      its signal aborts when the turn is not its own any more; nothing frees slot or lease before it settles
 *  5 the end, in the log               what others have left meanwhile is answered by another turn, before anybody else is let in
 *  6 everything given back             structurally: whatever throws, wherever */
import type { BegunTurn, EncodedRecord, LeaseEvents, LeftInput, Place, RequestFacts, StartedTurn, TurnLease, TurnPort } from '../backend.js'
import { isStoreError, StoreError } from '../errors.js'
import type { Turn, TurnResult } from '../types.js'
import { ActiveTurn, type TurnTools } from './active-turn.js'
import type { Lanes, Leave } from './lanes.js'

export type Work<R> = (turn: Turn) => Promise<R> | R

export interface VisitTools extends TurnTools {
  readonly port: TurnPort
  readonly lanes: Lanes
  freshId(): string
  /** The turn of this process that is active on the key. */
  active(key: string): ActiveTurn | undefined
  activate(key: string, turn: ActiveTurn | undefined): void
  /** What goes on after the caller has its answer. */
  background(key: string, work: Promise<void>): void
  report(message: Readonly<Record<string, unknown>>): void
}

export interface VisitOptions {
  readonly request: RequestFacts
  readonly records: readonly EncodedRecord[] | undefined
  readonly maxTurnMs: number
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
}

/** What is held for a turn, and has to be given back. */
interface Holding {
  readonly lease: TurnLease
  release(): Promise<void>
}

export class Visit<R> {
  readonly #key: string
  readonly #options: VisitOptions
  readonly #work: Work<R>
  readonly #tools: VisitTools
  readonly #place: Place
  readonly #deadlineMs: number
  /** For the lanes, which tell others by it who is ahead. */
  readonly #about: Record<string, unknown>
  #turn: ActiveTurn | undefined
  #left: LeftInput | undefined
  #kept = false

  constructor(key: string, options: VisitOptions, work: Work<R>, tools: VisitTools) {
    this.#key = key
    this.#options = options
    this.#work = work
    this.#tools = tools
    const { requestId, channelId, lane } = options.request
    this.#about = { key, requestId, channelId, lane }
    this.#deadlineMs = tools.clock.monotonicMs() + options.waitMs
    this.#place = tools.port.enlist(key, options.request)
  }

  async serve(): Promise<TurnResult<R>> {
    try {
      const atOnce = await this.#atOnce()
      if (atOnce) return await this.#run(atOnce, this.#left ? undefined : this.#options.records)
      const settled = await this.#whileBusy()
      if (settled) return settled
      return await this.#run(await this.#whenFree(), this.#left ? undefined : this.#options.records)
    } catch (error) {
      throw await this.#givenUp(error)
    } finally {
      if (!this.#kept) this.#place.leave()
    }
  }

  // — 1 and 2: in —

  /** Key, lease and slot, when nobody has to be waited for. */
  async #atOnce(): Promise<Holding | undefined> {
    const { lanes } = this.#tools
    if (lanes.isBusy(this.#key)) return undefined
    const leaveKey = await lanes.enterKey(this.#key, this.#entering(0))
    const lease = await this.#orLeave(this.#place.tryLease(this.#options.maxTurnMs, this.#events), leaveKey)
    if (!lease) {
      leaveKey()
      return undefined
    }
    return this.#slot(lease, leaveKey)
  }

  async #whenFree(): Promise<Holding> {
    const leaveKey = await this.#tools.lanes.enterKey(this.#key, this.#entering())
    const { signal, maxTurnMs } = this.#options
    const lease = await this.#orLeave(this.#place.lease(maxTurnMs, this.#events, { signal, waitMs: this.#leftMs() }), leaveKey)
    return this.#slot(lease, leaveKey)
  }

  async #slot(lease: TurnLease, leaveKey: Leave): Promise<Holding> {
    const giveBack = async () => {
      try {
        await lease.release()
      } finally {
        leaveKey()
      }
    }
    try {
      const leaveLane = await this.#laneSlot()
      return {
        lease,
        release: () => {
          leaveLane()
          return giveBack()
        },
      }
    } catch (error) {
      await giveBack()
      throw error
    }
  }

  /** The input is in the log before a full lane is waited for. */
  async #laneSlot(): Promise<Leave> {
    const { lanes } = this.#tools
    const { lane, whenBusy } = this.#options.request
    try {
      return await lanes.enterLane(lane, this.#entering(0))
    } catch (error) {
      if (!isStoreError(error, 'LANE_FULL') || whenBusy === 'reject') throw error
    }
    await this.#leaveInput()
    return lanes.enterLane(lane, this.#entering())
  }

  async #orLeave<T>(work: Promise<T>, leaveKey: Leave): Promise<T> {
    try {
      return await work
    } catch (error) {
      leaveKey()
      throw error
    }
  }

  #entering(waitMs = this.#leftMs()) {
    return { waitMs, signal: this.#options.signal, about: this.#about }
  }

  #leftMs(): number {
    return Math.max(1, this.#deadlineMs - this.#tools.clock.monotonicMs())
  }

  /** Somebody else is in. The result, when there is nothing to wait for; undefined to get in line. */
  async #whileBusy(): Promise<TurnResult<R> | undefined> {
    const { request, signal } = this.#options
    const { port } = this.#tools
    if (request.whenBusy === 'reject') {
      const earlier = request.given ? await port.find(this.#key, request, { signal }) : undefined
      if (earlier?.state === 'completed') return this.#duplicate(earlier)
      // The request itself is what is active: then it is waited for, not refused.
      if (earlier?.state !== 'active' && !this.#place.isElsewhere()) throw this.#busy()
      return undefined
    }
    const left = await this.#leaveInput()
    if (left?.earlier?.state === 'completed') return this.#duplicate(left.earlier)
    if (request.whenBusy === 'coalesce' && left) return this.#coalesced(left)
    if (request.whenBusy === 'interrupt') await this.#interrupt()
    return undefined
  }

  async #leaveInput(): Promise<LeftInput | undefined> {
    const { records, request, signal } = this.#options
    if (!records || this.#left) return this.#left
    // Seen first: an input that nobody waits with is anybody's.
    this.#place.show()
    this.#left = await this.#tools.port.leaveInput(this.#key, records, request, { signal })
    return this.#left
  }

  /** Left for the active turn, if there is one behind the input in the log, and whoever has begun it still has the lease: he answers what
   *  he finds pending at its end. Else this request runs the next turn. */
  #coalesced({ active, earlier, sessionId, seqs }: LeftInput): TurnResult<R> | undefined {
    if (!active || this.#place.holder()?.token !== active.lease) return undefined
    if (earlier && earlier.state !== 'pending' && !(earlier.state === 'taken' && earlier.turn === active.turn)) return undefined
    const { requestId } = this.#options.request
    return { outcome: 'coalesced', turn: active.turn, sessionId, requestId, attempt: 0, seqs, value: undefined }
  }

  async #interrupt(): Promise<void> {
    const { requestId } = this.#options.request
    const here = this.#tools.active(this.#key)
    if (here) here.interrupt(`request ${requestId}`)
    else await this.#tools.port.interrupt(this.#key, `request ${requestId}`)
  }

  #busy(): StoreError {
    const holder = this.#place.holder()
    const here = this.#tools.active(this.#key)?.started
    const turn = holder?.turn ?? here?.turn
    const who = holder
      ? `held by pid ${holder.pid} (${holder.verdict})${holder.heldMs === undefined ? '' : ` for ${Math.round(holder.heldMs / 1000)} s`}`
      : 'others are in line'
    const retryAfterMs = 1_000
    return new StoreError('TURN_BUSY', `the conversation ${JSON.stringify(this.#key)} is busy: ${who}${turn ? `, turn ${turn}` : ''}.`, {
      details: { key: this.#key, holder, turn, requestId: holder?.requestId, retryAfterMs },
      hint: `Nothing was written. Try again in ${retryAfterMs} ms, or ask with whenBusy 'queue', 'coalesce' or 'interrupt'; \`holdfast turns\` shows who is active.`,
    })
  }

  // — 3 to 5: the turn —

  async #run(holding: Holding, records: readonly EncodedRecord[] | undefined): Promise<TurnResult<R>> {
    let keep = false
    try {
      const begun = await holding.lease.begin(this.#options.request, records)
      if (begun.kind !== 'started') return await this.#answered(begun)
      const { result, left } = await this.#turnOf(holding.lease, begun, this.#options.request, this.#options.signal)
      keep = left > 0
      if (keep) this.#answerTheRest(holding)
      return await result
    } finally {
      if (!keep) await this.#release(holding)
    }
  }

  /** A request that needed no turn: its result, and this visit is over. */
  async #answered(begun: Exclude<BegunTurn, StartedTurn>): Promise<TurnResult<R>> {
    if (begun.kind === 'answered') return this.#duplicate(begun)
    if (begun.kind === 'nothing') throw new StoreError('INVARIANT', 'a turn was begun for nothing.')
    const { turn, sessionId, attempt } = begun
    const { requestId } = this.#options.request
    return { outcome: 'coalesced', turn, sessionId, requestId, attempt, seqs: this.#left?.seqs ?? [], value: undefined }
  }

  async #duplicate({
    sessionId,
    turn,
    attempt,
    endSeq,
  }: {
    sessionId: string
    turn: number
    attempt: number
    endSeq: number
  }): Promise<TurnResult<R>> {
    const value = (await this.#tools.port.valueOf(sessionId, endSeq)) as R | undefined
    const { requestId } = this.#options.request
    return { outcome: 'duplicate', turn, sessionId, requestId, attempt, seqs: this.#left?.seqs ?? [], value }
  }

  /** Runs the function and writes down how it ended. `result` is settled; it rejects with what the function threw. */
  async #turnOf(
    lease: TurnLease,
    begun: StartedTurn,
    request: RequestFacts,
    signal: AbortSignal | undefined,
  ): Promise<{ result: Promise<TurnResult<R>>; left: number }> {
    const turn = new ActiveTurn(lease, begun, request, signal, this.#tools)
    this.#turn = turn
    this.#tools.activate(this.#key, turn)
    this.#tools.report({ event: 'started', ...turn.about })
    try {
      const { ending, result } = await turn.run(this.#work)
      // Nobody may be told how it ended before that is in the log.
      result.catch(() => {})
      const { left } = await lease.end(begun, request, ending)
      this.#tools.report({ event: ending.outcome, ...turn.about })
      // Whoever has interrupted it goes next, and takes what is left.
      return { result, left: turn.interrupted && this.#place.othersWait() ? 0 : left }
    } catch (error) {
      this.#tools.report({ event: 'lost', ...turn.about, error })
      throw error
    } finally {
      this.#turn = undefined
      this.#tools.activate(this.#key, undefined)
      turn.settled()
    }
  }

  /** F34: what came between the last `pending()` and the end is not stranded. The caller has its answer meanwhile. */
  #answerTheRest(holding: Holding): void {
    this.#kept = true
    const { lane, channelId } = this.#options.request
    const answer = async () => {
      try {
        for (let left = 1; left > 0; ) {
          const request: RequestFacts = { requestId: this.#tools.freshId(), given: false, lane, channelId, whenBusy: 'queue' }
          const begun = await holding.lease.beginForLeft(request)
          if (begun.kind !== 'started') return
          const turn = await this.#turnOf(holding.lease, begun, request, undefined)
          await turn.result.catch(() => {}) // It is in the log, and has been reported.
          left = turn.left
        }
      } catch (error) {
        this.#tools.report({ event: 'left-unanswered', ...this.#about, error })
      } finally {
        await this.#release(holding)
        this.#place.leave()
      }
    }
    this.#tools.background(this.#key, answer())
  }

  async #release(holding: Holding): Promise<void> {
    try {
      await holding.release()
    } catch (error) {
      // The lease is another's or expires; what was committed stands.
      this.#tools.report({ event: 'release-failed', ...this.#about, error })
    }
  }

  // — the ways out —

  readonly #events: LeaseEvents = {
    onLost: (reason) => this.#turn?.abort(reason),
    onExpired: () => this.#turn?.expire(),
    onInterrupt: (by) => this.#turn?.interrupt(by),
  }

  /** An input whose caller has gone before any turn took it, goes too: it never runs later (F41). */
  async #givenUp(error: unknown): Promise<unknown> {
    if (!this.#left || this.#left.earlier || this.#kept) return error
    try {
      await this.#tools.port.withdrawInput(this.#key, this.#options.request)
      return error
    } catch {
      return isStoreError(error) && error.effect === 'none' ? asUnknown(error) : error
    }
  }
}

function asUnknown(error: StoreError): StoreError {
  return new StoreError(error.code, 'see the cause.', {
    effect: 'unknown',
    details: error.details,
    cause: error,
    hint: 'The input is in the transcript, and the next turn may take it. Try again with the same requestId.',
  })
}

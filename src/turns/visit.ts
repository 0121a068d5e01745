/** One request on its way through a conversation: in at the key's lane and its lease, through a slot of the global lane, one turn, out.
 *
 *  1 a place in the key's line         before anything is waited for: requests go in the order in which they were made
 *  2 the key's lease                   idle: at once. Busy: as `whenBusy` says; the input is in the log before anything is waited for
 *  3 a slot of the lane                the lease is kept alive meanwhile
 *  4 the start, in the log             takes the inputs it answers; says so when the request was answered before
 *  5 the function, and its end         round.ts; nothing frees slot, lease or key before it settles
 *  6 everything given back             in the reverse order; whatever throws, wherever */
import type {
  BegunTurn,
  EarlierRequest,
  EncodedRecord,
  LeaseEvents,
  LeftInput,
  Place,
  RequestFacts,
  StartedTurn,
  TurnLease,
} from '../backend.js'
import { isStoreError, StoreError } from '../errors.js'
import type { TurnResult } from '../types.js'
import type { Leave } from './lanes.js'
import { Round, type VisitTools, type Work } from './round.js'

export interface VisitOptions {
  readonly request: RequestFacts
  readonly records: readonly EncodedRecord[] | undefined
  readonly maxTurnMs: number
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
  /** Throws when it was asked for from inside a turn that it would have to wait for. */
  readonly mayWait: (forWhat: 'key' | 'lane') => void
}

/** How soon a turn that is just beginning is looked for again by whoever wants to interrupt it. */
const interruptAgainMs = 20

export class Visit<R> {
  readonly #key: string
  readonly #options: VisitOptions
  readonly #tools: VisitTools
  readonly #place: Place
  readonly #round: Round<R>
  readonly #deadlineMs: number
  /** For the lanes, which tell others by it who is ahead. */
  readonly #about: Record<string, unknown>
  /** Aborts what it waits for: by its caller's signal, or because the store is closed. */
  readonly #over = new AbortController()
  /** Aborts when it waits no more, for whatever reason. */
  readonly #waited = new AbortController()
  /** What has to be given back, last first. */
  readonly #held: (() => void | Promise<void>)[] = []
  #lease: TurnLease | undefined
  #left: LeftInput | undefined
  #begun = false

  constructor(key: string, options: VisitOptions, work: Work<R>, tools: VisitTools) {
    this.#key = key
    this.#options = options
    this.#tools = tools
    const { requestId, channelId, lane } = options.request
    this.#about = { key, requestId, channelId, lane }
    this.#deadlineMs = tools.clock.monotonicMs() + options.waitMs
    this.#place = tools.port.enlist(key, options.request)
    this.#held.push(() => this.#place.leave())
    this.#round = new Round(key, work, tools, () => this.#place.othersWait())
  }

  /** Whoever waits, waits no more; a turn that has begun is not touched. */
  refuse(reason: unknown): void {
    this.#over.abort(reason)
  }

  async serve(): Promise<TurnResult<R>> {
    const { signal, request } = this.#options
    const onAbort = () => this.refuse(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted) onAbort()
    try {
      const begun = await this.#getIn()
      return 'result' in begun ? begun.result : await this.#round.run(begun.lease, begun.turn, request, signal)
    } catch (error) {
      throw await this.#givenUp(error)
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#waited.abort(null)
      if (this.#round.left) this.#tools.background(this.#answerTheRest())
      else await this.#giveBack()
    }
  }

  // — in —

  async #getIn(): Promise<{ lease: TurnLease; turn: StartedTurn } | { result: TurnResult<R> }> {
    const idle = !this.#tools.lanes.isBusy(this.#key)
    const entered = this.#getInLine()
    if (!(idle && (await entered) && (await this.#tryLease()))) {
      const result = await this.#whileBusy()
      if (result) return { result }
      await entered
    }
    for (;;) {
      const lease = this.#lease ?? (await this.#waitForLease())
      const leaveLane = await this.#laneSlot(lease)
      this.#held.push(leaveLane)
      const begun = await this.#begin(lease)
      if (begun?.kind === 'started') return { lease, turn: begun }
      if (begun) return { result: await this.#answered(begun) }
      leaveLane()
      await this.#letGoOfLease()
    }
  }

  /** The place is taken when this returns; what it returns resolves when it is this request's turn. */
  #getInLine(): Promise<Leave> {
    const out = new AbortController()
    const onOver = () => out.abort(this.#over.signal.reason)
    this.#over.signal.addEventListener('abort', onOver, { once: true })
    if (this.#over.signal.aborted) onOver()
    const entered = this.#tools.lanes.enterKey(this.#key, { ...this.#entering(), signal: out.signal })
    const left = entered.then(
      (leave) => leave,
      () => nothing,
    )
    this.#held.push(async () => {
      out.abort(null)
      const leave = await left
      leave()
    })
    return entered
  }

  async #tryLease(): Promise<TurnLease | undefined> {
    return this.#keep(await this.#place.tryLease(this.#options.maxTurnMs, this.#events))
  }

  async #waitForLease(): Promise<TurnLease> {
    const wait = { signal: this.#over.signal, waitMs: this.#leftMs() }
    return this.#keep(await this.#place.lease(this.#options.maxTurnMs, this.#events, wait))
  }

  #keep<L extends TurnLease | undefined>(lease: L): L {
    this.#lease = lease
    this.#held.push(() => this.#letGoOfLease())
    return lease
  }

  async #letGoOfLease(): Promise<void> {
    const lease = this.#lease
    this.#lease = undefined
    await lease?.release()
  }

  /** The input is in the log before a full lane is waited for, and the lease is not lost over it. */
  async #laneSlot(lease: TurnLease): Promise<Leave> {
    const { lanes } = this.#tools
    const { request, mayWait } = this.#options
    try {
      return await lanes.enterLane(request.lane, this.#entering(0))
    } catch (error) {
      if (!isStoreError(error, 'LANE_FULL') || request.whenBusy === 'reject') throw error
    }
    mayWait('lane')
    const waited = new AbortController()
    void this.#keepAlive(lease, waited.signal)
    try {
      await this.#leaveInput()
      return await lanes.enterLane(request.lane, this.#entering())
    } finally {
      waited.abort(null)
    }
  }

  async #keepAlive(lease: TurnLease, until: AbortSignal): Promise<void> {
    while (!until.aborted) {
      await this.#tools.clock.sleep(this.#options.maxTurnMs / 8, until)
      lease.progress()
    }
  }

  /** undefined when the lease was lost on the way: then it is waited for anew. */
  async #begin(lease: TurnLease): Promise<BegunTurn | undefined> {
    const { request, records } = this.#options
    try {
      const begun = await lease.begin(request, records, { hasLeft: this.#left !== undefined, signal: this.#over.signal })
      this.#begun = true
      return begun
    } catch (error) {
      if (!isStoreError(error, 'TURN_LOST')) throw error
      if (request.whenBusy === 'reject') throw await this.#busy()
      return undefined
    }
  }

  #entering(waitMs = this.#leftMs()) {
    return { waitMs, signal: this.#over.signal, about: this.#about }
  }

  #leftMs(): number {
    return Math.max(1, Math.ceil(this.#deadlineMs - this.#tools.clock.monotonicMs()))
  }

  // — while somebody else is in —

  /** The result, when there is nothing to wait for; undefined to wait. */
  async #whileBusy(): Promise<TurnResult<R> | undefined> {
    const { request, mayWait } = this.#options
    const settled = request.whenBusy === 'reject' ? await this.#rejected() : await this.#leftBehind()
    if (settled) return settled
    mayWait('key')
    await this.#place.show()
    return undefined
  }

  async #rejected(): Promise<TurnResult<R> | undefined> {
    const { request } = this.#options
    const earlier = request.given ? await this.#tools.port.find(this.#key, request, { signal: this.#over.signal }) : undefined
    if (earlier?.state === 'completed') return this.#duplicate(earlier)
    // The request itself is what is active: then it is waited for, not refused.
    if (earlier?.state !== 'active' && !(await this.#place.isElsewhere())) throw await this.#busy()
    return undefined
  }

  async #leftBehind(): Promise<TurnResult<R> | undefined> {
    const { given, whenBusy } = this.#options.request
    // Asked first: whoever else has left the same input may take it back, as long as he is there.
    const alone = whenBusy === 'coalesce' && !(given && (await this.#place.isElsewhere()))
    const left = await this.#leaveInput()
    if (left?.earlier?.state === 'completed') return this.#duplicate(left.earlier)
    if (left && whenBusy === 'coalesce') return this.#coalesced(left, alone)
    if (whenBusy === 'interrupt') await this.#interrupt()
    return undefined
  }

  async #leaveInput(): Promise<LeftInput | undefined> {
    const { records, request } = this.#options
    // Seen first: an input that nobody waits with is anybody's.
    await this.#place.show()
    if (!records || this.#left) return this.#left
    this.#left = await this.#tools.port.leaveInput(this.#key, records, request, { signal: this.#over.signal })
    return this.#left
  }

  /** Left for the active turn, if there is one behind the input in the log, and whoever has begun it still has the lease: he answers what
   *  he finds pending at its end. Else this request runs the next turn. */
  async #coalesced({ active, earlier, sessionId, seqs }: LeftInput, alone: boolean): Promise<TurnResult<R> | undefined> {
    if (!active || (await this.#place.holder())?.token !== active.lease) return undefined
    const waits = !earlier || (earlier.state === 'pending' && alone)
    if (!waits && !(earlier?.state === 'taken' && earlier.turn === active.turn)) return undefined
    const { requestId } = this.#options.request
    return { outcome: 'coalesced', turn: active.turn, sessionId, requestId, attempt: 0, seqs, value: undefined }
  }

  /** A turn that is just beginning cannot hear it yet: it is told when it has begun. */
  async #interrupt(): Promise<void> {
    const by = `request ${this.#options.request.requestId}`
    const token = (await this.#place.holder())?.token
    if (!(await this.#tools.interrupt(this.#key, by))) void this.#interruptWhenBegun(token, by)
  }

  async #interruptWhenBegun(first: number | undefined, by: string): Promise<void> {
    const { clock, interrupt, report } = this.#tools
    try {
      for (let token = first; ; ) {
        await clock.sleep(interruptAgainMs, this.#waited.signal)
        const now = this.#waited.signal.aborted ? undefined : (await this.#place.holder())?.token
        token ??= now
        if (this.#waited.signal.aborted || now !== token || (await interrupt(this.#key, by))) return
      }
    } catch (error) {
      report({ event: 'interrupt-failed', ...this.#about, error })
    }
  }

  async #busy(): Promise<StoreError> {
    const holder = await this.#place.holder()
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

  // — out —

  /** A request that needed no turn: its result, and this visit is over. */
  async #answered(begun: Exclude<BegunTurn, StartedTurn>): Promise<TurnResult<R>> {
    if (begun.kind === 'answered') return this.#duplicate(begun)
    if (begun.kind === 'nothing') throw new StoreError('INVARIANT', 'a turn was begun for nothing.')
    const { turn, sessionId, attempt } = begun
    const { requestId } = this.#options.request
    return { outcome: 'coalesced', turn, sessionId, requestId, attempt, seqs: this.#left?.seqs ?? [], value: undefined }
  }

  async #duplicate({ sessionId, turn, attempt, endSeq }: Omit<EarlierRequest, 'state'>): Promise<TurnResult<R>> {
    const value = (await this.#tools.port.valueOf(sessionId, endSeq)) as R | undefined
    const { requestId } = this.#options.request
    return { outcome: 'duplicate', turn, sessionId, requestId, attempt, seqs: this.#left?.seqs ?? [], value }
  }

  /** The caller has his answer meanwhile. */
  async #answerTheRest(): Promise<void> {
    try {
      await this.#round.answerTheRest(() => this.#leaseForMore(), this.#options.request)
    } catch (error) {
      this.#tools.report({ event: 'left-unanswered', ...this.#about, error })
    } finally {
      await this.#giveBack()
    }
  }

  /** One that has expired would not be ours for as long as a turn may take. */
  async #leaseForMore(): Promise<TurnLease | undefined> {
    if (!this.#round.expired) return this.#lease
    await this.#letGoOfLease()
    return this.#tryLease()
  }

  async #giveBack(): Promise<void> {
    for (let back = this.#held.pop(); back; back = this.#held.pop()) {
      try {
        await back()
      } catch (error) {
        // The lease is another's or expires; what was committed stands.
        this.#tools.report({ event: 'release-failed', ...this.#about, error })
      }
    }
  }

  readonly #events: LeaseEvents = {
    onLost: (reason) => this.#round.active?.abort(reason),
    onExpired: () => this.#round.active?.expire(),
    onInterrupt: (by) => this.#round.active?.interrupt(by),
  }

  /** An input whose caller has gone before any turn took it, goes too: it never runs later (F41). */
  async #givenUp(error: unknown): Promise<unknown> {
    if (this.#begun || !this.#left || this.#left.earlier) return error
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

function nothing(): void {}

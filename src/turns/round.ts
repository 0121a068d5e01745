/** One turn after another under one lease: the request's own, then, while others have left messages that nobody waits to answer, turns for
 *  those. So what came between the last `pending()` and the end is not stranded (F34). */
import type { BegunTurn, RequestFacts, Soon, StartedTurn, TurnLease, TurnPort } from '../backend.js'
import { isStoreError, withEffectUnknown } from '../errors.js'
import type { Turn, TurnResult } from '../types.js'
import { ActiveTurn, type TurnTools } from './active-turn.js'
import type { Lanes } from './lanes.js'

export type Work<R> = (turn: Turn) => Promise<R> | R

export interface VisitTools extends TurnTools {
  readonly port: TurnPort
  readonly lanes: Lanes
  freshId(): string
  /** The turn of this process that is active on the key. */
  active(key: string): ActiveTurn | undefined
  activate(key: string, turn: ActiveTurn | undefined): void
  /** The store is being closed, and no more turns are begun. */
  stopping(): boolean
  /** What goes on after the caller has its answer. */
  background(work: Promise<void>): void
  /** Asks the active turn of the key, wherever it is, to stop. False when there is none. */
  interrupt(key: string, by: string): Promise<boolean>
  report(message: Readonly<Record<string, unknown>>): void
}

export class Round<R> {
  readonly #key: string
  readonly #work: Work<R>
  readonly #tools: VisitTools
  readonly #othersWait: () => Soon<boolean>
  #turn: ActiveTurn | undefined
  #left = false
  /** The log would not have its end. */
  #lost = false
  #expired = false

  constructor(key: string, work: Work<R>, tools: VisitTools, othersWait: () => Soon<boolean>) {
    this.#key = key
    this.#work = work
    this.#tools = tools
    this.#othersWait = othersWait
  }

  get active(): ActiveTurn | undefined {
    return this.#turn
  }

  /** Somebody may have left something that this round has to see to. */
  get left(): boolean {
    return this.#left && !this.#tools.stopping()
  }

  /** Its lease is not to be relied on for another turn. */
  get expired(): boolean {
    return this.#expired
  }

  /** Runs the function and writes down how it ended. @returns what the function has returned. @throws what it threw · as `TurnLease.end` */
  async run(lease: TurnLease, begun: StartedTurn, request: RequestFacts, signal: AbortSignal | undefined): Promise<TurnResult<R>> {
    const turn = new ActiveTurn(lease, begun, request, signal, this.#tools)
    this.#turn = turn
    this.#lost = false
    this.#tools.activate(this.#key, turn)
    this.#tools.report({ event: 'started', ...turn.about })
    try {
      const { ending, result } = await turn.run(this.#work)
      // Nobody may be told how it ended before that is in the log.
      result.catch(() => {})
      await this.#end(lease, turn, request, ending)
      this.#tools.report({ event: ending.outcome, ...turn.about })
      return await result
    } finally {
      this.#turn = undefined
      this.#tools.activate(this.#key, undefined)
      turn.settled()
    }
  }

  async #end(lease: TurnLease, turn: ActiveTurn, request: RequestFacts, ending: Parameters<TurnLease['end']>[2]): Promise<void> {
    this.#expired = turn.expired
    try {
      const { left } = await lease.end(turn.started, request, ending)
      // Whoever has interrupted it goes next, and takes what is left.
      this.#left = left > 0 && !(turn.interrupted && (await this.#othersWait()))
    } catch (error) {
      // Its session was rotated, perhaps, and what waits goes on in the new one.
      this.#left = isStoreError(error, 'TURN_LOST')
      this.#lost = true
      this.#tools.report({ event: 'lost', ...turn.about, error })
      // Nothing of its end is there; what it had appended, its start and its input are.
      throw isStoreError(error) && error.effect === 'none' ? withEffectUnknown(error, 'What the turn had appended before stands.') : error
    }
  }

  /** @param lease  asked for before each turn; undefined when somebody else has it by now, who takes what is left. */
  async answerTheRest(lease: () => Promise<TurnLease | undefined>, { lane, channelId }: RequestFacts): Promise<void> {
    while (this.left) {
      this.#left = false
      const request: RequestFacts = { requestId: this.#tools.freshId(), given: false, lane, channelId, whenBusy: 'queue' }
      const held = await lease()
      const begun: BegunTurn | undefined = await held?.beginForLeft(request)
      if (!held || begun?.kind !== 'started') return
      // What the function threw is in the log. When the log would not have it, that has been reported.
      await this.run(held, begun, request, undefined).catch(() => {})
      if (this.#lost) return
    }
  }
}

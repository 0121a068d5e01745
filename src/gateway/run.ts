/** One chat request and its turn: input in, model asked, reply stored, answer out. What happens at which moment:
 *
 *  1 the input is appended, durably, by the store, before it waits for the turn. A client that goes while it waits takes its input with it
 *  2 the turn begins: see work.ts
 *  3 the turn ends, and only now is the request answered to its end
 *
 *  Broken off in 2 (the client is gone, the model fails, time is over, somebody interrupts): what was said is appended, marked `interrupted`, and the
 *  turn ends as interrupted or failed. What others leave in the last moment is answered in a turn of its own, after the request. */
import { isStoreError, type Turn, type TurnOptions, type TurnResult } from '../index.js'
import type { Caller } from './caller.js'
import { type Answer, answerOf, joined } from './completion.js'
import { ChatError, type Failure, failureOf, isGone } from './failure.js'
import { partsOf, takeIn } from './intake.js'
import type { ChatDelta, ChatMessage, ChatModel } from './model.js'
import type { CheckedChatOptions } from './options.js'
import type { ChatRequest } from './request.js'
import { TurnWork } from './work.js'

export interface RunInput {
  readonly options: CheckedChatOptions
  readonly chat: ChatRequest
  readonly caller: Caller
  readonly modelName: string
  readonly model: ChatModel
  readonly created: number
  readonly fingerprint: string
  readonly onBegin: (turn: Turn) => void
  readonly onPiece: (delta: ChatDelta) => void
  /** A turn for what others have left has ended, after this request's own. */
  readonly onLeft: (turn: Turn, failure: Failure | undefined, finishReason: string | undefined) => void
}

export type Outcome =
  /** replayed: by an earlier try of the same request. */
  | { readonly kind: 'answered'; readonly result: TurnResult; readonly answer: Answer; readonly replayed: boolean }
  | { readonly kind: 'coalesced'; readonly result: TurnResult }
  | { readonly kind: 'failed'; readonly failure: Failure; readonly interrupted: boolean }

/** How often a second try may find that the first one, which it has joined, was given up by its client. */
const joinsMax = 10

export class ChatRun {
  /** Never rejects. */
  readonly outcome: Promise<Outcome>
  #input: RunInput
  #abort = new AbortController()
  #turn: Turn | undefined
  #work: TurnWork | undefined
  #abandon!: (outcome: Outcome) => void
  #abandonTimer: NodeJS.Timeout | undefined

  constructor(input: RunInput) {
    this.#input = input
    const abandoned = new Promise<Outcome>((resolve) => {
      this.#abandon = resolve
    })
    this.#abort.signal.addEventListener('abort', () => this.#abandonLater(this.#abort.signal.reason), { once: true })
    this.outcome = Promise.race([this.#run(), abandoned]).finally(() => clearTimeout(this.#abandonTimer))
  }

  /** Undefined until it has begun. */
  get turn(): Turn | undefined {
    return this.#turn
  }

  abort(reason: ChatError): void {
    this.#abort.abort(reason)
  }

  async #run(): Promise<Outcome> {
    const { options, chat, caller } = this.#input
    try {
      const parts = partsOf(chat.messages)
      const input = await takeIn(options.store, caller.key, parts)
      this.#abort.signal.throwIfAborted()
      return this.#outcomeOf(await this.#runTurn(input, parts.system))
    } catch (error) {
      return this.#failed(error)
    }
  }

  async #runTurn(input: readonly ChatMessage[], system: readonly ChatMessage[]): Promise<TurnResult> {
    const { options, caller } = this.#input
    const { lane, maxTurnMs, waitMs } = options
    const { requestId, channelId, whenBusy } = caller
    const turnOptions: TurnOptions = {
      requestId,
      channelId,
      lane,
      whenBusy,
      maxTurnMs,
      waitMs,
      signal: this.#abort.signal,
      input: input.map((message) => ({ type: 'message', message })),
    }
    const work = (turn: Turn): Promise<Answer | undefined> =>
      turn.requestId === requestId ? this.#own(turn, system) : this.#left(turn, system)
    for (let joins = 0; ; joins++) {
      try {
        return await options.store.runTurn(caller.key, turnOptions, work)
      } catch (error) {
        // The try that this one has joined was broken off, since its client has gone. This one's has not.
        if (!isGone(error) || this.#abort.signal.aborted || joins === joinsMax) throw error
      }
    }
  }

  async #own(turn: Turn, system: readonly ChatMessage[]): Promise<Answer | undefined> {
    const { caller, onBegin, onPiece } = this.#input
    this.#turn = turn
    this.#work = this.#workOf(turn, system, caller.idempotent, onPiece, (reason) => this.#abandonLater(reason))
    onBegin(turn)
    await this.#work.run()
    // Kept only where somebody may ask for it: the reply is in the transcript already.
    return caller.idempotent ? this.#answer(this.#work) : undefined
  }

  /** What others have left in the last moment, too late to be a part of this request's answer (F34). */
  async #left(turn: Turn, system: readonly ChatMessage[]): Promise<undefined> {
    const work = this.#workOf(turn, system, false, nothing, nothing)
    try {
      await work.run()
      this.#input.onLeft(turn, undefined, work.replies.at(-1)?.finishReason)
      return undefined
    } catch (error) {
      this.#input.onLeft(turn, failureOf(error, true), undefined)
      throw error
    }
  }

  #workOf(
    turn: Turn,
    system: readonly ChatMessage[],
    idempotent: boolean,
    onPiece: (delta: ChatDelta) => void,
    onAbort: (reason: unknown) => void,
  ): TurnWork {
    const { options, model, modelName, chat } = this.#input
    return new TurnWork({ options, model, modelName, params: chat.params, system, idempotent, onPiece, onAbort }, turn)
  }

  #answer(work: TurnWork): Answer {
    const { created, modelName: model, fingerprint } = this.#input
    return { created, model, fingerprint, ...joined(work.replies) }
  }

  #outcomeOf(result: TurnResult): Outcome {
    if (result.outcome === 'coalesced') return { kind: 'coalesced', result }
    if (this.#work && result.turn === this.#turn?.turn)
      return { kind: 'answered', result, answer: this.#answer(this.#work), replayed: false }
    const answer = answerOf(result.value)
    if (!answer)
      throw new ChatError(409, 'no_stored_reply', 'This request was answered before; its reply was not kept.', { retryable: false })
    if (answer.fingerprint !== this.#input.fingerprint)
      throw new ChatError(422, 'idempotency_key_reused', 'This idempotency key was used for another request.', { param: 'idempotency-key' })
    return { kind: 'answered', result, answer, replayed: true }
  }

  #failed(error: unknown): Outcome {
    const interrupted = this.#turn?.signal.aborted === true
    return { kind: 'failed', failure: failureOf(interruptionOr(error), this.#turn !== undefined), interrupted }
  }

  /** The turn stays until the model has settled. Its client does not have to. */
  #abandonLater(reason: unknown): void {
    this.#abandonTimer ??= setTimeout(() => this.#abandon(this.#failed(reason)), this.#input.options.settleMs)
  }
}

/** For the client, an interruption is not the same as a turn that was lost to a takeover. */
function interruptionOr(error: unknown): unknown {
  if (!isStoreError(error, 'TURN_LOST') || error.details.interruptedBy === undefined) return error
  return new ChatError(409, 'turn_interrupted', 'The turn was interrupted by another request of this session, or by an operator.', {
    retryable: false,
    cause: error,
  })
}

function nothing(): void {}

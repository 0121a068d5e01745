/** One chat request and its turn: input in, model asked, reply stored. What happens at which moment:
 *
 *  1 the input is appended, durably, by the store, before it waits for the turn
 *  2 the turn begins: what others left for it is taken, the history read, the model asked
 *  3 the reply is appended; then, if others have left something meanwhile, back to the history
 *  4 the turn ends, and only now is the request answered to its end
 *
 *  Broken off between 2 and 3 (the client is gone, the model fails, time is over, somebody interrupts): what was said is appended, marked
 *  `interrupted`, and the turn ends as interrupted or failed. A crash there loses what was said, never the input: it is the next turn's. */
import { isStoreError, type Turn, type TurnResult } from '../index.js'
import type { Caller } from './caller.js'
import { type Answer, answerOf, joined, type Reply, replySeparator } from './completion.js'
import { ChatError, type Failure, failureOf } from './failure.js'
import { historyOf } from './history.js'
import { partsOf, takeIn } from './intake.js'
import type { ChatDelta, ChatMessage, ChatModel } from './model.js'
import type { CheckedChatOptions } from './options.js'
import { askModel } from './reply.js'
import type { ChatRequest } from './request.js'

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
}

export type Outcome =
  /** replayed: by an earlier try of the same request. */
  | { readonly kind: 'answered'; readonly result: TurnResult; readonly answer: Answer; readonly replayed: boolean }
  | { readonly kind: 'coalesced'; readonly result: TurnResult }
  | { readonly kind: 'failed'; readonly failure: Failure; readonly interrupted: boolean }

const heartbeatMs = 1_000

export class ChatRun {
  /** Never rejects. */
  readonly outcome: Promise<Outcome>
  #input: RunInput
  #abort = new AbortController()
  #turn: Turn | undefined
  #replies: Reply[] = []
  #beatAt = 0
  #abandon!: (outcome: Outcome) => void
  #abandonTimer: NodeJS.Timeout | undefined

  constructor(input: RunInput) {
    this.#input = input
    const abandoned = new Promise<Outcome>((resolve) => {
      this.#abandon = resolve
    })
    this.#abort.signal.addEventListener('abort', () => this.#abandonLater(this.#abort.signal), { once: true })
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
      const { lane, maxTurnMs, waitMs } = options
      const { requestId, channelId, whenBusy } = caller
      const result = await options.store.runTurn(
        caller.key,
        {
          requestId,
          channelId,
          lane,
          whenBusy,
          maxTurnMs,
          waitMs,
          signal: this.#abort.signal,
          input: input.map((message) => ({ type: 'message', message })),
        },
        (turn) => this.#work(turn, parts.system),
      )
      return this.#outcomeOf(result)
    } catch (error) {
      return this.#failed(error)
    }
  }

  async #work(turn: Turn, system: readonly ChatMessage[]): Promise<Answer | undefined> {
    this.#turn = turn
    turn.signal.addEventListener('abort', () => this.#abandonLater(turn.signal), { once: true })
    this.#input.onBegin(turn)
    await turn.pending()
    do {
      const history = historyOf(await turn.tail(this.#input.options.historyMax))
      const separate = this.#replies.length > 0
      this.#replies.push(await this.#reply(turn, [...system, ...history], separate))
      // A reply that calls tools is answered by its client; what has been left meanwhile stays for the turn that brings the results.
    } while (!this.#callsTools() && (await turn.pending()).length > 0)
    // Kept only where somebody may ask for it: the reply is in the transcript already.
    return this.#input.caller.idempotent ? this.#answer() : undefined
  }

  async #reply(turn: Turn, messages: readonly ChatMessage[], separate: boolean): Promise<Reply> {
    const { options, chat, caller, modelName, model } = this.#input
    let first = separate
    const { reply, unsaid } = await askModel({
      model,
      messages,
      replyMs: options.replyMs,
      replyBytesMax: options.replyBytesMax,
      abort: (reason) => this.abort(reason),
      onPiece: (delta) => {
        this.#beat(turn)
        if (first) this.#input.onPiece({ content: replySeparator })
        first = false
        this.#input.onPiece(delta)
      },
      context: {
        signal: turn.signal,
        model: modelName,
        key: turn.key,
        sessionId: turn.sessionId,
        turn: turn.turn,
        attempt: turn.attempt,
        requestId: caller.requestId,
        channelId: caller.channelId,
        params: chat.params,
      },
      keep: async (message, why) => {
        await turn.append({ type: 'message', message, model: modelName, interrupted: true, why })
      },
    })
    const { message, finishReason, usage } = reply
    await turn.append({ type: 'message', message, model: modelName, finishReason, ...(usage ? { usage } : {}) })
    for (const delta of unsaid) {
      if (first) this.#input.onPiece({ content: replySeparator })
      first = false
      this.#input.onPiece(delta)
    }
    return reply
  }

  /** Tokens are progress. */
  #beat(turn: Turn): void {
    const now = performance.now()
    if (now - this.#beatAt < heartbeatMs) return
    this.#beatAt = now
    turn.heartbeat()
  }

  #callsTools(): boolean {
    return (this.#replies.at(-1)?.message.tool_calls?.length ?? 0) > 0
  }

  #answer(): Answer {
    const { created, modelName: model, fingerprint } = this.#input
    return { created, model, fingerprint, ...joined(this.#replies) }
  }

  #outcomeOf(result: TurnResult): Outcome {
    if (result.outcome === 'coalesced') return { kind: 'coalesced', result }
    if (result.outcome !== 'duplicate') return { kind: 'answered', result, answer: this.#answer(), replayed: false }
    const answer = answerOf(result.value)
    if (!answer)
      throw new ChatError(409, 'no_stored_reply', 'This request was answered before; its reply was not kept.', { retryable: false })
    if (answer.fingerprint !== this.#input.fingerprint)
      throw new ChatError(422, 'idempotency_key_reused', 'This idempotency key was used for another request.', { param: 'idempotency-key' })
    return { kind: 'answered', result, answer, replayed: true }
  }

  #failed(error: unknown): Outcome {
    const lost = this.#turn?.signal.aborted === true
    return { kind: 'failed', failure: failureOf(lost ? this.#whyAborted(error) : error, this.#turn !== undefined), interrupted: lost }
  }

  /** Our own reasons and the store's errors say themselves what they are; anything else that ends a turn from outside is an interruption. */
  #whyAborted(error: unknown): unknown {
    const reason: unknown = this.#turn?.signal.reason
    if (this.#abort.signal.aborted || isStoreError(reason) || error !== reason) return error
    return new ChatError(409, 'turn_interrupted', 'The turn was interrupted by another request of this session, or by an operator.', {
      retryable: false,
      cause: reason,
    })
  }

  /** The turn stays until the model has settled. Its client does not have to. */
  #abandonLater(signal: AbortSignal): void {
    this.#abandonTimer ??= setTimeout(() => this.#abandon(this.#failed(signal.reason)), this.#input.options.settleMs)
  }
}

/** What is done in one turn: take what others have left, read the history, ask the model, append the reply; and again while somebody has left something.
 *
 *  A crash between the appended reply and the end of the turn makes the request run again, if it has an idempotency key: the reply is found then, by
 *  that key, and not asked for twice. A crash before it loses what was said, never the input. */
import type { StoredRecord, Turn } from '../index.js'
import type { Reply } from './completion.js'
import { replySeparator } from './completion.js'
import type { ChatError } from './failure.js'
import { historyOf, messageOf } from './history.js'
import type { AssistantMessage, ChatDelta, ChatMessage, ChatModel, ChatUsage } from './model.js'
import type { CheckedChatOptions } from './options.js'
import { askModel } from './reply.js'
import { piecesOf } from './said.js'

export interface WorkInput {
  readonly options: Pick<CheckedChatOptions, 'historyMax' | 'replyMs' | 'replyBytesMax'>
  readonly model: ChatModel
  readonly modelName: string
  readonly params: Readonly<Record<string, unknown>>
  readonly system: readonly ChatMessage[]
  /** The request may come again. */
  readonly idempotent: boolean
  readonly onPiece: (delta: ChatDelta) => void
  /** The model's signal has aborted; it has not settled yet. */
  readonly onAbort: (reason: unknown) => void
}

const heartbeatMs = 1_000

export class TurnWork {
  readonly replies: Reply[] = []
  #input: WorkInput
  #turn: Turn
  #beatAt = 0

  constructor(input: WorkInput, turn: Turn) {
    this.#input = input
    this.#turn = turn
  }

  /** @throws what the model throws, what the store throws, or the reason of the turn's signal. */
  async run(): Promise<void> {
    const turn = this.#turn
    await turn.pending()
    do {
      const records = await turn.tail(this.#input.options.historyMax, { compacted: true })
      if (this.replies.length === 0 && turn.attempt > 1 && this.#foundAll(records)) continue
      await this.#reply([...this.#input.system, ...historyOf(records)])
      // A reply that calls tools is answered by its client; what has been left meanwhile stays for the turn that brings the results.
    } while (!this.#callsTools() && (await turn.pending()).length > 0)
  }

  /** The replies of an earlier try of this request. @returns whether nothing is left to be answered. */
  #foundAll(records: readonly StoredRecord[]): boolean {
    const messages = records.filter(({ record }) => messageOf(record) !== undefined)
    const mine = messages.filter(({ record }) => record.requestId === this.#turn.requestId && record.interrupted !== true)
    for (const { record } of mine) {
      const { message, finishReason, usage } = record as { message: AssistantMessage; finishReason: string; usage?: ChatUsage }
      this.#hand(piecesOf(message))
      this.replies.push({ message, finishReason, usage })
    }
    return mine.length > 0 && mine.at(-1) === messages.at(-1)
  }

  async #reply(messages: readonly ChatMessage[]): Promise<void> {
    const { options, modelName, model } = this.#input
    const turn = this.#turn
    const over = this.#whenOver()
    const pieces = this.#separating()
    try {
      const { reply, unsaid } = await askModel({
        model,
        messages,
        replyMs: options.replyMs,
        replyBytesMax: options.replyBytesMax,
        context: this.#context(over.signal),
        abort: over.abort,
        onPiece: (delta) => {
          this.#beat()
          pieces(delta)
        },
        keep: async (message, why) => {
          await turn.append({ type: 'message', message, model: modelName, interrupted: true, why })
        },
      })
      const { message, finishReason, usage } = reply
      const by = this.#input.idempotent ? { requestId: turn.requestId } : {}
      await turn.append({ type: 'message', message, model: modelName, finishReason, ...(usage ? { usage } : {}), ...by })
      for (const delta of unsaid) pieces(delta)
      this.replies.push(reply)
    } finally {
      over.stop()
    }
  }

  #context(signal: AbortSignal) {
    const { key, sessionId, turn, attempt, requestId, channelId } = this.#turn
    const { modelName: model, params } = this.#input
    return { signal, model, key, sessionId, turn, attempt, requestId, channelId, params }
  }

  /** Aborts with the turn; and, without ending that as interrupted, when the model's time is over. */
  #whenOver(): { readonly signal: AbortSignal; readonly abort: (reason: ChatError) => void; stop(): void } {
    const controller = new AbortController()
    const { signal } = this.#turn
    controller.signal.addEventListener('abort', () => this.#input.onAbort(controller.signal.reason), { once: true })
    const follow = () => controller.abort(signal.reason)
    if (signal.aborted) follow()
    signal.addEventListener('abort', follow, { once: true })
    return {
      signal: controller.signal,
      abort: (reason) => controller.abort(reason),
      stop: () => signal.removeEventListener('abort', follow),
    }
  }

  #hand(pieces: readonly ChatDelta[]): void {
    const hand = this.#separating()
    for (const delta of pieces) hand(delta)
  }

  /** Hands on the pieces of one reply, apart from the one before. */
  #separating(): (delta: ChatDelta) => void {
    let separate = this.replies.length > 0
    return (delta) => {
      if (separate) this.#input.onPiece({ content: replySeparator })
      separate = false
      this.#input.onPiece(delta)
    }
  }

  /** Tokens are progress. */
  #beat(): void {
    const now = performance.now()
    if (now - this.#beatAt < heartbeatMs) return
    this.#beatAt = now
    this.#turn.heartbeat()
  }

  #callsTools(): boolean {
    return (this.replies.at(-1)?.message.tool_calls?.length ?? 0) > 0
  }
}

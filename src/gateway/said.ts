/** What a model has said so far, put together from its pieces. */
import { type AssistantMessage, type ChatDelta, type ToolCall, type ToolCallDelta, textOf } from './model.js'

interface ToolCallSaid {
  id: string
  type: string
  name: string
  arguments: string
}

/** What a chunk costs beyond its content, about: id, model, brackets. */
const envelopeBytes = 256

export class Said {
  #text = ''
  #refusal = ''
  #toolCalls = new Map<number, ToolCallSaid>()
  /** At least what all pieces cost in memory, were they kept as they came. */
  bytes = 0

  add(delta: ChatDelta): void {
    if (typeof delta.content === 'string') this.#text += delta.content
    if (typeof delta.refusal === 'string') this.#refusal += delta.refusal
    for (const call of delta.tool_calls ?? []) this.#addCall(call)
    this.bytes += isPlainText(delta) ? delta.content.length : JSON.stringify(delta).length + envelopeBytes
  }

  #addCall({ index, id, type, function: named }: ToolCallDelta): void {
    const call = this.#toolCalls.get(index) ?? { id: '', type: 'function', name: '', arguments: '' }
    if (id) call.id = id
    if (type) call.type = type
    call.name += named?.name ?? ''
    call.arguments += named?.arguments ?? ''
    this.#toolCalls.set(index, call)
  }

  get text(): string {
    return this.#text
  }

  get refusal(): string {
    return this.#refusal
  }

  /** The whole message: right only when the model has come to its end. */
  message(): AssistantMessage {
    const toolCalls: ToolCall[] = [...this.#toolCalls]
      .sort(([a], [b]) => a - b)
      .map(([, { id, type, name, arguments: text }]) => ({ id, type, function: { name, arguments: text } }))
    return {
      role: 'assistant',
      content: this.#text === '' && (toolCalls.length > 0 || this.#refusal !== '') ? null : this.#text,
      ...(this.#refusal === '' ? {} : { refusal: this.#refusal }),
      ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls }),
    }
  }

  /** What is worth keeping of a reply that was broken off: the words. Half a tool call is of no use to anybody. */
  partial(): AssistantMessage | undefined {
    if (this.#text === '' && this.#refusal === '') return undefined
    return { role: 'assistant', content: this.#text, ...(this.#refusal === '' ? {} : { refusal: this.#refusal }) }
  }
}

/** Such pieces may be joined while a reader is slow. */
export function isPlainText(delta: ChatDelta): delta is { readonly content: string } {
  return typeof delta.content === 'string' && Object.keys(delta).length === 1
}

/** A whole message as pieces, for those who ask for a stream and get what was said before. */
export function piecesOf(message: AssistantMessage): ChatDelta[] {
  const { content, refusal, tool_calls: calls } = message
  const text = textOf(content)
  return [
    ...(text === '' ? [] : [{ content: text }]),
    ...(typeof refusal === 'string' && refusal !== '' ? [{ refusal }] : []),
    ...(calls && calls.length > 0 ? [{ tool_calls: calls.map((call: ToolCall, index) => ({ ...call, index })) }] : []),
  ]
}

/** One call of a model: its pieces handed on, its reply brought into one form, within a time and a size. */
import type { Reply } from './completion.js'
import { ChatError } from './failure.js'
import {
  type AssistantMessage,
  type ChatDelta,
  type ChatMessage,
  type ChatModel,
  type ChatReply,
  type ModelContext,
  textOf,
} from './model.js'
import { Said } from './said.js'

export interface Ask {
  readonly model: ChatModel
  readonly messages: readonly ChatMessage[]
  readonly context: Omit<ModelContext, 'onToken'>
  readonly replyMs: number
  readonly replyBytesMax: number
  /** Ends the turn; `context.signal` aborts. */
  readonly abort: (reason: ChatError) => void
  readonly onPiece: (delta: ChatDelta) => void
  /** Stores what was said of a reply that was broken off. */
  readonly keep: (message: AssistantMessage, why: string) => Promise<void>
}

export interface Asked {
  readonly reply: Reply
  /** What the reply has that was not said piece by piece. */
  readonly unsaid: readonly ChatDelta[]
}

/** @throws whatever the model throws, or the reason of the signal; what was said until then has been kept. */
export async function askModel(ask: Ask): Promise<Asked> {
  const { signal } = ask.context
  const said = new Said()
  let open = true
  const onToken = (token: string | ChatDelta) => {
    const delta = typeof token === 'string' ? { content: token } : token
    if (!open || signal.aborted || delta.content === '') return
    said.add(delta)
    if (said.bytes > ask.replyBytesMax) ask.abort(tooLong(ask.replyBytesMax))
    else ask.onPiece(delta)
  }
  const late = () => ask.abort(new ChatError(504, 'model_timeout', `The model did not come to an end within ${ask.replyMs} ms.`))
  const timer = setTimeout(late, ask.replyMs)
  let returned: Awaited<ReturnType<ChatModel>> | undefined
  try {
    signal.throwIfAborted()
    returned = await ask.model(ask.messages, { ...ask.context, onToken })
    signal.throwIfAborted()
    const reply = replyOf(returned, said)
    if (JSON.stringify(reply.message).length > ask.replyBytesMax) throw tooLong(ask.replyBytesMax)
    return { reply, unsaid: unsaidOf(reply.message, said) }
  } catch (error) {
    open = false
    const why: unknown = signal.aborted ? signal.reason : error
    const partial = said.partial() ?? partialOf(returned)
    if (partial) await keepQuietly(ask, partial, why)
    throw why
  } finally {
    open = false
    clearTimeout(timer)
  }
}

/** That it could not be kept (the turn was taken over, the disk is full) must not hide why it was broken off. */
async function keepQuietly(ask: Ask, partial: AssistantMessage, why: unknown): Promise<void> {
  try {
    await ask.keep(partial, whyOf(why))
  } catch {
    // The turn's own end will meet the same obstacle, and says so.
  }
}

const whyOf = (why: unknown) => {
  const { code, name } = (why ?? {}) as { code?: unknown; name?: unknown }
  return typeof code === 'string' ? code : typeof name === 'string' ? name : 'aborted'
}

function tooLong(replyBytesMax: number): ChatError {
  return new ChatError(502, 'reply_too_long', `The model said more than ${replyBytesMax} bytes.`, { retryable: false })
}

function replyOf(returned: Awaited<ReturnType<ChatModel>>, said: Said): Reply {
  const given: ChatReply = typeof returned === 'string' || isMessage(returned) ? { message: returned } : (returned ?? {})
  const message = typeof given.message === 'string' ? assistant(given.message) : (given.message ?? said.message())
  if (!isMessage(message)) throw new TypeError('The model returned neither text nor an assistant message.')
  const callsTools = (message.tool_calls?.length ?? 0) > 0
  return { message, finishReason: given.finishReason ?? (callsTools ? 'tool_calls' : 'stop'), usage: given.usage }
}

const assistant = (content: string): AssistantMessage => ({ role: 'assistant', content })

function isMessage(value: unknown): value is AssistantMessage {
  if (typeof value !== 'object' || value === null || (value as ChatMessage).role !== 'assistant') return false
  const { content } = value as ChatMessage
  return content === undefined || content === null || typeof content === 'string' || Array.isArray(content)
}

/** Of a model that says nothing piece by piece, and has heeded its signal by returning what it had. */
function partialOf(returned: Awaited<ReturnType<ChatModel>>): AssistantMessage | undefined {
  const message = typeof returned === 'string' || isMessage(returned) ? returned : returned?.message
  const text = typeof message === 'string' ? message : textOf(message?.content)
  return text === '' ? undefined : assistant(text)
}

function unsaidOf(message: AssistantMessage, said: Said): ChatDelta[] {
  const text = textOf(message.content)
  const before = said.message()
  const rest = text.startsWith(said.text) ? text.slice(said.text.length) : ''
  const calls = before.tool_calls ? [] : (message.tool_calls ?? [])
  const refusal = said.refusal === '' && typeof message.refusal === 'string' ? message.refusal : ''
  return [
    ...(rest === '' ? [] : [{ content: rest }]),
    ...(refusal === '' ? [] : [{ refusal }]),
    ...(calls.length === 0 ? [] : [{ tool_calls: calls.map((call, index) => ({ ...call, index })) }]),
  ]
}

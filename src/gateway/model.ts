/** What the gateway calls a model: a function from messages to a reply. Everything else (history, turns, streaming, storing) is done around it. */

export interface ToolCall {
  readonly id: string
  readonly type?: string
  readonly [field: string]: unknown
}

/** As in the OpenAI chat API. Fields that are not named here are passed on and stored as they are. */
export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant' | 'tool' | 'function'
  readonly content?: string | readonly { readonly type: string; readonly [field: string]: unknown }[] | null | undefined
  readonly tool_calls?: readonly ToolCall[] | undefined
  readonly tool_call_id?: string | undefined
  readonly [field: string]: unknown
}

export interface AssistantMessage extends ChatMessage {
  readonly role: 'assistant'
}

/** A piece of a reply, as in the `delta` of a chunk. Tool calls come in pieces, put together by their `index`. */
export interface ChatDelta {
  readonly content?: string | null | undefined
  readonly refusal?: string | null | undefined
  readonly tool_calls?: readonly ToolCallDelta[] | undefined
  readonly [field: string]: unknown
}

export interface ToolCallDelta {
  readonly index: number
  readonly id?: string | undefined
  readonly type?: string | undefined
  readonly function?: { readonly name?: string | undefined; readonly arguments?: string | undefined } | undefined
}

export interface ChatUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
  readonly [field: string]: unknown
}

export interface ChatReply {
  /** Default: what was said through `onToken`. */
  readonly message?: string | AssistantMessage | undefined
  /** Default `tool_calls` when there are any, else `stop`. */
  readonly finishReason?: string | undefined
  readonly usage?: ChatUsage | undefined
}

export interface ModelContext {
  /** Aborts when nobody wants the reply any more, or its time is over. The conversation stays busy until the model has settled, so obey it. */
  readonly signal: AbortSignal
  /** Hands on a piece of the reply as soon as it is there. Pieces should add up to what is returned; what is returned is what is stored. */
  readonly onToken: (token: string | ChatDelta) => void
  /** The model name that the request asked for, or the first one's. */
  readonly model: string
  readonly key: string
  readonly sessionId: string
  readonly turn: number
  readonly attempt: number
  readonly requestId: string
  readonly channelId: string | undefined
  /** Everything else of the request: temperature, tools, response_format, … as it came. */
  readonly params: Readonly<Record<string, unknown>>
}

/** Gets the request's system and developer messages, then the conversation, the new input at its end. Returns the reply, or nothing when
 *  all of it went through `onToken`. Throw a ChatError to say what the client shall see; anything else is a 502 without details. */
export type ChatModel = (
  messages: readonly ChatMessage[],
  context: ModelContext,
  // biome-ignore lint/suspicious/noConfusingVoidType: an async function without a return statement is a fine model.
) => Promise<string | AssistantMessage | ChatReply | void>

/** The words of a message, whatever else is in it. */
export function textOf(content: ChatMessage['content']): string {
  if (typeof content === 'string') return content
  const parts = content ?? []
  return parts.map((part) => (typeof part.text === 'string' ? part.text : '')).join('')
}

/** What a request is answered with, in the shapes of the OpenAI chat API: a completion, or chunks. */
import { z } from 'zod'
import type { AssistantMessage, ChatDelta, ChatUsage } from './model.js'
import { textOf } from './model.js'

/** All that a turn has said, and what a second try of the same request gets: the turn's value in the store. */
export interface Answer {
  readonly created: number
  readonly model: string
  readonly message: AssistantMessage
  readonly finishReason: string
  readonly usage: ChatUsage | undefined
  /** Of the request, so that its idempotency key is not taken for another's. */
  readonly fingerprint: string
}

const answer = z.object({
  created: z.number(),
  model: z.string(),
  message: z.looseObject({ role: z.literal('assistant') }),
  finishReason: z.string(),
  usage: z.looseObject({}).optional(),
  fingerprint: z.string(),
})

/** The value of an earlier turn; undefined when it was not the gateway's. */
export function answerOf(value: unknown): Answer | undefined {
  const result = answer.safeParse(value)
  return result.success ? (result.data as unknown as Answer) : undefined
}

export interface Reply {
  readonly message: AssistantMessage
  readonly finishReason: string
  readonly usage: ChatUsage | undefined
}

/** Between replies of one turn, which has more than one when others left their messages for it. */
export const replySeparator = '\n\n'

/** Several replies as one: a request is answered with one message. Stored are all of them. */
export function joined(replies: readonly Reply[]): Reply {
  const last = replies[replies.length - 1]!
  if (replies.length === 1) return last
  const texts = replies.map(({ message }) => textOf(message.content)).filter((text) => text !== '')
  return {
    message: { ...last.message, content: texts.length === 0 ? (last.message.content ?? null) : texts.join(replySeparator) },
    finishReason: last.finishReason,
    usage: replies.map(({ usage }) => usage).reduce(sum),
  }
}

function sum(a: ChatUsage | undefined, b: ChatUsage | undefined): ChatUsage | undefined {
  if (!a || !b) return undefined
  const add = (name: 'prompt_tokens' | 'completion_tokens' | 'total_tokens') => a[name] + b[name]
  return { prompt_tokens: add('prompt_tokens'), completion_tokens: add('completion_tokens'), total_tokens: add('total_tokens') }
}

/** Which turn of which session answers; unknown to clients of the chat API, which leave such fields alone. */
export interface Origin {
  readonly session_key: string
  readonly session_id: string | undefined
  readonly turn: number | undefined
  readonly state: string
}

export interface Identity {
  readonly requestId: string
  readonly created: number
  readonly model: string
}

const completionId = ({ requestId }: Identity) => `chatcmpl-${requestId}`

export function completion(of: Identity, { message, finishReason, usage }: Reply, origin: Origin): object {
  return {
    id: completionId(of),
    object: 'chat.completion',
    created: of.created,
    model: of.model,
    choices: [{ index: 0, message: { refusal: null, ...message }, logprobs: null, finish_reason: finishReason }],
    ...(usage ? { usage } : {}),
    holdfast: origin,
  }
}

/** @param includeUsage  then every chunk says `usage`: null, but for the last one. */
export function chunkMaker(of: Identity, includeUsage: boolean) {
  const chunk = (choices: readonly object[], more: object = {}) => ({
    id: completionId(of),
    object: 'chat.completion.chunk',
    created: of.created,
    model: of.model,
    choices,
    ...(includeUsage ? { usage: null } : {}),
    ...more,
  })
  const choice = (delta: ChatDelta, finishReason: string | null) => ({ index: 0, delta, logprobs: null, finish_reason: finishReason })
  return {
    first: (origin: Origin) => chunk([choice({ role: 'assistant', content: '' }, null)], { holdfast: origin }),
    piece: (delta: ChatDelta) => chunk([choice(delta, null)]),
    finish: (reason: string, origin: Origin) => chunk([choice({}, reason)], { holdfast: origin }),
    usage: (usage: ChatUsage | undefined) => chunk([], { usage: usage ?? null }),
  }
}

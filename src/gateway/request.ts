/** The body of a chat request, checked as far as the gateway needs it. What it does not know is passed on to the model. */
import { z } from 'zod'
import { ChatError } from './failure.js'
import type { ChatMessage } from './model.js'

export const messagesMax = 10_000

const parts = z.array(z.looseObject({ type: z.string() }))
const content = z.union([z.string(), parts], 'must be a string or an array of parts')
const toolCalls = z.array(z.looseObject({ id: z.string(), type: z.string().optional() }))

const message = z.discriminatedUnion(
  'role',
  [
    z.looseObject({ role: z.literal('system'), content }),
    z.looseObject({ role: z.literal('developer'), content }),
    z.looseObject({ role: z.literal('user'), content }),
    z.looseObject({ role: z.literal('assistant'), content: content.nullish(), tool_calls: toolCalls.nullish() }),
    z.looseObject({ role: z.literal('tool'), content, tool_call_id: z.string() }),
    z.looseObject({ role: z.literal('function'), content: content.nullish(), name: z.string() }),
  ],
  'role must be system, developer, user, assistant, tool or function',
)

const chatRequest = z.looseObject({
  model: z.string().max(256).nullish(),
  messages: z.array(message).min(1, 'must not be empty').max(messagesMax),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  n: z.literal(1, 'must be 1: a conversation has one reply').nullish(),
  user: z.string().nullish(),
})

export interface ChatRequest {
  readonly model: string | undefined
  readonly messages: readonly ChatMessage[]
  readonly stream: boolean
  readonly includeUsage: boolean
  readonly user: string | undefined
  readonly params: Readonly<Record<string, unknown>>
}

/** @throws ChatError  400 with the path of what is wrong. */
export function checkRequest(body: unknown): ChatRequest {
  const result = chatRequest.safeParse(body)
  if (!result.success) {
    const issue = result.error.issues[0]
    const param = issue?.path.join('.')
    throw new ChatError(400, 'invalid_request', `${param || 'The body'}: ${issue?.message ?? 'not valid'}.`, { param: param || undefined })
  }
  const { model, messages, stream, stream_options, n: _, ...params } = result.data
  const last = messages.findLast(({ role }) => role !== 'system' && role !== 'developer')
  if (last === undefined || last.role === 'assistant')
    throw new ChatError(400, 'no_input', 'messages must end with what is to be answered: a user message or tool results.', {
      param: 'messages',
    })
  return {
    model: model ?? undefined,
    messages: messages as ChatMessage[],
    stream: stream ?? false,
    includeUsage: stream_options?.include_usage ?? false,
    user: params.user ?? undefined,
    params,
  }
}

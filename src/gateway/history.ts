/** From stored records to the messages that a model is shown. Decides, touches nothing. */
import type { StoredRecord } from '../index.js'
import type { AssistantMessage, ChatMessage } from './model.js'

const spoken = new Set<unknown>(['user', 'assistant', 'tool', 'function'])

/** The message of a record; undefined for records that are none, or none that the chat API knows. */
export function messageOf(record: Readonly<Record<string, unknown>>): ChatMessage | undefined {
  if (record.type !== 'message' || typeof record.message !== 'object' || record.message === null) return undefined
  const message = record.message as ChatMessage
  if (!spoken.has(message.role)) return undefined
  if (message.role === 'tool' && typeof message.tool_call_id !== 'string') return undefined
  const { content } = message
  if (typeof content === 'string' || content === null || content === undefined) return message
  if (!Array.isArray(content)) return undefined
  // Other programs keep more than words in an assistant message: what it thought, calls in their own form. The chat API takes words there.
  return message.role === 'assistant' ? { ...message, content: content.filter(isWords) } : message
}

const isWords = (part: unknown) => {
  const type = (part as { type?: unknown } | null)?.type
  return type === 'text' || type === 'refusal'
}

/** The conversation as a chat API takes it: the summary of what was compacted in front; no tool result without its call, results right behind their call, no call without a result; at its end
 *  what is to be answered, not what an earlier try has said of the answer. */
export function historyOf(records: readonly StoredRecord[]): ChatMessage[] {
  const [first] = records
  if (first && isSummary(first)) return [summaryMessage(first), ...historyOf(records.slice(1))]
  const said = records.filter(({ record }) => messageOf(record) !== undefined)
  const end = said.findLastIndex(({ record }) => record.interrupted !== true) + 1
  const messages = said.slice(0, end).map(({ record }) => messageOf(record)!)
  const results = new Map<string, ChatMessage>()
  for (const message of messages)
    if (message.role === 'tool' && !results.has(message.tool_call_id!)) results.set(message.tool_call_id!, message)
  return messages.filter(({ role }) => role !== 'tool').flatMap((message) => [message, ...resultsOf(message, results)])
}

/** Stands for everything before it: the conversation has been compacted. */
function isSummary({ record }: StoredRecord): boolean {
  return record.type === 'summary' && typeof record.text === 'string' && typeof record.upTo === 'number'
}

function summaryMessage({ record }: StoredRecord): ChatMessage {
  return { role: 'system', content: `Summary of the conversation before:\n\n${String(record.text)}` }
}

/** The conversation may have gone on without the tools: the client was gone, or somebody spoke meanwhile. Chat APIs refuse a call without result. */
const noResult = 'No result: the conversation went on without it.'

function resultsOf(message: ChatMessage, results: ReadonlyMap<string, ChatMessage>): ChatMessage[] {
  if (message.role !== 'assistant' || !Array.isArray(message.tool_calls)) return []
  return (message as AssistantMessage).tool_calls!.map(({ id }) => results.get(id) ?? { role: 'tool', tool_call_id: id, content: noResult })
}

/** Messages that stand behind the last whole reply: nobody has answered them to the end.
 *  @param begun  requests that have come to a turn. The input of another one waits, or was taken back by its client: it is not in the conversation. */
export function unansweredOf(records: readonly StoredRecord[], begun: ReadonlySet<string>): ChatMessage[] {
  const answered = records.findLastIndex(({ record }) => messageOf(record)?.role === 'assistant' && record.interrupted !== true)
  const unanswered: ChatMessage[] = []
  let there = true
  for (const { record, request, turn } of records.slice(answered + 1)) {
    // Only the first record of an input says whose it is.
    if (request !== undefined) there = begun.has(request)
    else if (turn !== undefined) there = true
    const message = there ? messageOf(record) : undefined
    if (message && message.role !== 'assistant') unanswered.push(message)
  }
  return unanswered
}

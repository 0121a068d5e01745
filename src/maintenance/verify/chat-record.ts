/** What a record says of a conversation, in the shapes that agents use: the messages of pi (`id`, `parentId`, a message with the role
 *  `toolResult` and its `toolCallId`, content parts `toolCall`), those of the OpenAI chat API (`tool_calls`, `tool_call_id`), and those of
 *  Anthropic (content parts `tool_use`, `tool_result`). A message may be the record itself, or its member `message`. */
import type { Line } from '../../file/log/chain.js'

export interface ChatFacts {
  readonly id: string | undefined
  /** null: it is a root. */
  readonly parentId: string | null | undefined
  /** Calls that it makes, and calls that it has the results of. */
  readonly calls: readonly string[]
  readonly results: readonly string[]
  /** Somebody speaks: a user or the assistant. */
  readonly speaks: boolean
}

type Fields = Readonly<Record<string, unknown>>

/** undefined for a record of the store's own, and for what says nothing of a conversation. */
export function chatFacts({ bytes, start, end, length }: Line): ChatFacts | undefined {
  const text = bytes.toString('utf8', start, end)
  if (end - start + 1 !== length) return factsOfBeginning(text)
  try {
    return factsOf(JSON.parse(text) as Fields)
  } catch {
    return undefined // By a crc alone anything is a record.
  }
}

export function factsOf(record: Fields): ChatFacts | undefined {
  const message = isFields(record.message) ? record.message : record
  const { role } = message
  const parts = Array.isArray(message.content) ? message.content.filter(isFields) : []
  const calls = [
    ...(Array.isArray(message.tool_calls) ? message.tool_calls.filter(isFields).map(({ id }) => id) : []),
    ...parts.filter(({ type }) => type === 'toolCall' || type === 'tool_use').map(({ id }) => id),
  ]
  const results = [
    role === 'toolResult' ? message.toolCallId : undefined,
    role === 'tool' ? message.tool_call_id : undefined,
    ...parts.filter(({ type }) => type === 'tool_result').map((part) => part.tool_use_id),
  ]
  const { id, parentId } = record
  const facts = {
    id: typeof id === 'string' ? id : undefined,
    parentId: typeof parentId === 'string' || parentId === null ? parentId : undefined,
    calls: role === 'assistant' ? calls.filter(isText) : [],
    results: results.filter(isText),
    speaks: role === 'assistant' || (role === 'user' && !parts.some(({ type }) => type === 'tool_result')),
  }
  return facts.id === undefined && facts.parentId === undefined && facts.results.length === 0 && !facts.speaks ? undefined : facts
}

/** Of a record of more than a megabyte only the beginning is looked at: what it is, and whose child, stands there. */
function factsOfBeginning(text: string): ChatFacts | undefined {
  const front = text.slice(0, text.indexOf('"message":') + 1 || undefined)
  const said = (pattern: RegExp, where: string) => pattern.exec(where)?.[1]
  const role = said(/"role":"([A-Za-z]{1,20})"/, text)
  const result = said(/"(?:toolCallId|tool_call_id)":"([^"\\]{1,256})"/, text)
  return {
    id: said(/[{,]"id":"([^"\\]{1,256})"/, front),
    parentId: /[{,]"parentId":null[,}]/.test(front) ? null : said(/[{,]"parentId":"([^"\\]{1,256})"/, front),
    calls: [],
    results: result === undefined ? [] : [result],
    speaks: role === 'assistant' || role === 'user',
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isText(value: unknown): value is string {
  return typeof value === 'string'
}

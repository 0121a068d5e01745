/** Where a conversation may be cut: decides, touches nothing. A result without its call is refused by every chat API, so the two stay on one
 *  side. Knows the forms of OpenAI (`tool_calls`, role `tool`), Anthropic (`tool_use`, `tool_result`) and pi (`toolCall`, role `toolResult`). */
import type { StoredRecord } from '../../types.js'

type Fields = Readonly<Record<string, unknown>>

interface Said {
  readonly role: unknown
  readonly calls: readonly string[]
  readonly results: readonly string[]
  /** Answers a call, though it does not say which. */
  readonly answers: boolean
}

const nothing: Said = { role: undefined, calls: [], results: [], answers: false }

/** For each place, whether the records may be parted before it. One longer than the records: the last place is the end. */
export function chatCuts(records: readonly StoredRecord[]): boolean[] {
  const said = records.map(({ record }) => saidIn(record))
  const calls = new Map<string, number>()
  const answered = new Set<string>()
  const cuts = new Array<boolean>(records.length + 1).fill(true)
  const forbid = (from: number, to: number) => cuts.fill(false, from + 1, to + 1)
  let spoken = -1
  for (const [at, { calls: made, results, answers, role }] of said.entries()) {
    for (const id of results) {
      answered.add(id)
      forbid(calls.get(id) ?? at, at)
    }
    if (answers) cuts[at] = false
    else if (role === 'user') spoken = at
    for (const id of made) calls.set(id, at)
  }
  // What has no result by now may still get it, unless somebody has spoken since.
  for (const [id, at] of calls) if (!answered.has(id) && at > spoken) forbid(at, records.length)
  return cuts
}

function saidIn(record: Fields): Said {
  const message = record.type === 'message' || record.role === undefined ? record.message : record
  if (typeof message !== 'object' || message === null) return nothing
  const { role, content, tool_calls: toolCalls, tool_call_id: toolCallId, toolCallId: piCallId } = message as Fields
  const parts = Array.isArray(content) ? content.filter(isFields) : []
  const calls = [...(Array.isArray(toolCalls) ? toolCalls.filter(isFields) : []), ...parts.filter(({ type }) => isCall(type))]
  const results = [toolCallId, piCallId, ...parts.filter(({ type }) => type === 'tool_result').map((part) => part.tool_use_id)]
  const answers = role === 'tool' || role === 'function' || role === 'toolResult' || parts.some(({ type }) => type === 'tool_result')
  return { role, calls: calls.map(({ id }) => id).filter(isText), results: results.filter(isText), answers }
}

const isCall = (type: unknown) => type === 'toolCall' || type === 'tool_use'
const isText = (value: unknown): value is string => typeof value === 'string'
const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null

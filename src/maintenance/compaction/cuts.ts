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
  const open = new Map<string, number>()
  const cuts = new Array<boolean>(records.length + 1).fill(true)
  const forbid = (from: number, to: number) => cuts.fill(false, from + 1, to + 1)
  for (const [at, { calls, results, answers, role }] of said.entries()) {
    for (const id of results) {
      const called = open.get(id)
      if (called !== undefined) forbid(called, at)
    }
    if (answers) cuts[at] = false
    // Somebody spoke: what has no result by now is not waited for.
    if (role === 'user' && results.length === 0) for (const [id, called] of open) if (called < at) open.delete(id)
    for (const id of calls) open.set(id, at)
  }
  const answered = new Set(said.flatMap(({ results }) => results))
  for (const [id, called] of open) if (!answered.has(id)) forbid(called, records.length)
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

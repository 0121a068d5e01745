/** One line about a record, whatever its shape. Knows the shapes that agent runtimes write and falls back to the JSON itself. */
import { plain } from './output.js'

export interface Headline {
  /** ISO time, or `-`. */
  readonly when: string
  /** The role of a message, else the type of the record, else `record`. */
  readonly what: string
  readonly text: string
}

type Fields = Readonly<Record<string, unknown>>

export function headline(record: Fields): Headline {
  const message = isFields(record.message) ? record.message : record
  const role = typeof message.role === 'string' ? message.role : undefined
  const type = typeof record.type === 'string' ? record.type : undefined
  const said = role === undefined ? undefined : contentText(message.content)
  const { type: _type, timestamp: _timestamp, id: _id, parentId: _parentId, ...rest } = record
  return {
    when: timeOf(record.timestamp) ?? timeOf(message.timestamp) ?? '-',
    what: plain(role ?? type ?? 'record'),
    text: plain(said || JSON.stringify(rest)),
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function timeOf(value: unknown): string | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined
  const date = new Date(value)
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString()
}

/** The text of a message's content: a string, or blocks of which some are text and others are named by their type. */
function contentText(content: unknown): string | undefined {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return undefined
  return content.map(blockText).join(' ')
}

function blockText(block: unknown): string {
  if (typeof block === 'string') return block
  if (!isFields(block)) return '[?]'
  if (typeof block.text === 'string') return block.text
  const name = typeof block.name === 'string' ? ` ${block.name}` : ''
  return `[${typeof block.type === 'string' ? block.type : '?'}${name}]`
}

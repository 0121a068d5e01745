/** The records that the writers append: lines of a real transcript, or made ones that look like a conversation. What record an operation
 *  wrote can be told from the operation alone, so a second try writes the very same one. */
import fs from 'node:fs'
import { crc32 } from 'node:zlib'
import { seededRandom } from './random.js'

/** Longer lines are left out: the trial is about many records, not about large ones. */
const lineBytesMax = 1 << 20
const inputBytesMax = 256 << 20

export type Payload = Record<string, unknown>

/** The field of a record that says which operation wrote it. */
const markField = 'holdfastStress'

/** Makes the payload of part `part` of an operation. */
export type RecordSource = (op: string, part: number) => Payload

const words = 'the session was read again after the lock so that no earlier answer could come between a question and its reply'.split(' ')

/** 60 to 1,200 bytes of talk. */
export const madeRecords: RecordSource = (op, part) => {
  const random = seededRandom(`${op} ${part}`)
  const text = Array.from({ length: 4 + random.below(random.next() < 0.1 ? 200 : 40) }, () => random.pick(words)).join(' ')
  return { type: 'message', message: { role: random.pick(['user', 'assistant']), content: [{ type: 'text', text }] } }
}

export interface Transcript {
  readonly records: Payload[]
  /** Lines that were too long. */
  readonly leftOut: number
}

/** @throws Error that says which line is not a JSON object, or that there is none */
export function readTranscript(path: string): Transcript {
  const { size } = fs.statSync(path)
  if (size > inputBytesMax) throw new Error(`it has ${size} bytes; ${inputBytesMax} is the most that every writer can hold`)
  const records: Payload[] = []
  let leftOut = 0
  for (const [index, line] of fs.readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '') continue
    if (line.length > lineBytesMax) leftOut++
    else records.push(objectOf(line, index + 1))
  }
  if (records.length === 0) throw new Error('it holds no record')
  return { records, leftOut }
}

function objectOf(line: string, lineNumber: number): Payload {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    throw new Error(`line ${lineNumber} is not JSON (${(error as Error).message})`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`line ${lineNumber} is not a JSON object`)
  // A transcript that came out of a store, or of a trial, carries fields that a new record may not.
  const { $: _, $$: __, [markField]: ___, ...payload } = value as Payload
  return payload
}

export function givenRecords(records: readonly Payload[]): RecordSource {
  return (op, part) => seededRandom(`${op} ${part}`).pick(records)
}

/** What an operation's mark in a record says. */
export interface RecordMark {
  readonly op: string
  readonly part: number
  readonly of: number
  /** CRC-32 of the payload's JSON. */
  readonly sum: number
}

export function marked(op: string, part: number, of: number, payload: Payload): Payload {
  const mark: RecordMark = { op, part, of, sum: crc32(JSON.stringify(payload)) }
  return { ...payload, [markField]: mark }
}

/** The mark of a record as read back, and whether the payload is the one that it was made for. */
export function unmarked(record: Payload): { mark: RecordMark; intact: boolean } | undefined {
  const { [markField]: mark, ...payload } = record
  if (typeof mark !== 'object' || mark === null || !('op' in mark)) return undefined
  return { mark: mark as RecordMark, intact: crc32(JSON.stringify(payload)) === (mark as RecordMark).sum }
}

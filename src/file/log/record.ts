/** One line of a log: the user's JSON object with a last field `$` that says where it belongs.
 *
 *      {"type":"message","message":{…},"$":"<seq>.<left>.<synced>.<writer>.<prev>.<crc>"}
 *
 *  A record is a line that ends exactly in `"}` and a newline and whose crc fits. What the store itself has to say about a record stands in
 *  a first field `$$`; a record of the store's own has nothing else beside it. docs/on-disk-format.md has the grammar and an example. */
import { crc32 } from 'node:zlib'
import type { InputAt } from '../../backend.js'
import type { WhenBusy } from '../../types.js'

/** What `$` says. `crc` and `prev` are CRC-32 as unsigned integers. */
export interface Mark {
  readonly seq: number
  /** Records of the same batch that follow. */
  readonly left: number
  /** Highest seq that the writer knew to be on the disk; -1 for none. */
  readonly synced: number
  readonly writer: string
  readonly prev: number
  readonly crc: number
}

export interface LineMark extends Mark {
  /** Bytes of the line before `,"$":` (or before `"$":` where nothing stands before it). */
  readonly bodyBytes: number
}

/** What stands in `$$`. Exactly one of header, seal, turn, summary, lost and compacted in a record of the store's own; else an id, an input, a turn's
 *  number. */
export interface SystemPart {
  readonly id?: string
  /** The request whose input this is, while no turn has taken it and ever after. */
  readonly input?: string
  /** How many records, this one included, were appended under the id, or are the input; absent for one. */
  readonly count?: number
  /** What the request of an input wanted done when the conversation was busy. */
  readonly when?: WhenBusy
  /** The input's request id was the caller's own: it may come again. */
  readonly given?: true
  /** The turn that appended it. */
  readonly by?: number
  readonly header?: Header
  readonly seal?: Seal
  readonly turn?: TurnEvent
  readonly summary?: Summary
  readonly lost?: Lost
  readonly compacted?: Compacted
}

/** Stands for everything up to a record, for whoever reads with `compacted: true`. The records themselves stay, until bytes are compacted. */
export interface Summary {
  /** The last record that it stands for, and how many those are. */
  readonly upTo: number
  readonly records: number
  readonly text: string
  /** Epoch ms. */
  readonly at: number
}

/** Stands where the seal of a compaction stood in the file before: no sequence number is used twice. */
export interface Compacted {
  /** The first record that has stayed. */
  readonly from: number
  readonly at: number
}

/** Stands where a record was that no repair could save. One for each, so that numbers go on without a gap. */
export interface Lost {
  /** Why, in words. */
  readonly why: string
  /** Relative to the store: where the bytes are kept that stood here; absent when there were none. */
  readonly quarantine?: string
  readonly at: number
}

/** One that no turn has taken; 1 at the end: the request id was the caller's own. */
export type PendingInput = readonly [request: string, seq: number, count: number, when: WhenBusy, given: 0 | 1]

/** What became of a turn. Whoever reads the last start or end that lists what is pending, and what follows it, knows who is active and what
 *  is pending, without what is before it. */
export type TurnEvent =
  | {
      readonly event: 'start'
      readonly n: number
      readonly request: string
      readonly given?: true
      /** 1, or more when the request was begun before. */
      readonly attempt: number
      readonly lane: string
      readonly channel?: string
      /** Epoch ms. */
      readonly at: number
      readonly takes?: readonly InputAt[]
      /** All that no turn has taken, nothing for none; else, how many: then an earlier one has the list. */
      readonly pending?: readonly PendingInput[] | number
      /** Fencing token of the lease under which it began. */
      readonly lease: number
      /** The turn that was active and whose holder is no more. */
      readonly interrupted?: number
    }
  | { readonly event: 'take'; readonly n: number; readonly at: number; readonly takes: readonly InputAt[] }
  /** Whoever left the input has gone before any turn took it: none will. */
  | { readonly event: 'withdraw'; readonly request: string; readonly at: number }
  | {
      readonly event: 'end'
      readonly n: number
      readonly request: string
      readonly outcome: TurnOutcome
      readonly at: number
      /** What the turn's function returned, where JSON can say it. */
      readonly value?: unknown
      /** What it threw, in words. */
      readonly error?: string
      readonly pending?: readonly PendingInput[] | number
    }

export type TurnOutcome = 'completed' | 'failed' | 'interrupted'

/** A request that has been answered, or begun: request id, turn, attempt, outcome, session, seq of the end record (-1 for none). */
export type RequestRow = readonly [request: string, turn: number, attempt: number, outcome: TurnOutcome, sessionId: string, endSeq: number]

/** First record of a log. */
export interface Header {
  readonly log: 'journal' | 'transcript'
  readonly version: 1
  /** journal: hash of the snapshot it builds on. */
  readonly base?: string
  /** transcript: whose it is. */
  readonly key?: string
  readonly sessionId?: string
  /** transcript: the session that the key named before. */
  readonly previous?: string
  /** Idempotency ids that this log must remember although their records are elsewhere: id, last seq, how many records. */
  readonly ids?: readonly (readonly [id: string, sessionId: string, seq: number, count: number])[]
  /** transcript: turns of the sessions before: the last one's number, and the requests that must not run twice. */
  readonly turns?: { readonly last: number; readonly requests?: readonly RequestRow[] }
  /** Lines without `$` that stood in the file before the first record. */
  readonly foreign?: { readonly lines: number; readonly bytes: number; readonly crc: string }
  /** transcript: this file was made from an earlier one of the same session, by a compaction or a repair. Crcs of the headers of those, last first. */
  readonly replaces?: readonly string[]
  readonly createdAt: number
}

/** Last record of a log: nothing chains after it. */
export interface Seal {
  /** checkpoint: journal folded into the snapshot with hash `next` · rotated: the key goes on in session `next` · deleted: the key is gone ·
   *  suspect: a sync failed, the file is written anew from what chains up to here · compacted: the file is written anew without what is
   *  before `from`; the whole of it goes to the archive. */
  readonly reason: 'checkpoint' | 'rotated' | 'deleted' | 'suspect' | 'compacted'
  /** compacted: the first record that stays. */
  readonly from?: number
  /** compacted: the name under which the lines of the new file are written. */
  readonly writer?: string
  readonly next?: string
  readonly key?: string
  /** Why the caller asked for it. */
  readonly why?: string
  /** deleted: what the user had put into the entry; absent when there was nothing, when it was too large, or when nobody knew any more. */
  readonly entry?: Readonly<Record<string, unknown>>
  readonly at: number
}

export const headerPrefix = '{"$$":{"header":'
export const sealPrefix = '{"$$":{"seal":'
export const turnPrefix = '{"$$":{"turn":'
export const summaryPrefix = '{"$$":{"summary":'
export const lostPrefix = '{"$$":{"lost":'
export const compactedPrefix = '{"$$":{"compacted":'
const ownPrefixes = [turnPrefix, headerPrefix, sealPrefix, summaryPrefix, lostPrefix, compactedPrefix]
const idPrefix = '{"$$":{"id":'
const inputPrefix = '{"$$":{"input":'

/** A crc as it stands in the file. */
export function hex8(crc: number): string {
  return pairs[crc >>> 24]! + pairs[(crc >>> 16) & 255]! + pairs[(crc >>> 8) & 255]! + pairs[crc & 255]!
}

const pairs = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** One line with its newline, and its crc.
 *  @param body  the object's JSON text, `{…}` */
export function encodeLine(body: string, mark: Omit<Mark, 'crc'>): { line: string; crc: number } {
  const stem = body.slice(0, -1) + markStem(body, mark)
  const crc = crc32(stem)
  return { line: stem + markEnd(crc), crc }
}

/** Bytes that a mark and the newline add to a body, at most. */
export const lineOverheadMax = 160

/** The same, into a buffer that has room for it. `end` is the byte after the newline. */
export function writeLine(into: Buffer, start: number, body: string, mark: Omit<Mark, 'crc'>): { end: number; crc: number } {
  // The closing brace is written, and then written over.
  let at = start + into.write(body, start) - 1
  at += into.write(markStem(body, mark), at, 'latin1')
  const crc = crc32(into.subarray(start, at))
  return { end: at + into.write(markEnd(crc), at, 'latin1'), crc }
}

function markStem(body: string, { seq, left, synced, writer, prev }: Omit<Mark, 'crc'>): string {
  return `${body.length > 2 ? ',' : ''}"$":"${seq}.${left}.${synced}.${writer}.${hex8(prev)}.`
}

function markEnd(crc: number): string {
  return `${hex8(crc)}"}\n`
}

/** The JSON text of the first of `count` records that are appended under an idempotency id, with the id in front. */
export function withId(json: string, id: string, count: number, by?: number): string {
  return withPart(json, { id, ...(count > 1 && { count }), ...(by !== undefined && { by }) })
}

/** The JSON text of a caller's record with what the store says of it in front. */
export function withPart(json: string, part: SystemPart): string {
  return `{"$$":${JSON.stringify(part)}${json.length > 2 ? ',' : ''}${json.slice(1)}`
}

/** The JSON text of a record of the store's own. */
export function systemBody(system: SystemPart): string {
  return JSON.stringify({ $$: system })
}

/** What the end of the line claims, whether or not the crc fits. `end` is the place of the newline. By hand: every line that anybody reads
 *  comes through here, and a pattern takes five times as long. */
export function claimedMark(bytes: Buffer, start: number, end: number): LineMark | undefined {
  // A mark has fixed places from its end up to the writer; from there, dots.
  if (end - start < 30 || bytes[end - 1] !== brace || bytes[end - 2] !== quote || bytes[end - 11] !== dot || bytes[end - 20] !== dot)
    return undefined
  const crc = hexAt(bytes, end - 10)
  const prev = hexAt(bytes, end - 19)
  if (crc < 0 || prev < 0) return undefined
  const writerAt = writerStart(bytes, end - 20)
  if (writerAt < 0) return undefined
  let syncedAt = numberStart(bytes, writerAt - 1, 16)
  if (syncedAt < 0) return undefined
  let synced = numberAt(bytes, syncedAt, writerAt - 1)
  if (bytes[syncedAt - 1] === minus) {
    if (synced !== 1) return undefined
    synced = -1
    syncedAt--
  }
  const leftAt = bytes[syncedAt - 1] === dot ? numberStart(bytes, syncedAt - 1, 7) : -1
  const seqAt = leftAt > 0 && bytes[leftAt - 1] === dot ? numberStart(bytes, leftAt - 1, 16) : -1
  const nameAt = seqAt - 5
  if (nameAt <= start || !isName(bytes, nameAt)) return undefined
  // `{` before `"$"` is only an empty object when it is the line's own first byte.
  const empty = bytes[nameAt - 1] === openingBrace && nameAt - 1 === start
  if (!empty && bytes[nameAt - 1] !== comma) return undefined
  return {
    seq: numberAt(bytes, seqAt, leftAt - 1),
    left: numberAt(bytes, leftAt, syncedAt - 1),
    synced,
    writer: writerAt + 12 === end - 20 ? twelveAt(bytes, writerAt) : bytes.toString('latin1', writerAt, end - 20),
    prev,
    crc,
    bodyBytes: (empty ? nameAt : nameAt - 1) - start,
  }
}

const quote = 0x22
const dollar = 0x24
const comma = 0x2c
const minus = 0x2d
const dot = 0x2e
const zero = 0x30
const nine = 0x39
const colon = 0x3a
const openingBrace = 0x7b
const brace = 0x7d
const writerLengthMax = 32

/** `"$":"` */
function isName(bytes: Buffer, at: number): boolean {
  return bytes[at] === quote && bytes[at + 1] === dollar && bytes[at + 2] === quote && bytes[at + 3] === colon && bytes[at + 4] === quote
}

const hexDigits = byteTable('0123456789abcdef')
const writerBytes = byteTable('-_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz')

/** Of each byte its place among these; 255 for those that are not among them. */
function byteTable(of: string): Uint8Array {
  const table = new Uint8Array(256).fill(255)
  for (const [at, byte] of Buffer.from(of).entries()) table[byte] = at
  return table
}

/** Eight lower-case hex digits; -1 for anything else. */
function hexAt(b: Buffer, at: number): number {
  const high = (hexDigits[b[at]!]! << 12) | (hexDigits[b[at + 1]!]! << 8) | (hexDigits[b[at + 2]!]! << 4) | hexDigits[b[at + 3]!]!
  const low = (hexDigits[b[at + 4]!]! << 12) | (hexDigits[b[at + 5]!]! << 8) | (hexDigits[b[at + 6]!]! << 4) | hexDigits[b[at + 7]!]!
  return isHex(b, at) ? high * 0x10000 + low : -1
}

function isHex(b: Buffer, at: number): boolean {
  return (
    (hexDigits[b[at]!]! |
      hexDigits[b[at + 1]!]! |
      hexDigits[b[at + 2]!]! |
      hexDigits[b[at + 3]!]! |
      hexDigits[b[at + 4]!]! |
      hexDigits[b[at + 5]!]! |
      hexDigits[b[at + 6]!]! |
      hexDigits[b[at + 7]!]!) <
    16
  )
}

/** Where the number begins that ends before `end`; -1 for none, one with more digits than allowed, one with a leading zero. */
function numberStart(bytes: Buffer, end: number, digitsMax: number): number {
  let at = end
  while (at > end - digitsMax && bytes[at - 1]! >= zero && bytes[at - 1]! <= nine) at--
  return at === end || (bytes[at] === zero && at < end - 1) ? -1 : at
}

function numberAt(bytes: Buffer, start: number, end: number): number {
  if (end - start > 15) return Number(bytes.toString('latin1', start, end))
  let value = 0
  for (let at = start; at < end; at++) value = value * 10 + bytes[at]! - zero
  return value
}

/** Where the letters, digits, dashes and underscores begin that end before `end`, with a dot in front; -1 for none. */
function writerStart(bytes: Buffer, end: number): number {
  let at = end
  while (at > end - writerLengthMax && writerBytes[bytes[at - 1]!] !== 255) at--
  return at < end && bytes[at - 1] === dot ? at : -1
}

/** As long as all writers of this version are; cheaper than asking for any length. */
function twelveAt(of: Buffer, at: number): string {
  const a = of[at]!
  const b = of[at + 1]!
  const c = of[at + 2]!
  const d = of[at + 3]!
  const e = of[at + 4]!
  const f = of[at + 5]!
  const g = of[at + 6]!
  const h = of[at + 7]!
  return String.fromCharCode(a, b, c, d, e, f, g, h, of[at + 8]!, of[at + 9]!, of[at + 10]!, of[at + 11]!)
}

/** The mark of a self-valid line, else undefined. */
export function readMark(bytes: Buffer, start: number, end: number): LineMark | undefined {
  const mark = claimedMark(bytes, start, end)
  return mark && crc32(bytes.subarray(start, end - 10)) === mark.crc ? mark : undefined
}

/** The JSON text of what the user appended, and the store's own part. `start` is the first byte of the line. */
export function readBody(bytes: Buffer, start: number, mark: LineMark): { json: string; system: SystemPart | undefined } {
  const whole = `${bytes.toString('utf8', start, start + mark.bodyBytes)}}`
  if (!whole.startsWith('{"$$":')) return { json: whole, system: undefined }
  const object = JSON.parse(whole) as { $$: SystemPart }
  const system = object.$$
  const front = `{"$$":${JSON.stringify(system)}`.length
  const rest = whole.slice(front)
  return { json: rest.startsWith(',') ? `{${rest.slice(1)}` : '{}', system }
}

/** The store's own part of a record of the store's own. */
export function readSystem(bytes: Buffer, start: number, mark: LineMark): SystemPart {
  return (JSON.parse(`${bytes.toString('utf8', start, start + mark.bodyBytes)}}`) as { $$: SystemPart }).$$
}

/** Whether the line is one of the store's own: such a line begins with its mark of office. */
export function startsWith(bytes: Buffer, start: number, prefix: string): boolean {
  // From its end: all of them begin alike.
  for (let at = prefix.length - 1; at >= 0; at--) if (bytes[start + at] !== prefix.charCodeAt(at)) return false
  return true
}

export function isSystemOnly(bytes: Buffer, start: number): boolean {
  // All of them begin alike, and nothing else does that often.
  if (bytes[start + 1] !== 0x22 || bytes[start + 2] !== 0x24 || bytes[start + 3] !== 0x24) return false
  return ownPrefixes.some((prefix) => startsWith(bytes, start, prefix))
}

export function isInput(bytes: Buffer, start: number): boolean {
  return startsWith(bytes, start, inputPrefix)
}

export function hasId(bytes: Buffer, start: number): boolean {
  return startsWith(bytes, start, idPrefix)
}

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

/** Longest possible `,"$":"…"}`: sixteen-digit numbers and a long writer. */
const markBytesMax = 128
const markPattern =
  /(^\{|,)"\$":"(0|[1-9]\d{0,15})\.(0|[1-9]\d{0,6})\.(-1|0|[1-9]\d{0,15})\.([0-9A-Za-z_-]{1,32})\.([0-9a-f]{8})\.([0-9a-f]{8})"\}$/

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

/** What the end of the line claims, whether or not the crc fits. `end` is the place of the newline. */
export function claimedMark(bytes: Buffer, start: number, end: number): LineMark | undefined {
  if (end - start < 30 || bytes[end - 1] !== 0x7d || bytes[end - 2] !== 0x22) return undefined
  const from = Math.max(start, end - markBytesMax)
  const found = markPattern.exec(bytes.toString('latin1', from, end))
  // `{` before `"$"` is only an empty object when it is the line's own first byte.
  if (!found || (found[1] === '{' && from !== start)) return undefined
  return {
    seq: Number(found[2]),
    left: Number(found[3]),
    synced: Number(found[4]),
    writer: found[5]!,
    prev: Number.parseInt(found[6]!, 16),
    crc: Number.parseInt(found[7]!, 16),
    bodyBytes: from + found.index + (found[1] === '{' ? 1 : 0) - start,
  }
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
  return bytes.toString('latin1', start, start + prefix.length) === prefix
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

/** What can be told of a line that is no record: whether one or two stand in it all the same, and what it was. */
import { crc32 } from 'node:zlib'
import { claimedMark, type LineMark, readMark } from '../../file/log/record.js'

export interface Whole {
  readonly mark: LineMark
  readonly start: number
  /** The byte after its `}`, or after its newline where it has one. */
  readonly end: number
}

export type BrokenLine =
  /** Records that are whole, and were on the disk as such: only what separates them is wrong. */
  | { readonly kind: 'separated'; readonly records: readonly Whole[] }
  /** Records that count only if another one that counts continues them. `altered`: the line was one of the log. */
  | { readonly kind: 'doubtful'; readonly records: readonly Whole[]; readonly altered: boolean }
  /** It was once a record: half of its mark is still there, or NUL bytes stand where it was. */
  | { readonly kind: 'altered'; readonly seq: number | undefined }
  /** What a killed writer leaves. */
  | { readonly kind: 'torn' }

const markAnywhere = /"\$":"\d{1,16}\.\d{1,7}\.(?:-1|\d{1,16})\.[0-9A-Za-z_-]{1,32}\.[0-9a-f]{8}\.[0-9a-f]{8}"\}/g
const markFront = /[{,]"\$":"(\d{1,16})\.\d{1,7}\.(?:-1|\d{1,16})\./
const markBack = /\.[0-9a-f]{8}\.[0-9a-f]{8}"\}$/
const searchBytesMax = 64 << 20
const marksMax = 1_000
const brokenOff = 0x23
const carriageReturn = 0x0d

/** @param end  the place of the newline, or of the end of the file */
export function judgeLine(bytes: Buffer, start: number, end: number): BrokenLine {
  if (end > start && bytes[end - 1] === carriageReturn) {
    const mark = readMark(bytes, start, end - 1)
    if (mark) return { kind: 'separated', records: [{ mark, start, end: end - 1 }] }
  }
  const broken = bytes[end - 1] === brokenOff
  const front = firstRecord(bytes, start, end)
  const tiles = front && inARow(bytes, front, end)
  if (tiles) return { kind: 'separated', records: tiles }
  const back = lastRecord(bytes, front ? front.end : start, end)
  // A whole line that lacks only its newline was never acknowledged, whatever stands behind it.
  if (broken && (!front || front.end === end - 1)) return { kind: 'torn' }
  const claimed = claimedMark(bytes, start, end)
  const records = [front, back, claimed && !back ? intended(bytes, start, end, claimed) : undefined].filter((it) => it !== undefined)
  const altered = !back && (claimed !== undefined || wasRecord(bytes, start, end))
  if (records.length > 0) return { kind: 'doubtful', records, altered }
  if (altered || bytes.subarray(start, end).includes(0)) return { kind: 'altered', seq: claimed?.seq ?? claimedSeq(bytes, start, end) }
  return { kind: 'torn' }
}

/** The record that the line would be if only its crc is wrong: whoever continues it knows the right one. */
function intended(bytes: Buffer, start: number, end: number, claimed: LineMark): Whole {
  return { mark: { ...claimed, crc: crc32(bytes.subarray(start, end - 10)) }, start, end }
}

/** Records one behind the other up to the end of the line, with one byte between two: that was a newline. */
function inARow(bytes: Buffer, first: Whole, end: number): readonly Whole[] | undefined {
  const records = [first]
  for (let at = first.end + 1; at < end && records.length < marksMax; ) {
    const mark = readMark(bytes, at, end)
    const next = mark ? { mark, start: at, end } : firstRecord(bytes, at, end)
    if (!next) return undefined
    records.push(next)
    at = next.end + 1
  }
  return records[records.length - 1]!.end === end ? records : undefined
}

/** A whole record at the start of the line, with something behind it. */
function firstRecord(bytes: Buffer, start: number, end: number): Whole | undefined {
  if (bytes.indexOf('"$":"', start) < 0) return undefined
  let marks = 0
  for (const found of bytes.toString('latin1', start, end).matchAll(markAnywhere)) {
    const recordEnd = start + found.index + found[0].length
    if (recordEnd >= end || ++marks > marksMax) return undefined
    const mark = readMark(bytes, start, recordEnd)
    if (mark) return { mark, start, end: recordEnd }
  }
  return undefined
}

/** A whole record at the end of the line, with something before it. */
function lastRecord(bytes: Buffer, start: number, end: number): Whole | undefined {
  const claimed = claimedMark(bytes, start, end)
  if (!claimed) return undefined
  let searched = 0
  for (let at = bytes.indexOf('{"', start); at >= 0 && at < end; at = bytes.indexOf('{"', at + 1)) {
    searched += end - at
    if (searched > searchBytesMax) return undefined
    if (crc32(bytes.subarray(at, end - 10)) !== claimed.crc) continue
    const mark = readMark(bytes, at, end)
    if (mark) return { mark, start: at, end }
  }
  return undefined
}

function markText(bytes: Buffer, start: number, end: number): string {
  return bytes.toString('latin1', Math.max(start, end - 128), end)
}

function wasRecord(bytes: Buffer, start: number, end: number): boolean {
  const text = markText(bytes, start, end)
  return markFront.test(text) || markBack.test(text)
}

function claimedSeq(bytes: Buffer, start: number, end: number): number | undefined {
  const found = markFront.exec(markText(bytes, start, end))
  return found ? Number(found[1]) : undefined
}

/** High-water marks: how far a session's transcript is known to be on the disk. A mark stands as the last field of the stored entry,
 *
 *      "agent:main:main":{"sessionId":"0198…",…,"$":"<seq>.<bytes>.<crc>.<header crc>"}
 *
 *  and is no part of the entry as users see it: never in a view, kept when a user changes the entry, no change of its revision, gone when
 *  the key gets another session. A transcript that ends before its mark has lost something, however well what is left of it parses (F29). */
import { hex8 } from '../log/record.js'

export interface HighWaterMark {
  /** Of a record that was on the disk, with everything before it. Never that of a seal: a file that is written anew goes on without it. */
  readonly seq: number
  /** Where that record's line ended, its newline included. Elsewhere in a file that was written anew. */
  readonly bytes: number
  /** CRC-32 of that record, and of the header of the file in which it stood. A file with another header lists this one in `replaces`. */
  readonly crc: number
  readonly header: number
}

const valuePattern = /^(0|[1-9]\d{0,15})\.([1-9]\d{0,15})\.([0-9a-f]{8})\.([0-9a-f]{8})$/
const fieldFront = ',"$":"'
/** Longest possible field with the brace that closes the entry: two numbers of sixteen digits, two crcs. */
const fieldBytesMax = fieldFront.length + 16 + 1 + 16 + 1 + 8 + 1 + 8 + 2
const fieldPattern = /,"\$":"([0-9a-f.]+)"\}$/

/** The value of `$` in a stored entry; undefined for anything that this store does not write there. */
export function parseMark(value: string): HighWaterMark | undefined {
  const found = valuePattern.exec(value)
  if (!found) return undefined
  return { seq: Number(found[1]), bytes: Number(found[2]), crc: Number.parseInt(found[3]!, 16), header: Number.parseInt(found[4]!, 16) }
}

export function formatMark({ seq, bytes, crc, header }: HighWaterMark): string {
  return `${seq}.${bytes}.${hex8(crc)}.${hex8(header)}`
}

/** The mark of an entry in its stored form, without parsing the entry, and where the field begins. `end` is the byte after the entry. */
export function markAt(bytes: Buffer, start: number, end: number): { readonly mark: HighWaterMark; readonly at: number } | undefined {
  // Its last value is a string: not so in most entries without a mark.
  if (bytes[end - 2] !== 0x22) return undefined
  const from = Math.max(start, end - fieldBytesMax)
  const found = fieldPattern.exec(bytes.toString('latin1', from, end))
  const mark = found ? parseMark(found[1]!) : undefined
  return mark && { mark, at: from + found!.index }
}

/** The stored form of an entry with its mark. @param json  the entry's JSON text, without one */
export function withMark(json: string, mark: HighWaterMark | undefined): string {
  return mark ? `${json.slice(0, -1)}${fieldFront}${formatMark(mark)}"}` : json
}

/** The entry's JSON text as its user would have it. */
export function withoutMark(json: string): string {
  const bytes = Buffer.from(json)
  const found = markAt(bytes, 0, bytes.length)
  return found ? `${bytes.toString('utf8', 0, found.at)}}` : json
}

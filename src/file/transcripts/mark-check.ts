/** Holds a transcript against its high-water mark (metadata/mark.ts). What ends before it, or has another record there, has lost something,
 *  although every line of it is sound (F29).
 *
 *  The mark has to be older than the opening of the file: then the file is that of the mark, with more behind it, or one that was made from
 *  it since and says so in its header. */
import { StoreError } from '../../errors.js'
import { type Disk, type FileStat, isUntouched, readFully } from '../durable.js'
import type { ChainDamage } from '../log/chain.js'
import { readHeader } from '../log/header.js'
import { claimedMark, type Header, hex8 } from '../log/record.js'
import { openTail } from '../log/tail.js'
import type { HighWaterMark } from '../metadata/mark.js'
import type { Metadata } from '../metadata/metadata.js'

/** Longer than the end of a line that tells its place. */
const lineEndBytes = 160
/** As many earlier headers as one names; then there may have been others before. */
const replacedMax = 16
const judgedMax = 1_024

type Names = Pick<Metadata, 'lastKnownMark' | 'names'>

interface Judged {
  readonly mark: HighWaterMark
  readonly stat: FileStat
  readonly damage: ChainDamage | undefined
}

export class MarkCheck {
  #disk: Disk
  #tag: string
  #names: Names
  /** By session. Only those that took more than a look at one place. */
  #judged = new Map<string, Judged>()

  constructor(disk: Disk, tag: string, names: Names) {
    this.#disk = disk
    this.#tag = tag
    this.#names = names
  }

  /** For readers, before they open the file: what will say, of the file that is then open or of there being none, what it lacks. */
  lacking(label: string, key: string, sessionId: string): (fd: number | undefined) => ChainDamage | undefined {
    const mark = this.#names.lastKnownMark(key, sessionId)
    return (fd) => {
      if (!mark) return undefined
      if (fd !== undefined) return this.look(sessionId, fd, mark)
      // The archive gets a transcript only after the metadata has stopped naming it.
      if (this.#names.names(key, sessionId)) throw transcriptMissing(label, sessionId, mark)
      return undefined
    }
  }

  /** What the file behind `fd` lacks; undefined for nothing. One small read, unless the file was made anew since it was marked. */
  look(sessionId: string, fd: number, mark: HighWaterMark): ChainDamage | undefined {
    const stat = this.#disk.fstat(fd)
    if (stat.size >= mark.bytes && endsThere(this.#disk, fd, mark)) return undefined
    const judged = this.#judged.get(sessionId)
    if (judged && sameMark(judged.mark, mark) && stillHolds(judged, stat)) return judged.damage
    const damage = judge(this.#disk, fd, stat.size, this.#tag, mark)
    if (this.#judged.size >= judgedMax) for (const oldest of this.#judged.keys()) if (this.#judged.delete(oldest)) break
    this.#judged.set(sessionId, { mark, stat, damage })
    return damage
  }
}

/** What was there once is there still while the file only grows; what was damaged may be mended by any change. */
function stillHolds({ stat, damage }: Judged, now: FileStat): boolean {
  return damage ? isUntouched(now, stat) : now.ino === stat.ino && now.dev === stat.dev && now.size >= stat.size
}

function endsThere(disk: Disk, fd: number, { seq, bytes, crc }: HighWaterMark): boolean {
  const from = Math.max(0, bytes - lineEndBytes)
  const end = readFully(disk, fd, from, bytes - from)
  const newline = end.length - 1
  if (from + end.length !== bytes || end[newline] !== 0x0a) return false
  const found = claimedMark(end, end.lastIndexOf(0x0a, newline - 1) + 1, newline)
  return found?.seq === seq && found.crc === crc
}

/** By reading back to the marked record, wherever it is by now. */
export function judge(disk: Disk, fd: number, size: number, tag: string, mark: HighWaterMark): ChainDamage | undefined {
  let crc: number | undefined
  const chain = openTail(
    disk,
    fd,
    size,
    tag,
    { records: 0, after: mark.seq - 1 },
    {
      record(found) {
        if (found.seq === mark.seq) crc = found.crc
      },
    },
  )
  if (chain.damage) return chain.damage
  if (crc === mark.crc) return undefined
  if (chain.seq < mark.seq) {
    const ends = chain.seq < 0 ? 'it holds no records' : `it ends at seq ${chain.seq}`
    return { why: `${ends}, but had been on the disk up to seq ${mark.seq}`, byte: chain.end, seq: chain.seq + 1 }
  }
  const found = readHeader(disk, fd, size)
  if (found?.header && found.crc !== mark.header && tookPlaceOf(found.header, mark.header)) return undefined
  return { why: `another record stands there than had been on the disk as seq ${mark.seq}`, byte: 0, seq: 0 }
}

function tookPlaceOf({ replaces = [] }: Header, header: number): boolean {
  return replaces.includes(hex8(header)) || replaces.length >= replacedMax
}

export function sameMark(one: HighWaterMark | undefined, other: HighWaterMark | undefined): boolean {
  return one?.seq === other?.seq && one?.bytes === other?.bytes && one?.crc === other?.crc && one?.header === other?.header
}

export function transcriptMissing(label: string, sessionId: string, { seq }: HighWaterMark): StoreError {
  return new StoreError('LOG_CORRUPT', `${label} is missing; it had been on the disk up to seq ${seq}.`, {
    details: { file: label, byte: 0, seq: 0, sessionId, markedSeq: seq },
    hint: 'Nothing was written: missing is not empty. Put the file back from where it was moved, or from a backup; other sessions go on. `holdfast repair` begins it anew behind the numbers that it had.',
  })
}

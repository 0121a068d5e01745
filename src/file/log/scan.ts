/** Reads a whole log with the same verdicts as the chain, however large it is, its batches are, or a single line of it is: memory is a fixed
 *  window, and no step of it holds up the event loop for long. For whoever only looks (verify, repair, compaction); readers, who want the
 *  records themselves, feed the chain.
 *
 *  Lines are found in the window. One that is longer than `longLineBytes` goes through a window of its own (long-line.ts). A batch that
 *  is not whole yet waits as the beginnings of its lines: so a sink sees the whole of a line only up to `longLineBytes`, and of one
 *  that had to wait only `keptBytes`, unless it is one of the store's own. Whoever needs more takes it from `look`. */
import { crc32 } from 'node:zlib'
import { type Breath, newBreath } from '../breath.js'
import type { Disk } from '../durable.js'
import { type Chain, type ChainSink, goesOn, isForeign, type Line, oddLine } from './chain.js'
import { extendedCrc, joinedCrc } from './crc.js'
import { LongLine } from './long-line.js'
import { claimedMark, isSystemOnly } from './record.js'

/** Where the bytes come from, in order: a file, or what is unpacked from one. */
export interface ByteSource {
  /** How many there are, where that is known: no more room is taken. */
  readonly size?: number
  /** Fills up to `length` bytes; 0 at the end. */
  read(into: Buffer, offset: number, length: number): number | Promise<number>
}

export interface ScanSink extends ChainSink {
  /** Every line that is a record in itself, when it is found: before it is known whether it is in the log. What is returned comes back with
   *  the line. */
  look?(line: Line): unknown
}

export interface ScanOptions {
  readonly signal?: AbortSignal | undefined
  /** Bytes read so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined
  /** For whoever scans one file after another: small ones share a stretch. */
  readonly breath?: Breath | undefined
}

/** What is left at the end without a verdict: lines of a batch that has not ended, and bytes without a newline. */
export interface ScanTail {
  readonly pending: readonly Line[]
  /** Where the bytes without a newline begin, and how many there are. */
  readonly byte: number
  readonly length: number
  readonly nuls: { readonly from: number; readonly to: number } | undefined
}

const usualSizes = { pieceBytes: 1 << 20, longLineBytes: 1 << 20 }
const keptBytes = 4 << 10
const asideBytesMin = 128 << 10
/** The first `size` bytes of a file: what is added meanwhile is not looked at. */
export function fileSource(disk: Disk, fd: number, size: number): ByteSource {
  let position = 0
  const advance = (got: number) => {
    position += got
    return got
  }
  return {
    size,
    read(into, offset, length) {
      const wanted = Math.min(length, size - position)
      // For a small piece the way to another thread and back is longer than the reading.
      if (!disk.readAside || wanted < asideBytesMin) return advance(disk.read(fd, into, offset, wanted, position))
      return disk.readAside(fd, into, offset, wanted, position).then(advance)
    },
  }
}

export async function scan(
  source: ByteSource,
  chain: Chain,
  sink: ScanSink,
  options: ScanOptions = {},
  sizes = usualSizes,
): Promise<ScanTail> {
  const scanning = new Scanning(source, chain, sink, sizes)
  const { signal, breath = newBreath(), onProgress } = options
  signal?.throwIfAborted()
  try {
    while (await scanning.step()) {
      const rest = breath.breathe()
      if (!rest) continue
      onProgress?.(scanning.bytesRead)
      await rest
      signal?.throwIfAborted()
    }
    return scanning.end()
  } finally {
    await scanning.settled()
  }
}

/** The line with a copy of as much of its bytes as is kept. */
function detached(line: Line): Line {
  const { bytes, start, end } = line
  const length = isSystemOnly(bytes, start) ? end - start : Math.min(end - start, keptBytes)
  return { ...line, bytes: Buffer.from(bytes.subarray(start, start + length)), start: 0, end: length }
}

function fits({ mark, bytes, start, end }: Line): boolean {
  return crc32(bytes.subarray(start, end - 10)) === mark.crc
}

class Scanning {
  bytesRead = 0
  #source: ByteSource
  #chain: Chain
  #sink: ScanSink
  #sizes: typeof usualSizes
  /** While lines are looked for in one room, the next piece is read into the other: behind as much space as a line needs that began before. */
  #room: Buffer
  #nextRoom: Buffer | undefined
  #ahead: Promise<number> | number | undefined
  /** What of the room is filled, what of it has been dealt with, and what of the rest has been searched for a newline. */
  #filled = 0
  #at = 0
  #searched = 0
  /** Where in the file the room begins. */
  #base = 0
  /** Of the lines in the room those that are looked at together. */
  #found: Line[] = []
  /** Of a batch that has not ended; the first of them on bytes of their own. */
  #pending: Line[] = []
  #detached = 0
  #long: LongLine | undefined

  constructor(source: ByteSource, chain: Chain, sink: ScanSink, sizes: typeof usualSizes) {
    this.#source = source
    this.#chain = chain
    this.#sink = sink
    this.#sizes = sizes
    const { size = Number.POSITIVE_INFINITY } = source
    // A small file has one room, and all of it is there at once.
    if (size < sizes.pieceBytes) this.#room = Buffer.allocUnsafe(size + 1)
    else {
      this.#room = Buffer.allocUnsafeSlow(sizes.longLineBytes + sizes.pieceBytes)
      this.#nextRoom = Buffer.allocUnsafeSlow(this.#room.length)
    }
  }

  /** A few lines, or a piece read. False at the end. */
  async step(): Promise<boolean> {
    const newline = this.#room.subarray(0, this.#filled).indexOf(0x0a, this.#searched)
    if (newline >= 0) {
      if (this.#long) this.#endLong(this.#long, newline)
      else this.#lines(newline)
      return true
    }
    const got = this.#nextRoom ? await this.#changeRooms(this.#nextRoom) : await this.#fill()
    if (got <= 0) return false
    this.#filled += got
    this.bytesRead += got
    return true
  }

  /** Nothing is being read into a room any more. */
  async settled(): Promise<void> {
    try {
      await this.#ahead
    } catch {
      // Whoever read has been told.
    }
  }

  async #fill(): Promise<number> {
    this.#searched = this.#filled
    return this.#source.read(this.#room, this.#filled, this.#room.length - this.#filled)
  }

  /** No newline in sight: what has begun goes over into the next room, in front of what follows. One that fills the space for it goes through
   *  piece by piece. */
  async #changeRooms(next: Buffer): Promise<number> {
    const { longLineBytes, pieceBytes } = this.#sizes
    this.#detach()
    if (!this.#long && this.#filled - this.#at >= longLineBytes)
      this.#long = new LongLine(this.#base + this.#at, this.#chain.seq < 0 ? this.#chain.prefixCrc : undefined)
    if (this.#long) {
      this.#long.take(this.#room.subarray(this.#at, this.#filled))
      this.#at = this.#filled
    }
    const got = await (this.#ahead ?? this.#source.read(next, longLineBytes, pieceBytes))
    const begun = this.#filled - this.#at
    this.#room.copy(next, longLineBytes - begun, this.#at, this.#filled)
    this.#base += this.#filled - longLineBytes
    this.#at = longLineBytes - begun
    this.#filled = longLineBytes
    this.#searched = longLineBytes
    this.#nextRoom = this.#room
    this.#room = next
    this.#ahead = got > 0 ? this.#source.read(this.#nextRoom, longLineBytes, pieceBytes) : 0
    if (this.#ahead instanceof Promise) this.#ahead.catch(() => {}) // Told when it is waited for.
    return got
  }

  /** Lines that are whole in the room, up to the first that is no record.
   *
   *  One sum over many lines takes a third of the time that one for each of them takes, and shows any line that is not what its mark says: the crc
   *  of all of them together follows from those that the marks claim. If it is another, each is looked at by itself. */
  #lines(first: number): void {
    const bytes = this.#room.subarray(0, this.#filled)
    const base = this.#base
    const lines = this.#found
    lines.length = 0
    let joined = 0
    let at = this.#at
    let end = first
    for (; end >= 0; end = bytes.indexOf(0x0a, at)) {
      const mark = claimedMark(bytes, at, end)
      if (!mark) break
      const length = end + 1 - at
      joined = joinedCrc(joined, extendedCrc(mark.crc, bytes, end - 10, end + 1), length)
      lines.push({ mark, byte: base + at, length, bytes, start: at, end })
      at = end + 1
    }
    const sound = lines.length > 0 && crc32(bytes.subarray(this.#at, at)) === joined
    for (const line of lines) {
      if (!sound && !fits(line)) return this.#odd(bytes, line.start, line.end)
      this.#at = line.end + 1
      this.#searched = this.#at
      this.#record(line)
    }
    if (end >= 0) this.#odd(bytes, at, end)
  }

  #record(found: Line): void {
    const look = this.#sink.look?.(found)
    const line = look === undefined ? found : { ...found, look }
    const last = this.#pending[this.#pending.length - 1]
    if (last && !goesOn(last.mark, line.mark)) this.#judge(false)
    if (line.mark.left > 0 || this.#pending.length > 0) this.#pending.push(line)
    else return this.#chain.judgeOne(line, this.#sink)
    if (line.mark.left === 0) this.#judge(true)
  }

  #judge(whole: boolean): void {
    const lines = this.#pending
    this.#pending = []
    this.#detached = 0
    this.#chain.judge(lines, whole, this.#sink)
  }

  #odd(bytes: Buffer, start: number, end: number): void {
    if (this.#pending.length > 0) this.#judge(false)
    this.#at = end + 1
    this.#searched = this.#at
    const chain = this.#chain
    const facts =
      chain.seq < 0 ? { foreign: isForeign(bytes, start, end), crc: crc32(bytes.subarray(start, end + 1), chain.prefixCrc) } : undefined
    chain.reject(oddLine(bytes, start, end, this.#base + start), facts, this.#sink)
  }

  /** Lines that wait for the end of their batch must not be looked for in the room any more. */
  #detach(): void {
    while (this.#detached < this.#pending.length) {
      this.#pending[this.#detached] = detached(this.#pending[this.#detached]!)
      this.#detached++
    }
  }

  #endLong(long: LongLine, newline: number): void {
    long.take(this.#room.subarray(this.#at, newline))
    this.#long = undefined
    this.#at = newline + 1
    this.#searched = this.#at
    const ended = long.end()
    if (ended.line) return this.#record(ended.line)
    if (this.#pending.length > 0) this.#judge(false)
    this.#chain.reject(ended.odd, this.#chain.seq < 0 ? ended.facts : undefined, this.#sink)
  }

  end(): ScanTail {
    const bytes = this.#room.subarray(this.#at, this.#filled)
    const byte = this.#base + this.#at
    this.#chain.openTail = this.#long !== undefined || bytes.length > 0
    if (this.#long) {
      this.#long.take(bytes)
      const { byte: from, length, nuls } = this.#long
      return { pending: this.#pending, byte: from, length, nuls }
    }
    const nul = bytes.indexOf(0)
    const nuls = nul < 0 ? undefined : { from: byte + nul, to: byte + bytes.lastIndexOf(0) + 1 }
    return { pending: this.#pending, byte, length: bytes.length, nuls }
  }
}

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
import { LongLine } from './long-line.js'
import { isSystemOnly, readMark } from './record.js'

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

const usualSizes = { pieceBytes: 256 << 10, longLineBytes: 1 << 20 }
const keptBytes = 4 << 10
/** The first `size` bytes of a file: what is added meanwhile is not looked at. */
export function fileSource(disk: Disk, fd: number, size: number): ByteSource {
  let position = 0
  return {
    size,
    read(into, offset, length) {
      const got = disk.read(fd, into, offset, Math.min(length, size - position), position)
      position += got
      return got
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
  while (await scanning.step()) {
    const rest = breath.breathe()
    if (!rest) continue
    onProgress?.(scanning.bytesRead)
    await rest
    signal?.throwIfAborted()
  }
  return scanning.end()
}

/** The line with a copy of as much of its bytes as is kept. */
function detached(line: Line): Line {
  const { bytes, start, end } = line
  const length = isSystemOnly(bytes, start) ? end - start : Math.min(end - start, keptBytes)
  return { ...line, bytes: Buffer.from(bytes.subarray(start, start + length)), start: 0, end: length }
}

class Scanning {
  bytesRead = 0
  #source: ByteSource
  #chain: Chain
  #sink: ScanSink
  #sizes: typeof usualSizes
  #window: Buffer
  /** What of the window is filled, what of it has been dealt with, and what of the rest has been searched for a newline. */
  #filled = 0
  #at = 0
  #searched = 0
  /** Where in the file the window begins. */
  #base = 0
  /** Of a batch that has not ended; the first of them on bytes of their own. */
  #pending: Line[] = []
  #detached = 0
  #long: LongLine | undefined

  constructor(source: ByteSource, chain: Chain, sink: ScanSink, sizes: typeof usualSizes) {
    this.#source = source
    this.#chain = chain
    this.#sink = sink
    this.#sizes = sizes
    this.#window = Buffer.allocUnsafe(Math.min(sizes.longLineBytes + sizes.pieceBytes, (source.size ?? Number.POSITIVE_INFINITY) + 1))
  }

  /** A few lines, or a piece read. False at the end. */
  async step(): Promise<boolean> {
    const newline = this.#window.subarray(0, this.#filled).indexOf(0x0a, this.#searched)
    if (newline >= 0) {
      if (this.#long) this.#endLong(this.#long, newline)
      else this.#lines(newline)
      return true
    }
    this.#makeRoom()
    const got = await this.#source.read(this.#window, this.#filled, Math.min(this.#sizes.pieceBytes, this.#window.length - this.#filled))
    if (got <= 0) return false
    this.#filled += got
    this.bytesRead += got
    return true
  }

  /** Lines that are whole in the window; all of them, unless one takes long to look at. */
  #lines(first: number): void {
    const bytes = this.#window.subarray(0, this.#filled)
    for (let end = first; end >= 0; end = bytes.indexOf(0x0a, this.#at)) {
      const mark = readMark(bytes, this.#at, end)
      if (mark) this.#record({ mark, byte: this.#base + this.#at, length: end + 1 - this.#at, bytes, start: this.#at, end })
      else this.#odd(bytes, this.#at, end)
      this.#at = end + 1
      this.#searched = this.#at
      if (!mark) return
    }
  }

  #record(found: Line): void {
    const look = this.#sink.look?.(found)
    const line = look === undefined ? found : { ...found, look }
    const pending = this.#pending
    const last = pending[pending.length - 1]
    if (last && !goesOn(last.mark, line.mark)) this.#judge(false)
    this.#pending.push(line)
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
    const chain = this.#chain
    const facts =
      chain.seq < 0 ? { foreign: isForeign(bytes, start, end), crc: crc32(bytes.subarray(start, end + 1), chain.prefixCrc) } : undefined
    chain.reject(oddLine(bytes, start, end, this.#base + start), facts, this.#sink)
  }

  /** No newline in sight: what has been dealt with leaves the window, and a line that fills it goes through piece by piece. */
  #makeRoom(): void {
    this.#detach()
    if (!this.#long && this.#filled - this.#at >= this.#sizes.longLineBytes)
      this.#long = new LongLine(this.#base + this.#at, this.#chain.seq < 0 ? this.#chain.prefixCrc : undefined)
    if (this.#long) {
      this.#long.take(this.#window.subarray(this.#at, this.#filled))
      this.#at = this.#filled
    }
    this.#window.copyWithin(0, this.#at, this.#filled)
    this.#base += this.#at
    this.#filled -= this.#at
    this.#at = 0
    this.#searched = this.#filled
  }

  /** Lines that wait for the end of their batch must not be looked for in the window any more. */
  #detach(): void {
    while (this.#detached < this.#pending.length) {
      this.#pending[this.#detached] = detached(this.#pending[this.#detached]!)
      this.#detached++
    }
  }

  #endLong(long: LongLine, newline: number): void {
    long.take(this.#window.subarray(this.#at, newline))
    this.#long = undefined
    this.#at = newline + 1
    this.#searched = this.#at
    const ended = long.end()
    if (ended.line) return this.#record(ended.line)
    if (this.#pending.length > 0) this.#judge(false)
    this.#chain.reject(ended.odd, this.#chain.seq < 0 ? ended.facts : undefined, this.#sink)
  }

  end(): ScanTail {
    const bytes = this.#window.subarray(this.#at, this.#filled)
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

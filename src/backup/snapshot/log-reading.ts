/** The bytes of a log that somebody may be writing, cut at the end of its last whole batch, read once, by its chain.
 *
 *  Nothing is held back in memory: what the chain has passed is handed out, and what it has not is read again when it has. A log in which
 *  the chain rule finds damage is handed out whole, to its last byte: then nobody can say where it ends. */
import { type Disk, readFully } from '../../file/durable.js'
import { Chain, type ChainDamage } from '../../file/log/chain.js'
import { type Header, hex8, isSystemOnly, readBody, readMark, type Seal, sealPrefix, startsWith } from '../../file/log/record.js'

const pieceBytes = 1 << 20

/** Where a log stood when it was read before. */
export interface LogEnd {
  readonly bytes: number
  readonly seq: number
  readonly crc: string
}

/** What there is to say of a log once it has been read. */
export interface LogFacts {
  /** Of what was handed out. */
  readonly bytes: number
  /** -1 for a log without header. */
  readonly seq: number
  readonly crc: string
  readonly records: number
  readonly voidLines: number
  /** Bytes behind the cut, left out: somebody was writing them, or was killed over them. */
  readonly pendingBytes: number
  /** Undefined when reading began behind it. */
  readonly header: (Header & { readonly crc: string; readonly seq: number }) | undefined
  readonly seal: Seal | undefined
  readonly foreignLines: number
  readonly damage: ChainDamage | undefined
  /** Of the records that were asked for and are there. */
  readonly crcs: ReadonlyMap<number, string>
}

export interface LogReadingOptions {
  readonly disk: Disk
  readonly fd: number
  /** What is behind it is not looked at. */
  readonly size: number
  readonly tag: string
  /** Goes on from there instead of from the start; what `endsAt` has found true. */
  readonly from?: LogEnd | undefined
  /** Asks for these records' crcs. */
  readonly watch?: readonly number[] | undefined
  /** The cut comes before a seal that says so. */
  readonly beforeSeal?: ((seal: Seal) => boolean) | undefined
  readonly signal?: AbortSignal | undefined
}

/** Whether the record that was the last one stands where it stood. */
export function endsAt(disk: Disk, fd: number, { bytes, seq, crc }: LogEnd): boolean {
  if (seq < 0 || bytes < 2) return false
  const mark = lastLine(disk, fd, bytes)?.mark
  return mark !== undefined && mark.seq === seq && hex8(mark.crc) === crc
}

function lastLine(disk: Disk, fd: number, end: number): { mark: NonNullable<ReturnType<typeof readMark>>; isOwn: boolean } | undefined {
  for (let span = 4 << 10; ; span *= 8) {
    const from = Math.max(0, end - span)
    const bytes = readFully(disk, fd, from, end - from)
    if (bytes.length < end - from || bytes[bytes.length - 1] !== 0x0a) return undefined
    const start = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1
    if (start === 0 && from > 0) continue
    const mark = readMark(bytes, start, bytes.length - 1)
    return mark && { mark, isOwn: isSystemOnly(bytes, start) }
  }
}

export class LogReading {
  #options: LogReadingOptions
  #chain: Chain
  #header: LogFacts['header']
  #crcs = new Map<number, string>()
  #sealStart: number | undefined
  #handedOut = 0

  constructor(options: LogReadingOptions) {
    this.#options = options
    this.#chain = this.#begin()
  }

  #begin(): Chain {
    const { disk, fd, from, tag } = this.#options
    if (!from) return new Chain(tag)
    const line = lastLine(disk, fd, from.bytes)!
    this.#crcs.set(from.seq, from.crc)
    return Chain.from(tag, line.mark, from.bytes, -1, line.isOwn)
  }

  /** What follows `from.bytes`, or all of it; to be read once, to its end. */
  async *bytes(): AsyncGenerator<Buffer> {
    const { size, from, signal } = this.#options
    this.#handedOut = from?.bytes ?? 0
    for (let span = pieceBytes; this.#chain.settled < size && !this.#isOver(); ) {
      signal?.throwIfAborted()
      const before = this.#chain.settled
      const piece = this.#read(before, Math.min(span, size - before))
      // Shorter than it was: cut by somebody while it was read.
      if (piece.length === 0) break
      this.#feed(piece)
      yield* this.#passed(before, piece)
      if (before + piece.length >= size) break
      if (this.#chain.settled === before) span *= 2
      await new Promise((resolve) => setImmediate(resolve))
    }
    if (this.#takesAll()) yield* this.#upTo(size)
  }

  get facts(): LogFacts {
    const { seq, crc, records, voidLines, seal, damage, foreign } = this.#chain
    const bytes = this.#handedOut
    const cutSeal = this.#sealStart !== undefined
    return {
      bytes,
      seq: cutSeal ? seq - 1 : seq,
      crc: hex8(cutSeal ? this.#beforeSeal : crc),
      records,
      voidLines,
      pendingBytes: this.#options.size - bytes,
      header: this.#header,
      seal: cutSeal ? undefined : seal,
      foreignLines: foreign.lines,
      damage,
      crcs: this.#crcs,
    }
  }

  #beforeSeal = 0

  #feed(piece: Buffer): void {
    const { beforeSeal, watch } = this.#options
    const base = this.#chain.settled
    this.#chain.feed(piece, {
      record: (mark, bytes, start) => {
        if (watch?.includes(mark.seq)) this.#crcs.set(mark.seq, hex8(mark.crc))
        const { header } = this.#chain
        if (header && !this.#header) this.#header = { ...header, crc: hex8(mark.crc), seq: mark.seq }
        if (!beforeSeal || !startsWith(bytes, start, sealPrefix)) return
        const { seal } = readBody(bytes, start, mark).system ?? {}
        if (!seal || !beforeSeal(seal)) return
        this.#sealStart = base + start
        this.#beforeSeal = mark.prev
      },
    })
  }

  /** What the chain has passed since; mostly it is in the piece. */
  *#passed(before: number, piece: Buffer): Generator<Buffer> {
    const end = this.#sealStart ?? this.#chain.end
    if (this.#chain.damage || end <= this.#handedOut) return
    if (this.#handedOut < before) yield* this.#upTo(before)
    const from = this.#handedOut - before
    this.#handedOut = end
    yield piece.subarray(from, end - before)
  }

  *#upTo(end: number): Generator<Buffer> {
    while (this.#handedOut < end) {
      const piece = this.#read(this.#handedOut, Math.min(pieceBytes, end - this.#handedOut))
      if (piece.length === 0) return
      this.#handedOut += piece.length
      yield piece
    }
  }

  #read(from: number, length: number): Buffer {
    const { disk, fd } = this.#options
    return readFully(disk, fd, from, length)
  }

  #isOver(): boolean {
    return this.#chain.damage !== undefined || this.#sealStart !== undefined
  }

  /** Damaged, or not begun: another program's lines, a header that is being written, nothing. */
  #takesAll(): boolean {
    return this.#chain.damage !== undefined || this.#chain.seq < 0
  }
}

/** The chain rule decides what is in a log. Pure: bytes in, verdicts out.
 *
 *  Read in file order, a batch belongs to the log when each of its records is valid in itself, they follow each other, and the first has
 *  seq = last + 1 and prev = last crc. A line that breaks a batch is itself tried as the start of the next. Everything else is void.
 *  So the first batch in file order that chains is the committed one, whoever held whichever lock.
 *
 *  Void is normal (a torn line, a batch that lost a race). Damage is not, and is told apart by what only damage can bring about:
 *  - a record claims that a sequence number was on the disk which the chain does not reach;
 *  - a record written in this very boot continues something that is nowhere in the file, or something void of another writer's. Within a
 *    boot nothing goes missing by itself: killed writers leave prefixes. (Leftovers of a power cut come from an earlier boot, and were
 *    never acknowledged.)
 *  - a line that was once a record of ours: half of its mark is still there. Killed writers leave no such line, but for two that are welded:
 *    a beginning with somebody's whole line behind it. A power cut does, but it leaves NUL bytes in it, and an earlier boot's name;
 *  - lines before the header that are not those the header names. */
import { crc32 } from 'node:zlib'
import {
  claimedMark,
  type Header,
  headerPrefix,
  hex8,
  isSystemOnly,
  type LineMark,
  readBody,
  readMark,
  type Seal,
  sealPrefix,
  startsWith,
} from './record.js'

export type VoidKind = 'torn' | 'superseded' | 'sealed' | 'leftover' | 'garbage' | 'unfinished'

export interface ChainDamage {
  readonly why: string
  /** Where in the file, and the first sequence number that is missing or altered. */
  readonly byte: number
  readonly seq: number
}

export interface ChainSink {
  /** A record of the log, in order. Offsets are into `bytes`; `start` to the newline. */
  record?(mark: LineMark, bytes: Buffer, start: number, end: number): void
  void?(kind: VoidKind, byte: number, length: number): void
  /** A line of JSON without `$` before the header; whether it counts the header says. */
  foreign?(byte: number, length: number): void
}

/** The first four digits of a writer id tell the boot in which it wrote. */
export function bootTag(boot: string): string {
  return boot === '0' ? '0000' : boot.slice(-4).padStart(4, '0')
}

interface Line {
  readonly mark: LineMark
  readonly start: number
  readonly end: number
}

const noLines: readonly Line[] = []
const voidCrcsMax = 10_000
const weldSearchBytesMax = 64 << 20

export class Chain {
  /** Sequence number and crc of the last record; -1 before the header. */
  seq = -1
  crc = 0
  /** Sequence number of the last record that is not the store's own. */
  userSeq = 0
  /** Highest sequence number that any record claims to be on the disk. */
  claimed = -1
  /** End of the last line whose fate is decided. */
  settled = 0
  /** End of the last record that is in the log. */
  end = 0
  /** Whether bytes without a newline follow the last line. */
  openTail = false
  header: Header | undefined
  /** Of the header's record; undefined while it has not been read. */
  headerCrc: number | undefined
  seal: Seal | undefined
  damage: ChainDamage | undefined
  records = 0
  voidLines = 0
  /** Lines of JSON without `$` before the header; they are records of their own kind until a header says otherwise. */
  foreign = { lines: 0, bytes: 0, crc: 0 }
  #tag: string
  #prefix = { bytes: 0, crc: 0 }
  /** Of void records, who wrote them: only the same writer, in the same batch, can go on from one. */
  #voidCrcs = new Map<number, string>()
  #garbage: { end: number; crc: number; welded: boolean } | undefined

  constructor(tag: string) {
    this.#tag = tag
  }

  /** A chain that goes on from a record known to be in the log. */
  static from(tag: string, anchor: LineMark, byteAfter: number, claimed: number, isSystem: boolean): Chain {
    const chain = new Chain(tag)
    chain.seq = anchor.seq
    chain.crc = anchor.crc
    chain.userSeq = isSystem ? 0 : anchor.seq
    chain.claimed = claimed
    chain.settled = byteAfter
    chain.end = byteAfter
    return chain
  }

  /** Moves over records that their writer has just seen land: callers' records only, encoded for exactly this place. */
  advance(records: number, crc: number, bytes: number): void {
    this.seq += records
    this.userSeq = this.seq
    this.crc = crc
    this.records += records
    this.settled += bytes
    this.end = this.settled
    this.openTail = false
  }

  /** Takes the bytes that follow `settled`. Afterwards `settled` is past every line whose fate is decided: an unfinished batch at the end
   *  and a tail without newline stay undecided, and are to be fed again with what follows them. */
  feed(bytes: Buffer, sink: ChainSink = {}): void {
    const base = this.settled
    let at = 0
    for (;;) {
      const batch = this.#nextBatch(bytes, at)
      if (!batch) break
      if (batch.lines.length === 0) this.#garbageLine(bytes, at, batch.after, base, sink)
      else if (!batch.whole) this.#void('unfinished', batch.lines, base, sink)
      else this.#judge(batch.lines, bytes, base, sink)
      at = batch.after
      this.settled = base + at
      this.#checkClaims()
    }
    this.openTail = bytes.length > 0 ? bytes[bytes.length - 1] !== 0x0a : this.openTail
  }

  /** Whoever says that something was on the disk has read it here before. */
  #checkClaims(): void {
    if (this.claimed > this.seq)
      this.#damaged(`a record says that seq ${this.claimed} was on the disk, but the log ends at ${this.seq}`, this.end, this.seq + 1)
  }

  /** The next lines that stand or fall together: a batch, whole or broken off; one line that is no record; undefined when bytes are lacking. */
  #nextBatch(bytes: Buffer, at: number): { lines: readonly Line[]; whole: boolean; after: number } | undefined {
    const end = bytes.indexOf(0x0a, at)
    if (end < 0) return undefined
    const mark = readMark(bytes, at, end)
    if (!mark) return { lines: noLines, whole: false, after: end + 1 }
    const lines = [{ mark, start: at, end }]
    let last = mark
    let after = end + 1
    while (last.left > 0) {
      const lineEnd = bytes.indexOf(0x0a, after)
      if (lineEnd < 0) return undefined
      const next = readMark(bytes, after, lineEnd)
      if (!next || next.writer !== last.writer || next.seq !== last.seq + 1 || next.left !== last.left - 1 || next.prev !== last.crc)
        return { lines, whole: false, after }
      lines.push({ mark: next, start: after, end: lineEnd })
      last = next
      after = lineEnd + 1
    }
    return { lines, whole: true, after }
  }

  #judge(lines: readonly Line[], bytes: Buffer, base: number, sink: ChainSink): void {
    const first = lines[0]!.mark
    for (const { mark } of lines) if (mark.synced > this.claimed) this.claimed = mark.synced
    if (this.seq < 0) {
      if (first.prev === 0 && startsWith(bytes, lines[0]!.start, headerPrefix)) return this.#begin(lines, bytes, base, sink)
      return this.#orphan(lines, base, sink)
    }
    if (this.seal) return this.#void('sealed', lines, base, sink)
    if (first.seq === this.seq + 1 && first.prev === this.crc) return this.#accept(lines, bytes, base, sink)
    if (first.seq <= this.seq) return this.#void('superseded', lines, base, sink)
    this.#orphan(lines, base, sink)
  }

  #begin(lines: readonly Line[], bytes: Buffer, base: number, sink: ChainSink): void {
    const { start, mark } = lines[0]!
    this.header = readBody(bytes, start, mark).system?.header
    this.headerCrc = mark.crc
    const named = this.header?.foreign
    if (named && (named.bytes !== this.foreign.bytes || named.crc !== hex8(this.foreign.crc)))
      this.#damaged(`the ${named.lines} lines before the header are not those that it names`, 0, 0)
    if (!named) {
      this.voidLines += this.foreign.lines
      this.foreign = { lines: 0, bytes: 0, crc: 0 }
    }
    this.userSeq = this.foreign.lines
    this.#accept(lines, bytes, base, sink)
  }

  #accept(lines: readonly Line[], bytes: Buffer, base: number, sink: ChainSink): void {
    for (const { mark, start, end } of lines) {
      this.seq = mark.seq
      this.crc = mark.crc
      this.end = base + end + 1
      this.records++
      if (!isSystemOnly(bytes, start)) this.userSeq = mark.seq
      else if (startsWith(bytes, start, sealPrefix)) this.seal = readBody(bytes, start, mark).system?.seal
      sink.record?.(mark, bytes, start, end)
    }
  }

  /** A batch ahead of the chain: what it continues is void, or welded to a killed writer's line, or missing. */
  #orphan(lines: readonly Line[], base: number, sink: ChainSink): void {
    const { mark, start } = lines[0]!
    const welded = this.#garbage?.end === base + start && this.#garbage.crc === mark.prev && this.#garbage.welded
    if (!welded && this.#voidCrcs.get(mark.prev) !== mark.writer && this.#ofThisBoot(mark.writer))
      this.#damaged(`seq ${mark.seq} continues a record that is not in the file`, base + start, this.seq + 1)
    this.#void('leftover', lines, base, sink)
  }

  #garbageLine(bytes: Buffer, start: number, after: number, base: number, sink: ChainSink): void {
    const end = after - 1
    if (this.seq < 0 && this.#foreignLine(bytes, start, end)) {
      if (end > start) sink.foreign?.(base + start, end - start)
      return
    }
    if (end === start) return
    const claimed = claimedMark(bytes, start, end)
    const welded = claimed !== undefined && isWelded(bytes, start, end, claimed)
    if (claimed) this.#garbage = { end: base + after, crc: claimed.crc, welded }
    if (!welded && (claimed || wasRecord(bytes, start, end))) {
      const zeroed = bytes.subarray(start, end).includes(0)
      if (!zeroed || (claimed && this.#ofThisBoot(claimed.writer))) {
        const seq = claimed?.seq ?? this.seq + 1
        this.#damaged(`the line of seq ${seq} has been altered`, base + start, seq)
      }
    }
    this.voidLines++
    sink.void?.(claimed ? 'garbage' : 'torn', base + start, after - start)
  }

  /** JSON without `$` ahead of everything of ours: somebody else's transcript, which we go on with. */
  #foreignLine(bytes: Buffer, start: number, end: number): boolean {
    const clean = this.foreign.bytes === this.#prefix.bytes
    this.#prefix = { bytes: this.#prefix.bytes + end + 1 - start, crc: crc32(bytes.subarray(start, end + 1), this.#prefix.crc) }
    if (wasRecord(bytes, start, end) || !isForeign(bytes, start, end)) return false
    if (!clean) {
      if (end > start) this.#damaged('somebody else’s lines have a broken one among them', this.foreign.bytes, this.foreign.lines + 1)
      return false
    }
    this.foreign = { lines: this.foreign.lines + (end > start ? 1 : 0), ...this.#prefix }
    return true
  }

  #void(kind: VoidKind, lines: readonly Line[], base: number, sink: ChainSink): void {
    for (const { mark, start, end } of lines) {
      if (this.#voidCrcs.size < voidCrcsMax) this.#voidCrcs.set(mark.crc, mark.writer)
      this.voidLines++
      sink.void?.(kind, base + start, end + 1 - start)
    }
  }

  #ofThisBoot(writer: string): boolean {
    return this.#tag !== '0000' && writer.length === 12 && writer.startsWith(this.#tag)
  }

  #damaged(why: string, byte: number, seq: number): void {
    this.damage ??= { why, byte, seq }
  }
}

/** Whether the line is a killed writer's beginning with another's whole line behind it: then some suffix of it is a record in itself. The
 *  beginning may lack as little as its newline; but where a whole record and one byte more stand before it, that byte was a newline. */
function isWelded(bytes: Buffer, start: number, end: number, claimed: LineMark): boolean {
  let searched = 0
  for (let at = bytes.indexOf('{"', start + 1); at > 0 && at < end; at = bytes.indexOf('{"', at + 1)) {
    searched += end - at
    if (searched > weldSearchBytesMax) return false
    if (crc32(bytes.subarray(at, end - 10)) === claimed.crc) return readMark(bytes, start, at - 1) === undefined
  }
  return false
}

const markFront = /[{,]"\$":"\d{1,16}\.\d{1,7}\.(-1|\d{1,16})\./
const markBack = /\.[0-9a-f]{8}\.[0-9a-f]{8}"\}$/

/** Whether half of a mark stands at the end of the line: no single wrong byte spoils both. */
function wasRecord(bytes: Buffer, start: number, end: number): boolean {
  if (bytes[end - 1] === 0x23) return false // Broken off by the next writer, as it should be.
  const text = bytes.toString('latin1', Math.max(start, end - 128), end)
  return markFront.test(text) || markBack.test(text)
}

/** A JSON object that carries no `$`. */
function isForeign(bytes: Buffer, start: number, end: number): boolean {
  if (end === start) return true
  if (bytes[start] !== 0x7b) return false
  try {
    const object = JSON.parse(bytes.toString('utf8', start, end)) as object
    return !Object.hasOwn(object, '$')
  } catch {
    return false
  }
}

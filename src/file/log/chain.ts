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
  readMark,
  readSystem,
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
  record?(mark: LineMark, bytes: Buffer, start: number, end: number, line: Line): void
  /** A line that is in no log. @param line  a record in itself, or what is known of one that is none. */
  void?(kind: VoidKind, byte: number, length: number, line: Line | OddLine): void
  /** A line of JSON without `$` before the header; whether it counts the header says. */
  foreign?(byte: number, length: number): void
}

/** A line that is a record in itself. */
export interface Line {
  readonly mark: LineMark
  /** Where in the file it begins, and its length with the newline. */
  readonly byte: number
  readonly length: number
  /** It stands there from `start` to `end`, the newline; of a long one perhaps only the beginning (scan.ts). */
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  /** What a scan has made of it, when it was asked to. */
  readonly look?: unknown
}

/** A line that is no record. */
export interface OddLine {
  readonly mark?: undefined
  readonly byte: number
  readonly length: number
  /** What its end claims to be. */
  readonly claimed: LineMark | undefined
  /** A killed writer's beginning with another's whole line behind it. */
  readonly welded: boolean
  /** At least half of a mark stands at its end: it was a record once. */
  readonly wasRecord: boolean
  /** Ends in `#`: broken off by the next writer. */
  readonly broken: boolean
  /** From the first NUL byte in it to behind the last one, in the file. */
  readonly nuls: { readonly from: number; readonly to: number } | undefined
}

/** Of a line before any record: whether it is a JSON object without `$`, and the crc of everything up to and with its newline. */
export interface ForeignFacts {
  readonly foreign: boolean
  readonly crc: number
}

/** The first four digits of a writer id tell the boot in which it wrote. */
export function bootTag(boot: string): string {
  return boot === '0' ? '0000' : boot.slice(-4).padStart(4, '0')
}

const noLines: readonly Line[] = []
const voidCrcsMax = 10_000
export const weldSearchBytesMax = 64 << 20

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
      const batch = this.#nextBatch(bytes, at, base)
      if (!batch) break
      if (batch.lines.length > 0) this.judge(batch.lines, batch.whole, sink)
      else {
        const end = batch.after - 1
        const facts = this.seq < 0 ? this.#foreignFacts(bytes, at, end) : undefined
        this.reject(oddLine(bytes, at, end, base + at), facts, sink)
      }
      at = batch.after
    }
    this.openTail = bytes.length > 0 ? bytes[bytes.length - 1] !== 0x0a : this.openTail
  }

  /** Lines that stand or fall together, right behind `settled`: a batch, or one that is broken off. For whoever finds them in pieces; `feed` does the same. */
  judge(lines: readonly Line[], whole: boolean, sink: ChainSink): void {
    const { byte, length } = lines[lines.length - 1]!
    if (whole) this.#judge(lines, sink)
    else this.#void('unfinished', lines, sink)
    this.settled = byte + length
    this.#checkClaims()
  }

  /** The same for a record that is a batch of its own, as nearly all are in a log that one process writes. */
  judgeOne(line: Line, sink: ChainSink): void {
    const { mark, byte, length, bytes, start, end } = line
    const goesOn = mark.prev === this.crc && mark.seq === this.seq + 1 && this.seq >= 0 && !this.seal
    if (!goesOn || isSystemOnly(bytes, start)) return this.judge([line], true, sink)
    if (mark.synced > this.claimed) this.claimed = mark.synced
    this.seq = mark.seq
    this.userSeq = mark.seq
    this.crc = mark.crc
    this.end = byte + length
    this.records++
    sink.record?.(mark, bytes, start, end, line)
    this.settled = this.end
    if (this.claimed > this.seq) this.#checkClaims()
  }

  /** A line that is no record, right behind `settled`. @param facts  as long as there has been no record. */
  reject(line: OddLine, facts: ForeignFacts | undefined, sink: ChainSink): void {
    this.#reject(line, facts, sink)
    this.settled = line.byte + line.length
    this.#checkClaims()
  }

  /** Crc of everything so far, as long as there has been no record. */
  get prefixCrc(): number {
    return this.#prefix.crc
  }

  /** Whoever says that something was on the disk has read it here before. */
  #checkClaims(): void {
    if (this.claimed > this.seq)
      this.#damaged(`a record says that seq ${this.claimed} was on the disk, but the log ends at ${this.seq}`, this.end, this.seq + 1)
  }

  /** The next lines that stand or fall together: a batch, whole or broken off; one line that is no record; undefined when bytes are lacking. */
  #nextBatch(bytes: Buffer, at: number, base: number): { lines: readonly Line[]; whole: boolean; after: number } | undefined {
    const end = bytes.indexOf(0x0a, at)
    if (end < 0) return undefined
    const mark = readMark(bytes, at, end)
    if (!mark) return { lines: noLines, whole: false, after: end + 1 }
    const lines: Line[] = [{ mark, byte: base + at, length: end + 1 - at, bytes, start: at, end }]
    let last = mark
    let after = end + 1
    while (last.left > 0) {
      const lineEnd = bytes.indexOf(0x0a, after)
      if (lineEnd < 0) return undefined
      const next = readMark(bytes, after, lineEnd)
      if (!next || !goesOn(last, next)) return { lines, whole: false, after }
      lines.push({ mark: next, byte: base + after, length: lineEnd + 1 - after, bytes, start: after, end: lineEnd })
      last = next
      after = lineEnd + 1
    }
    return { lines, whole: true, after }
  }

  #judge(lines: readonly Line[], sink: ChainSink): void {
    const { mark: first, bytes, start } = lines[0]!
    for (const { mark } of lines) if (mark.synced > this.claimed) this.claimed = mark.synced
    if (this.seq < 0) {
      if (first.prev === 0 && startsWith(bytes, start, headerPrefix)) return this.#begin(lines, sink)
      return this.#orphan(lines, sink)
    }
    if (this.seal) return this.#void('sealed', lines, sink)
    if (first.seq === this.seq + 1 && first.prev === this.crc) return this.#accept(lines, sink)
    if (first.seq <= this.seq) return this.#void('superseded', lines, sink)
    this.#orphan(lines, sink)
  }

  #begin(lines: readonly Line[], sink: ChainSink): void {
    const { bytes, start, mark } = lines[0]!
    this.header = readSystem(bytes, start, mark).header
    this.headerCrc = mark.crc
    const named = this.header?.foreign
    if (named && (named.bytes !== this.foreign.bytes || named.crc !== hex8(this.foreign.crc)))
      this.#damaged(`the ${named.lines} lines before the header are not those that it names`, 0, 0)
    if (!named) {
      this.voidLines += this.foreign.lines
      this.foreign = { lines: 0, bytes: 0, crc: 0 }
    }
    this.userSeq = this.foreign.lines
    this.#accept(lines, sink)
  }

  #accept(lines: readonly Line[], sink: ChainSink): void {
    for (const line of lines) {
      const { mark, byte, length, bytes, start, end } = line
      this.seq = mark.seq
      this.crc = mark.crc
      this.end = byte + length
      this.records++
      if (!isSystemOnly(bytes, start)) this.userSeq = mark.seq
      else if (startsWith(bytes, start, sealPrefix)) this.seal = readSystem(bytes, start, mark).seal
      sink.record?.(mark, bytes, start, end, line)
    }
  }

  /** A batch ahead of the chain: what it continues is void, or welded to a killed writer's line, or missing. */
  #orphan(lines: readonly Line[], sink: ChainSink): void {
    const { mark, byte } = lines[0]!
    const welded = this.#garbage?.end === byte && this.#garbage.crc === mark.prev && this.#garbage.welded
    if (!welded && this.#voidCrcs.get(mark.prev) !== mark.writer && this.#ofThisBoot(mark.writer))
      this.#damaged(`seq ${mark.seq} continues a record that is not in the file`, byte, this.seq + 1)
    this.#void('leftover', lines, sink)
  }

  #reject(line: OddLine, facts: ForeignFacts | undefined, sink: ChainSink): void {
    const { byte, length, claimed, welded } = line
    if (facts && this.#foreignLine(line, facts)) {
      if (length > 1) sink.foreign?.(byte, length - 1)
      return
    }
    if (length === 1) return
    if (claimed) this.#garbage = { end: byte + length, crc: claimed.crc, welded }
    if (isAltered(line) && (!line.nuls || (claimed && this.#ofThisBoot(claimed.writer)))) {
      const seq = claimed?.seq ?? this.seq + 1
      this.#damaged(`the line of seq ${seq} has been altered`, byte, seq)
    }
    this.voidLines++
    sink.void?.(claimed ? 'garbage' : 'torn', byte, length, line)
  }

  /** JSON without `$` ahead of everything of ours: somebody else's transcript, which we go on with. */
  #foreignLine({ length, wasRecord }: OddLine, facts: ForeignFacts): boolean {
    const clean = this.foreign.bytes === this.#prefix.bytes
    this.#prefix = { bytes: this.#prefix.bytes + length, crc: facts.crc }
    if (wasRecord || !facts.foreign) return false
    if (!clean) {
      if (length > 1) this.#damaged('somebody else’s lines have a broken one among them', this.foreign.bytes, this.foreign.lines + 1)
      return false
    }
    this.foreign = { lines: this.foreign.lines + (length > 1 ? 1 : 0), ...this.#prefix }
    return true
  }

  #foreignFacts(bytes: Buffer, start: number, end: number): ForeignFacts {
    return { foreign: isForeign(bytes, start, end), crc: crc32(bytes.subarray(start, end + 1), this.#prefix.crc) }
  }

  #void(kind: VoidKind, lines: readonly Line[], sink: ChainSink): void {
    for (const line of lines) {
      const { mark, byte, length } = line
      if (this.#voidCrcs.size < voidCrcsMax) this.#voidCrcs.set(mark.crc, mark.writer)
      this.voidLines++
      sink.void?.(kind, byte, length, line)
    }
  }

  #ofThisBoot(writer: string): boolean {
    return this.#tag !== '0000' && writer.length === 12 && writer.startsWith(this.#tag)
  }

  #damaged(why: string, byte: number, seq: number): void {
    this.damage ??= { why, byte, seq }
  }
}

/** Whether the record is the next one of the same batch. */
export function goesOn(last: LineMark, next: LineMark): boolean {
  return next.writer === last.writer && next.seq === last.seq + 1 && next.left === last.left - 1 && next.prev === last.crc
}

/** A record once, and none now; that alone is not damage where a power cut may have done it. */
export function isAltered({ claimed, wasRecord, welded }: OddLine): boolean {
  return !welded && (claimed !== undefined || wasRecord)
}

/** What there is to know of a line that is no record. @param byte  where in the file it begins */
export function oddLine(bytes: Buffer, start: number, end: number, byte: number): OddLine {
  const claimed = claimedMark(bytes, start, end)
  const nul = bytes.subarray(start, end).indexOf(0)
  return {
    byte,
    length: end + 1 - start,
    claimed,
    welded: claimed !== undefined && isWelded(bytes, start, end, claimed),
    wasRecord: wasRecord(bytes, start, end),
    broken: bytes[end - 1] === 0x23,
    nuls: nul < 0 ? undefined : { from: byte + nul, to: byte + bytes.lastIndexOf(0, end - 1) - start + 1 },
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
export function wasRecord(bytes: Buffer, start: number, end: number): boolean {
  if (bytes[end - 1] === 0x23) return false // Broken off by the next writer, as it should be.
  const text = bytes.toString('latin1', Math.max(start, end - 128), end)
  return markFront.test(text) || markBack.test(text)
}

/** A JSON object that carries no `$`. */
export function isForeign(bytes: Buffer, start: number, end: number): boolean {
  if (end === start) return true
  if (bytes[start] !== 0x7b) return false
  try {
    const object = JSON.parse(bytes.toString('utf8', start, end)) as object
    return !Object.hasOwn(object, '$')
  } catch {
    return false
  }
}

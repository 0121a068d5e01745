/** Finds out, from the bytes of a damaged log, which records were in it.
 *
 *  The chain rule stops at the first thing that cannot be. Behind it stand records that are whole: each says its place by its number and what
 *  it continues. So the file falls into runs, each of which chains by itself, and those that were in the log are put in the order of their
 *  numbers. Where two lay claim to the same place, the one that somebody has continued was in the log: no writer continues what is void.
 *  A batch that nobody continued and that another contradicts was a late one; it was never acknowledged.
 *
 *  Bytes are fed once, from the start to the end. What is remembered is four bytes a record. */
import { crc32 } from 'node:zlib'
import { type Header, headerPrefix, hex8, type LineMark, readBody, readMark, sealPrefix, startsWith } from '../../file/log/record.js'
import { judgeLine, type Whole } from './broken-line.js'
import { addPiece, Run, type Unit } from './run.js'

/** Of one line without newline, or of several next to each other that are no records. */
export interface Gap {
  readonly start: number
  end: number
  /** How many lines were records once. */
  altered: number
  /** What the first of them says its number is. */
  readonly seq: number | undefined
  nul: boolean
}

/** What counts only if something that counts continues it. */
export interface Weak extends Whole {
  readonly header?: Header | undefined
}

interface ForeignLine {
  readonly start: number
  readonly end: number
  readonly sound: boolean
}

const weakMax = 100_000

export class Salvage {
  readonly runs: Run[] = []
  /** Broken lines, those that damage may have made. */
  readonly gaps: Gap[] = []
  /** Lines without `$` before everything, and how many bytes they have; sound ones are JSON objects. */
  readonly foreign: ForeignLine[] = []
  readonly weak = new Map<number, Weak>()
  size = 0
  /** Of all bytes fed. */
  crc = 0
  /** What the file ends with that has no newline. */
  tail: { readonly start: number; readonly whole: Whole | undefined } | undefined
  #current: Run | undefined
  #ends = new Map<number, Run>()
  #unit: Unit | undefined

  /** Takes the bytes that follow those taken before; gives back how many were taken: whole lines only, unless these are the last. */
  feed(bytes: Buffer, isLast: boolean): number {
    let at = 0
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, at)) {
      this.#line(bytes, at, end)
      at = end + 1
    }
    if (isLast && at < bytes.length) {
      const mark = readMark(bytes, at, bytes.length)
      this.tail = {
        start: this.size + at,
        whole: mark && { mark, start: this.size + at, end: this.size + bytes.length },
      }
      if (!mark) this.#broken(bytes, at, bytes.length)
      at = bytes.length
    }
    this.crc = crc32(bytes.subarray(0, at), this.crc)
    this.size += at
    if (isLast) this.#close()
    return at
  }

  /** Whether the lines without `$` are those that the header names. */
  foreignIntact(named: Header['foreign'], prefixCrc: (bytes: number) => number): boolean {
    return named !== undefined && this.foreign.every(({ sound }) => sound) && hex8(prefixCrc(named.bytes)) === named.crc
  }

  #line(bytes: Buffer, start: number, end: number): void {
    const mark = readMark(bytes, start, end)
    if (!mark) return this.#noRecord(bytes, start, end)
    this.#record(bytes, start, { mark, start: this.size + start, end: this.size + end + 1 })
  }

  /** @param start  of its line in `bytes`; in `record` it is that in the file */
  #record(bytes: Buffer, start: number, record: Whole): void {
    const { mark } = record
    const unit = this.#unit
    const from = record.start
    if (unit && unit.left > 0) {
      const last = unit.crcs[unit.crcs.length - 1]!
      // The same line once more.
      if (mark.crc === last && mark.seq === unit.last) return
      if (mark.writer === unit.writer && mark.seq === unit.last + 1 && mark.left === unit.left - 1 && mark.prev === last) {
        unit.last = mark.seq
        unit.left = mark.left
        addPiece(unit.pieces, [from, record.end])
        unit.crcs.push(mark.crc)
        if (startsWith(bytes, start, sealPrefix)) unit.seal = { seal: readBody(bytes, start, mark).system!.seal!, start: from }
        return
      }
    }
    this.#close()
    this.#unit = this.#begun(bytes, start, record)
  }

  #begun(bytes: Buffer, start: number, { mark, start: from, end }: Whole): Unit {
    const { seq, prev, writer, left, crc } = mark
    const begun: Unit = { first: seq, last: seq, prev, writer, pieces: [[from, end]], left, crcs: [crc] }
    const header = headerIn(bytes, start, mark)
    if (header) return { ...begun, header: { header, seq, crc, at: [from, end] } }
    if (startsWith(bytes, start, sealPrefix)) begun.seal = { seal: readBody(bytes, start, mark).system!.seal!, start: from }
    return begun
  }

  /** The unit is complete, or broken off: it goes on from a run, or is void, or begins one. */
  #close(): void {
    const unit = this.#unit
    if (!unit) return
    this.#unit = undefined
    const run = this.#current?.continuedBy(unit) ? this.#current : this.#endingWith(unit)
    // The same once more; a copy of its beginning is not to be what goes on.
    if (run && run !== this.#current && this.#hasAlready(unit)) return
    if (run && (unit.left === 0 || !run.whole)) {
      if (run !== this.#current) this.#switchTo(run)
      run.add(unit)
      return
    }
    if (this.#hasAlready(unit)) return
    // A rival that came too late: what it continues has been continued.
    if (!run && unit.prev !== 0 && this.runs.some((it) => it.last >= unit.first && it.crcOf(unit.first - 1) === unit.prev)) return
    const begun = new Run(unit)
    this.runs.push(begun)
    if (unit.left === 0 || !run) this.#switchTo(begun)
    else this.#ends.set(begun.crc, begun)
  }

  #hasAlready({ first, last, crcs }: Unit): boolean {
    return this.runs.some((it) => it.crcOf(first) === crcs[0] && it.crcOf(last) === crcs[crcs.length - 1])
  }

  #endingWith(unit: Unit): Run | undefined {
    const run = this.#ends.get(unit.prev)
    return run?.continuedBy(unit) ? run : undefined
  }

  #switchTo(run: Run): void {
    if (this.#current) this.#ends.set(this.#current.crc, this.#current)
    this.#ends.delete(run.crc)
    this.#current = run
  }

  #noRecord(bytes: Buffer, start: number, end: number): void {
    if (end === start) return
    if (this.runs.length === 0 && !this.#unit && this.#isForeign(bytes, start, end)) return
    this.#broken(bytes, start, end)
  }

  #broken(bytes: Buffer, start: number, end: number): void {
    const verdict = judgeLine(bytes, start, end)
    const base = this.size
    // A record's newline is its own, where it has one.
    const endOf = (to: number) => base + to + (to === end && to < bytes.length ? 1 : 0)
    if (verdict.kind === 'separated') {
      for (const { mark, start: at, end: to } of verdict.records) this.#record(bytes, at, { mark, start: base + at, end: endOf(to) })
      return
    }
    if (verdict.kind === 'torn') return
    if (verdict.kind === 'doubtful' && this.weak.size < weakMax)
      for (const { mark, start: from, end: to } of verdict.records)
        this.weak.set(mark.crc, { mark, start: base + from, end: endOf(to), header: headerIn(bytes, from, mark) })
    const altered = verdict.kind === 'altered' || verdict.altered
    const seq = verdict.kind === 'altered' ? verdict.seq : undefined
    const nul = bytes.subarray(start, end).includes(0)
    const before = this.gaps[this.gaps.length - 1]
    if (before?.end === base + start) {
      before.end = base + end + 1
      before.altered += altered ? 1 : 0
      before.nul ||= nul
    } else this.gaps.push({ start: base + start, end: base + end + 1, altered: altered ? 1 : 0, seq, nul })
  }

  /** A line of another program, or one that was. */
  #isForeign(bytes: Buffer, start: number, end: number): boolean {
    // What has nothing of an object is our own: a header that is broken, or nothing at all.
    if (bytes[start] !== 0x7b) return false
    const sound = isPlainObject(bytes.toString('utf8', start, end))
    if (!sound && (this.foreign.length === 0 || startsWith(bytes, start, '{"$$":'))) return false
    this.foreign.push({ start: this.size + start, end: this.size + end, sound })
    return true
  }
}

function headerIn(bytes: Buffer, start: number, mark: LineMark): Header | undefined {
  if (mark.prev !== 0 || !startsWith(bytes, start, headerPrefix)) return undefined
  try {
    return readBody(bytes, start, mark).system?.header
  } catch {
    return undefined // Altered after all: nobody can tell what it was.
  }
}

function isPlainObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) && !Object.hasOwn(value, '$') && !Object.hasOwn(value, '$$')
  } catch {
    return false
  }
}

/** Runs: what stands in a damaged log and chains by itself. A sound log is one run, from its header to its end; where bytes are missing
 *  or altered, another begins. */
import type { Header, Seal } from '../../file/log/record.js'

export interface HeaderLine {
  readonly header: Header
  readonly seq: number
  readonly crc: number
  /** Where its line stands. */
  readonly at: [from: number, to: number]
}

/** Lines that stand one behind the other, of one writer, each continuing the one before: a batch, or what is left of one. */
export interface Unit {
  readonly first: number
  last: number
  readonly prev: number
  readonly writer: string
  /** Where its lines stand. */
  readonly pieces: [from: number, to: number][]
  /** Of the last line: how many of the batch are missing behind it. */
  left: number
  readonly crcs: number[]
  readonly header?: HeaderLine | undefined
  seal?: { readonly seal: Seal; readonly start: number } | undefined
}

/** Next to the last piece, or a piece of its own. */
export function addPiece(pieces: [from: number, to: number][], [from, to]: readonly [from: number, to: number]): void {
  const last = pieces[pieces.length - 1]
  if (last?.[1] === from) last[1] = to
  else pieces.push([from, to])
}

export class Run {
  first: number
  last: number
  /** What its first record continues. */
  prev: number
  crc: number
  /** Whether its last batch is there to its end. */
  whole: boolean
  left: number
  writer: string
  readonly firstWriter: string
  batches = 1
  /** Where its last batch begins. */
  lastBatch: { seq: number; byte: number }
  readonly header: HeaderLine | undefined
  seal: Unit['seal']
  #pieces: [from: number, to: number][]
  #crcs: Uint32Array
  /** Sequence number of the first of `#crcs`. */
  #crcsFrom: number

  constructor(unit: Unit) {
    this.first = unit.first
    this.last = unit.last
    this.prev = unit.prev
    this.crc = unit.crcs[unit.crcs.length - 1]!
    this.whole = unit.left === 0
    this.left = unit.left
    this.writer = unit.writer
    this.firstWriter = unit.writer
    this.lastBatch = { seq: unit.first, byte: unit.pieces[0]![0] }
    this.header = unit.header
    this.seal = unit.seal
    this.#pieces = [...unit.pieces]
    this.#crcs = Uint32Array.from(unit.crcs)
    this.#crcsFrom = unit.first
  }

  /** Where its first line begins. */
  get byte(): number {
    return this.#pieces[0]?.[0] ?? 0
  }

  get end(): number {
    return this.#pieces[this.#pieces.length - 1]?.[1] ?? 0
  }

  get pieces(): readonly (readonly [from: number, to: number])[] {
    return this.#pieces
  }

  continuedBy(unit: { readonly first: number; readonly prev: number }): boolean {
    return unit.first === this.last + 1 && unit.prev === this.crc
  }

  add(unit: Unit): void {
    for (const piece of unit.pieces) addPiece(this.#pieces, piece)
    if (unit.writer !== this.writer) {
      this.batches++
      this.lastBatch = { seq: unit.first, byte: unit.pieces[0]![0] }
    }
    const used = this.last + 1 - this.#crcsFrom
    if (used + unit.crcs.length > this.#crcs.length) {
      const room = new Uint32Array(Math.max(64, (used + unit.crcs.length) * 2))
      room.set(this.#crcs.subarray(0, used))
      this.#crcs = room
    }
    this.#crcs.set(unit.crcs, used)
    this.last = unit.last
    this.crc = unit.crcs[unit.crcs.length - 1]!
    this.whole = unit.left === 0
    this.left = unit.left
    this.writer = unit.writer
    this.seal = unit.seal
  }

  /** Puts a single record in front. */
  prepend(record: {
    readonly seq: number
    readonly prev: number
    readonly crc: number
    readonly start: number
    readonly end: number
  }): void {
    const crcs = new Uint32Array(this.last - this.first + 2)
    crcs[0] = record.crc
    crcs.set(this.#crcs.subarray(0, this.last - this.first + 1), 1)
    this.#crcs = crcs
    this.#crcsFrom = record.seq
    this.#pieces.unshift([record.start, record.end])
    this.first = record.seq
    this.prev = record.prev
    this.batches++
  }

  /** undefined when the number is none of this run's. */
  crcOf(seq: number): number | undefined {
    return seq >= this.first && seq <= this.last ? this.#crcs[seq - this.#crcsFrom] : undefined
  }

  /** Leaves out everything from the record `seq` on, which stands at `byte`. False when nothing is left. */
  cut(seq: number, byte: number): boolean {
    if (seq <= this.first) return false
    this.#pieces = this.#pieces.filter(([from]) => from < byte).map(([from, to]) => [from, Math.min(to, byte)])
    this.last = seq - 1
    this.crc = this.#crcs[this.last - this.#crcsFrom]!
    this.whole = true
    this.left = 0
    this.seal = undefined
    return true
  }
}

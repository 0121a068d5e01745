/** What a log's lines come to, as findings. Pure: it is told of every line by a scan, and of the end by `finish`.
 *
 *  What stands in no log is told at once, but for whole records that continue nothing: whether they are leftovers or cut off by a hole
 *  is the whole log's to say (islands.ts). */

import { type Chain, type ChainSink, isAltered, type Line, type OddLine, type VoidKind } from '../../file/log/chain.js'
import type { ScanTail } from '../../file/log/scan.js'
import type { Range } from '../../findings.js'
import type { FindingList, Found } from './finding-list.js'
import { type Island, Islands } from './islands.js'
import { meanings } from './meanings.js'

/** An altered line, one with NULs in it, or two in one: it may be what is missing between two islands. */
interface Scar {
  readonly kind: 'altered-line' | 'nul-run' | 'void-welded'
  readonly bytes: Range
  /** What it claims to be. */
  readonly seq: number | undefined
  readonly nuls: Range | undefined
}

const scarsMax = 10_000

export class LogFindings {
  readonly list: FindingList
  readonly islands = new Islands()
  readonly sink: ChainSink
  #chain: Chain
  #scars: Scar[] = []
  /** Whole records without a place, as they stand in the file. */
  #strays: { kind: 'leftover' | 'unfinished'; bytes: Range; seqs: Range; count: number }[] = []

  constructor(list: FindingList, chain: Chain) {
    this.list = list
    this.#chain = chain
    this.sink = {
      record: (mark) => {
        if (this.islands.list.length > 0) this.islands.overtakenBy(mark.seq)
      },
      void: (kind, _byte, _length, line) => (line.mark ? this.#stray(kind, line) : this.#odd(line)),
    }
  }

  #stray(kind: VoidKind, line: Line): void {
    const { mark, byte, length } = line
    const bytes = { from: byte, to: byte + length }
    const seqs = { from: mark.seq, to: mark.seq }
    const ahead = mark.seq > this.#chain.seq && !this.#chain.seal
    if (ahead && (kind === 'leftover' || kind === 'unfinished') && this.islands.add(line)) this.#noteStray(kind, bytes, seqs)
    else if (kind === 'superseded' || kind === 'sealed' || kind === 'unfinished') this.#tell(`void-${kind}`, { bytes, seqs })
    else this.#tell('void-leftover', { bytes, seqs })
  }

  #noteStray(kind: 'leftover' | 'unfinished', bytes: Range, seqs: Range): void {
    const last = this.#strays[this.#strays.length - 1]
    if (last?.bytes.to === bytes.from && last.seqs.to + 1 === seqs.from && last.kind === kind) {
      last.bytes = { from: last.bytes.from, to: bytes.to }
      last.seqs = { from: last.seqs.from, to: seqs.to }
      last.count++
    } else if (this.#strays.length < scarsMax) this.#strays.push({ kind, bytes, seqs, count: 1 })
    else this.#tell(`void-${kind}`, { bytes, seqs })
  }

  #odd(line: OddLine): void {
    const bytes = { from: line.byte, to: line.byte + line.length }
    const seqs = line.claimed && { from: line.claimed.seq, to: line.claimed.seq }
    const kind = line.nuls ? 'nul-run' : isAltered(line) ? 'altered-line' : line.welded ? 'void-welded' : undefined
    if (kind && this.#scars.length < scarsMax) this.#scars.push({ kind, bytes, seq: line.claimed?.seq, nuls: line.nuls })
    else if (kind) this.#tell(kind, { bytes, seqs })
    else if (line.broken) this.#tell('void-torn', { bytes })
    else this.#tell('void-garbage', { bytes })
  }

  #tell(kind: keyof typeof meanings, where: Partial<Found>): void {
    this.list.add({ kind, ...meanings[kind], ...where })
  }

  /** All has been read. */
  finish(tail: ScanTail): void {
    const { damage, seq, end } = this.#chain
    const islands = this.islands.list
    if (damage) {
      let before = { seq, byte: end, crc: this.#chain.crc }
      for (const island of islands) {
        this.#hole(before, island)
        before = { seq: island.to, byte: island.end, crc: island.crc }
      }
      this.#holeAtEnd(before, tail.byte + tail.length)
    }
    for (const { kind, ...where } of this.#strays) {
      const isStranded = damage !== undefined && islands.some((island) => lies(where, island))
      this.#tell(isStranded ? 'stranded-records' : `void-${kind}`, where)
    }
    for (const { kind, bytes, seq: claimed, nuls } of this.#scars) {
      const seqs = claimed === undefined ? undefined : { from: claimed, to: claimed }
      const severity = kind === 'nul-run' && !damage ? 'warning' : meanings[kind].severity
      this.list.add({ kind, ...meanings[kind], severity, bytes: nuls ?? bytes, seqs })
    }
    if (damage && !this.list.findings.some(({ severity }) => severity === 'damage')) this.#otherDamage(damage)
    this.#tail(tail)
  }

  /** Between what is in the log, or an island, and the island after it. */
  #hole(before: { readonly seq: number; readonly byte: number; readonly crc: number }, island: Island): void {
    const seqs = { from: before.seq + 1, to: island.from - 1 }
    if (seqs.from > seqs.to) return
    this.#missing(seqs, { from: before.byte, to: island.byte }, before.seq < 0)
  }

  #holeAtEnd(before: { readonly seq: number; readonly byte: number }, end: number): void {
    const after = this.#scars.filter(({ bytes }) => bytes.from >= before.byte)
    const claimed = after.reduce((most, { seq }) => Math.max(most, seq ?? 0), -1)
    // An altered line may claim anything; but each was one record.
    const possible = after.some(({ nuls }) => nuls) ? claimed : Math.min(claimed, before.seq + after.length)
    const upTo = Math.max(this.#chain.claimed, possible)
    if (upTo > before.seq) this.#missing({ from: before.seq + 1, to: upTo }, { from: before.byte, to: end }, before.seq < 0)
  }

  /** What lies between is told as what is missing, where it is enough to be that; it takes the numbers that are missing. */
  #missing(seqs: Range, bytes: Range, isStart: boolean): void {
    const between = this.#scars.filter((scar) => scar.bytes.from >= bytes.from && scar.bytes.to <= bytes.to)
    this.#scars = this.#scars.filter((scar) => !between.includes(scar))
    for (const [at, scar] of between.entries()) {
      const kind = isStart && at === 0 && scar.bytes.from === 0 ? 'header-damaged' : scar.kind
      const claimed = scar.seq === undefined || scar.seq < seqs.from || scar.seq > seqs.to ? undefined : { from: scar.seq, to: scar.seq }
      const alone = between.length === 1 && (scar.kind !== 'altered-line' || seqs.from === seqs.to)
      const where = { bytes: kind === 'nul-run' ? scar.nuls : scar.bytes, seqs: alone ? seqs : claimed }
      this.list.add({ kind, ...meanings[kind], severity: 'damage', repairable: true, ...where })
    }
    // Zeros and welds may be any number of records; an altered line is one.
    if (between.some(({ kind }) => kind !== 'altered-line') || between.length > seqs.to - seqs.from) return
    const at = between.length > 0 ? between[between.length - 1]!.bytes.to : bytes.to
    const kind = isStart && between.length === 0 ? 'header-missing' : 'missing-bytes'
    this.#tell(kind, { bytes: { from: at, to: at }, seqs, count: seqs.to - seqs.from + 1 - between.length })
  }

  /** Somebody else's lines before the header that are not those it names. */
  #otherDamage({ byte, seq, why }: { readonly byte: number; readonly seq: number; readonly why: string }): void {
    const { meaning } = meanings['altered-line']
    const bytes = { from: byte, to: byte }
    this.list.add({ kind: 'altered-line', ...meanings['altered-line'], meaning: `${why}. ${meaning}`, bytes, seqs: { from: seq, to: seq } })
  }

  #tail({ pending, byte, length, nuls }: ScanTail): void {
    const first = pending[0]
    if (first)
      this.#tell('torn-tail', {
        bytes: { from: first.byte, to: byte },
        seqs: { from: first.mark.seq, to: pending[pending.length - 1]!.mark.seq },
        count: pending.length,
      })
    if (nuls) this.list.add({ kind: 'nul-run', ...meanings['nul-run'], severity: 'warning', bytes: nuls })
    if (length > 0) this.#tell('torn-tail', { bytes: { from: byte, to: byte + length } })
  }
}

function lies({ bytes, seqs }: { readonly bytes: Range; readonly seqs: Range }, { from, to, byte, end }: Island): boolean {
  return bytes.from >= byte && bytes.to <= end && seqs.from >= from && seqs.to <= to
}

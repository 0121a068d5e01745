/** Puts the runs of a damaged log in the order in which they were written, and says what is missing between them. Pure. */
import { type Header, hex8 } from '../../file/log/record.js'
import { type HeaderLine, Run } from './run.js'
import type { Gap, Salvage, Weak } from './salvage.js'

export interface About {
  /** As the file's name says. */
  readonly sessionId: string
  /** Up to where the metadata knows the log to have been on the disk; -1 where it does not say. */
  readonly knownSeq: number
  /** Crc of the header of the file of which that was said; undefined where nothing was. */
  readonly knownHeader: number | undefined
  /** Earlier records of the session were moved to the archive: a log that begins later than with 1 lacks nothing. */
  readonly hasEarlier: boolean
}

export interface Assembled {
  readonly header: HeaderLine | undefined
  /** Crc of the header, when only that is known. */
  readonly headerCrc: number | undefined
  readonly headerSeq: number
  /** Whether the lines of another program before the header stay as they are: so many bytes. */
  readonly prefix: number
  readonly foreign: readonly (readonly [from: number, to: number, seq: number])[]
  readonly keep: readonly (readonly [from: number, to: number])[]
  readonly records: number
  /** Inclusive. */
  readonly lost: readonly { readonly from: number; readonly to: number }[]
  readonly upTo: number
  readonly last: { readonly seq: number; readonly crc: number }
}

/** More numbers than that are not missing: what claims to come so far behind is not of this log. */
const missingMax = 10_000_000

/** @param prefixCrc  CRC-32 of so many bytes from the start of the file */
export function assemble(salvage: Salvage, about: About, prefixCrc: (bytes: number) => number): Assembled {
  reviveTail(salvage, about)
  reviveDoubtful(salvage)
  const main = salvage.runs.find(({ header }) => header && (header.header.sessionId ?? about.sessionId) === about.sessionId)
  const path = main ? [main] : []
  const parts: Run[] = []
  for (const run of salvage.runs.filter((it) => it !== main).sort((a, b) => a.first - b.first || a.byte - b.byte)) {
    preferPart(path, parts, run, main)
    if (!place(path, parts, run, salvage.gaps, main)) parts.push(run)
  }
  for (const part of parts) fillGap(path, part)
  dropUnfinished(path, salvage.gaps, about)
  return withNumbers(path, main?.header, salvage, about, prefixCrc)
}

/** A last line that lacks nothing but its newline was acknowledged only if the metadata has seen it. */
function reviveTail({ tail, weak }: Salvage, { knownSeq }: About): void {
  if (tail?.whole && tail.whole.mark.seq <= knownSeq) weak.set(tail.whole.mark.crc, tail.whole)
}

/** What is doubtful in itself was in the log when a run goes on from it. */
function reviveDoubtful({ runs, weak }: Salvage): void {
  for (const run of [...runs]) {
    for (;;) {
      const before = weak.get(run.prev)
      if (!before || before.mark.seq !== run.first - 1 || before.start === run.byte) break
      weak.delete(run.prev)
      if (before.header) {
        runs.push(headerRun(before, before.header))
        break
      }
      run.prepend({ ...before.mark, start: before.start, end: before.end })
    }
  }
}

function headerRun({ mark, start, end }: Weak, header: Header): Run {
  const { seq, crc, prev, writer } = mark
  const line: HeaderLine = { header, seq, crc, at: [start, end] }
  return new Run({ first: seq, last: seq, prev, writer, pieces: [[start, end]], left: 0, crcs: [crc], header: line })
}

/** True when it has its place. */
function place(path: Run[], parts: Run[], run: Run, gaps: readonly Gap[], main: Run | undefined): boolean {
  for (;;) {
    const last = path[path.length - 1]
    if (!last || run.first > last.last + 1) {
      if (last && (run.first - last.last > missingMax || isAnothersBeginning(run, main))) return false
      path.push(run)
      return true
    }
    // The same records once more.
    if (run.last <= last.last && last.crcOf(run.last) === run.crc) return true
    const linked = isLinked(run, last)
    if (linked && run.first === last.last + 1) return path.push(run) > 0
    // From here on two cannot both have been in the log.
    if (!outweighs(run, last, linked, gaps)) {
      // Where nothing says which of the two it was, both are whole, and there is a place for each, both stay.
      return run.first > last.last && run.whole && path.push(run) > 0
    }
    if (last.lastBatch.seq <= last.first) parts.push(last)
    if (!cutLastBatch(path, main)) return false
  }
}

/** Whether it continues a record of the other, or the same that the other continues. */
function isLinked(run: Run, other: Run): boolean {
  return other.crcOf(run.first - 1) === run.prev || (run.first === other.first && run.prev === other.prev)
}

/** False for what cannot be cut off: a log is not without its header for what stands behind it. */
function cutLastBatch(path: Run[], main: Run | undefined): boolean {
  const last = path[path.length - 1]!
  const { seq, byte } = last.lastBatch
  if (seq <= last.first && last === main) return false
  if (!last.cut(seq, byte)) path.pop()
  return true
}

/** A batch that has lost its end was in the log, and its rival was not, if somebody has counted on the number of its end. */
function preferPart(path: Run[], parts: readonly Run[], run: Run, main: Run | undefined): void {
  const last = path[path.length - 1]
  if (!last || run.first <= last.last + 1) return
  const part = parts.find(
    (it) => it.first >= last.lastBatch.seq && isLinked(it, last) && (it.writer === run.firstWriter || it.last + it.left + 1 === run.first),
  )
  if (part && cutLastBatch(path, main)) path.push(part)
}

/** Of two that contradict each other, what somebody has continued was in the log. */
function outweighs(run: Run, last: Run, linked: boolean, gaps: readonly Gap[]): boolean {
  const from = linked ? run.first : run.first - 1
  if (from < last.lastBatch.seq) return false
  // Of two that have both lost their end, the one that has more of the same.
  if (!last.whole) return run.whole || run.batches > 1 || (run.last > last.last && run.crcOf(last.last) === last.crc)
  if (run.batches > 1) return true
  if (!run.whole) return false
  // Neither was continued. Of two that continue the same, the first in the file is in the log.
  if (linked) return run.first === last.lastBatch.seq && run.byte < last.lastBatch.byte
  // What stood before the other, and is broken, was what this one continues.
  return gaps.some(({ start, altered }) => altered > 0 && start < last.lastBatch.byte && start >= endBefore(last))
}

/** What is whole, and contradicts nothing that is there, has its place where nothing else has. */
function fillGap(path: Run[], part: Run): void {
  const at = path.findIndex(({ first }) => first > part.last)
  if (at < 0 || path.includes(part) || part.header) return
  if (part.first > (path[at - 1]?.last ?? part.first - 1)) path.splice(at, 0, part)
}

/** Where the last run's records before its last batch end. */
function endBefore({ pieces, lastBatch }: Run): number {
  let end = 0
  for (const [from, to] of pieces) if (from < lastBatch.byte) end = Math.max(end, Math.min(to, lastBatch.byte))
  return end
}

/** The beginning of some other log, or of an earlier file of this one. */
function isAnothersBeginning({ header }: Run, main: Run | undefined): boolean {
  return header !== undefined && main !== undefined
}

/** A batch that lacks its end is in the log only if it has been broken since. */
function dropUnfinished(path: Run[], gaps: readonly Gap[], { knownSeq }: About): void {
  const last = path[path.length - 1]
  if (!last || last.whole || knownSeq >= last.last) return
  if (gaps.some(({ start, altered, nul }) => start >= last.end && (altered > 0 || nul))) return
  const { seq, byte } = last.lastBatch
  if (!last.cut(seq, byte)) path.pop()
}

function withNumbers(
  path: readonly Run[],
  found: HeaderLine | undefined,
  salvage: Salvage,
  about: About,
  prefixCrc: (bytes: number) => number,
): Assembled {
  const lastRun = path[path.length - 1]
  const header = found && path[0]?.header === found ? found : undefined
  const foreign = foreignPart(salvage, header, path[0], prefixCrc)
  const first = path[0] ? (header ? header.seq + 1 : path[0].first) : undefined
  const headerSeq = foreign.headerSeq ?? header?.seq ?? beginning(path[0], salvage.gaps, about)
  const dropped = lastRun?.seal && ['suspect', 'compacted'].includes(lastRun.seal.seal.reason) ? lastRun.seal : undefined
  const keep = piecesOf(path, header, dropped?.start)
  const lastSeq = lastRun ? lastRun.last - (dropped ? 1 : 0) : foreign.upTo
  const upTo = Math.max(headerSeq, lastSeq, about.knownSeq, lastSeq + brokenBehind(lastRun, salvage.gaps, lastSeq))
  const lost = missing(path, header, { ...foreign, headerSeq }, first, lastSeq, upTo)
  const kept = path.reduce((sum, run) => sum + run.last - run.first + 1, 0) - (header ? 1 : 0) - (dropped ? 1 : 0)
  return {
    header,
    headerCrc: header?.crc ?? (path[0] && path[0].first - 1 === headerSeq ? path[0].prev : about.knownHeader),
    headerSeq,
    prefix: foreign.prefix,
    foreign: foreign.lines,
    keep,
    records: kept + foreign.lines.length + (foreign.prefix > 0 ? (header?.header.foreign?.lines ?? 0) : 0),
    lost,
    upTo,
    last: { seq: lastRun?.last ?? -1, crc: lastRun?.crc ?? 0 },
  }
}

/** The number of a header that is gone. */
function beginning(first: Run | undefined, gaps: readonly Gap[], { hasEarlier, knownHeader }: About): number {
  if (!first) return 0
  const before = gaps.findLast(({ start }) => start < first.byte)
  const directly = knownHeader === first.prev || (before?.seq === first.first - 1 && before.altered === 1)
  return hasEarlier || directly ? first.first - 1 : 0
}

interface ForeignPart {
  readonly prefix: number
  readonly lines: readonly (readonly [from: number, to: number, seq: number])[]
  /** How many there were. */
  readonly upTo: number
  /** Set when they become records: the new log begins before them. */
  readonly headerSeq: number | undefined
}

/** Lines of another program stay where they are if they are what the header names; else those that are left become records, each in its place. */
function foreignPart(
  salvage: Salvage,
  header: HeaderLine | undefined,
  first: Run | undefined,
  prefixCrc: (bytes: number) => number,
): ForeignPart {
  const named = header?.header.foreign
  const none: ForeignPart = { prefix: 0, lines: [], upTo: 0, headerSeq: undefined }
  if (named && salvage.foreignIntact(named, prefixCrc)) return { ...none, prefix: named.bytes, upTo: named.lines }
  if (header && !named) return none
  const places = named?.lines ?? (first ? first.first - 2 : salvage.foreign.length)
  // Without a header only their number says that they are the lines that it named.
  if (salvage.foreign.length > places || (!named && (salvage.foreign.length !== places || salvage.foreign[0]?.start !== 0))) return none
  if (places === 0) return none
  const lines = salvage.foreign.flatMap(({ start, end, sound }, at) => (sound ? [[start, end, at + 1] as const] : []))
  return { prefix: 0, lines, upTo: places, headerSeq: 0 }
}

function piecesOf(path: readonly Run[], header: HeaderLine | undefined, until: number | undefined): [number, number][] {
  return path
    .flatMap(({ pieces }) => pieces)
    .map(([from, to]): [number, number] => [
      header && from === header.at[0] ? header.at[1] : from,
      until !== undefined && from <= until && until < to ? until : to,
    ])
    .filter(([from, to]) => to > from)
}

/** Lines at the end that were records, each one number. */
function brokenBehind(last: Run | undefined, gaps: readonly Gap[], lastSeq: number): number {
  const after = last?.end ?? 0
  const altered = gaps.reduce((sum, gap) => sum + (gap.start >= after ? gap.altered : 0), 0)
  if (!last && lastSeq <= 0) return Math.max(0, altered - 1)
  return Math.max(altered, last?.left ?? 0)
}

function missing(
  path: readonly Run[],
  header: HeaderLine | undefined,
  foreign: { readonly headerSeq: number; readonly lines: ForeignPart['lines']; readonly upTo: number; readonly prefix: number },
  first: number | undefined,
  lastSeq: number,
  upTo: number,
): { from: number; to: number }[] {
  const lost: { from: number; to: number }[] = []
  const note = (from: number, to: number) => {
    const before = lost[lost.length - 1]
    if (to < from) return
    if (before && before.to === from - 1) before.to = to
    else lost.push({ from, to })
  }
  let expected = foreign.headerSeq + 1
  for (const [, , seq] of foreign.lines) {
    note(expected, seq - 1)
    expected = seq + 1
  }
  if (foreign.headerSeq === 0 && foreign.prefix === 0 && foreign.upTo > 0) {
    note(expected, foreign.upTo)
    // The old header's own number: nothing of anybody's stood there.
    expected = foreign.upTo + (first === undefined ? 1 : 2)
  }
  if (first !== undefined) note(expected, first - 1)
  for (const [at, run] of path.entries()) {
    const next = path[at + 1]
    if (next) note(run.last + 1, next.first - 1)
  }
  note(Math.max(lastSeq, header?.seq ?? -1, foreign.headerSeq, first === undefined ? foreign.upTo : -1) + 1, upTo)
  return lost
}

/** Says which files this one replaces: the one that was read, and the one whose length the metadata know. */
export function replacesOf(header: Header | undefined, crc: number | undefined, known: number | undefined): readonly string[] {
  const crcs = [...(crc === undefined ? [] : [hex8(crc)]), ...(known === undefined ? [] : [hex8(known)]), ...(header?.replaces ?? [])]
  return [...new Set(crcs)].slice(0, 16)
}

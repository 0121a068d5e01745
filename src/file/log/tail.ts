/** Where a log stands, from its end: reads the tail, not the file.
 *
 *  From the last whole batch the chain is followed backwards, by crc and sequence number, to an anchor: a record that is known to be in the
 *  log with everything before it. Known means that some record says the anchor was on the disk, or that the anchor was written in this
 *  boot (nothing goes missing within a boot, and its writer had checked what it chained to). From the anchor the chain rule runs forwards. */
import { type Disk, readFully } from '../durable.js'
import { Chain, type ChainSink } from './chain.js'
import { isSystemOnly, type LineMark, readMark } from './record.js'

const firstSpanBytes = 64 << 10
const spanBytesMax = 64 << 20
const pieceBytes = 1 << 20

interface Seen {
  readonly mark: LineMark
  readonly start: number
  readonly end: number
}

/** How far back to go: at least `records` of the caller's records, or to the record `after`, whichever is asked for. */
export interface Reach {
  readonly records: number
  readonly after?: number | undefined
}

/** Positions a chain at the end of the `size` bytes behind `fd`, and hands at least what is within reach to the sink. */
export function openTail(disk: Disk, fd: number, size: number, tag: string, reach: Reach, sink: ChainSink = {}): Chain {
  for (let span = firstSpanBytes; span < size && span <= spanBytesMax; span *= 4) {
    const from = size - span
    const bytes = readFully(disk, fd, from, span)
    const lines = recordsIn(bytes, bytes.indexOf(0x0a) + 1)
    const chainFrom = (anchor: Seen, into: ChainSink) => {
      const claimed = lines.reduce((most, { mark, start }) => (start <= anchor.start ? Math.max(most, mark.synced) : most), -1)
      const chain = Chain.from(tag, anchor.mark, from + anchor.end + 1, claimed, isSystemOnly(bytes, anchor.start))
      chain.feed(bytes.subarray(anchor.end + 1), into)
      return chain
    }
    const anchor = farEnough(lines, bytes, tag, reach, chainFrom)
    if (anchor) return chainFrom(anchor, sink)
  }
  return openWhole(disk, fd, size, tag, sink)
}

/** The same from the start of the file, in pieces. */
export function openWhole(disk: Disk, fd: number, size: number, tag: string, sink: ChainSink = {}): Chain {
  const chain = new Chain(tag)
  readOn(disk, fd, size, chain, sink)
  return chain
}

/** Feeds the chain what lies between its settled offset and `size`. */
export function readOn(disk: Disk, fd: number, size: number, chain: Chain, sink: ChainSink = {}): void {
  for (let span = pieceBytes; chain.settled < size; ) {
    const before = chain.settled
    const length = Math.min(span, size - before)
    chain.feed(readFully(disk, fd, before, length), sink)
    if (before + length >= size) return
    // A batch larger than the piece: look at more at once.
    if (chain.settled === before) span *= 2
  }
}

function recordsIn(bytes: Buffer, from: number): Seen[] {
  const seen: Seen[] = []
  for (let start = from, end = bytes.indexOf(0x0a, from); end >= 0 && start > 0; start = end + 1, end = bytes.indexOf(0x0a, start)) {
    const mark = readMark(bytes, start, end)
    if (mark) seen.push({ mark, start, end })
  }
  return seen
}

/** The anchor with as many records of the log behind it as are asked for: void batches at the end look like records until the chain runs. */
function farEnough(
  lines: readonly Seen[],
  bytes: Buffer,
  tag: string,
  reach: Reach,
  run: (anchor: Seen, sink: ChainSink) => Chain,
): Seen | undefined {
  for (let wanted = reach.records; ; ) {
    const anchor = findAnchor(lines, bytes, tag, { ...reach, records: wanted })
    if (!anchor) return undefined
    let found = 0
    const chain = run(anchor, {
      record(_mark, line, start) {
        if (!isSystemOnly(line, start)) found++
      },
    })
    if (found >= reach.records || chain.damage) return anchor
    wanted += reach.records - found
  }
}

/** The record to go on from, with what is within reach behind it; undefined when the window is too small to tell. */
function findAnchor(lines: readonly Seen[], bytes: Buffer, tag: string, reach: Reach): Seen | undefined {
  const claimed = lines.reduce((most, { mark }) => Math.max(most, mark.synced), -1)
  const last = lines.findLastIndex(({ mark }) => mark.left === 0)
  let wanted = reach.records
  for (let at = last; at >= 0; ) {
    const { mark, start } = lines[at]!
    const known = mark.seq <= claimed || (tag !== '0000' && mark.writer.startsWith(tag))
    if (at !== last && mark.left === 0 && known && wanted <= 0 && mark.seq <= (reach.after ?? mark.seq)) return lines[at]
    if (!isSystemOnly(bytes, start)) wanted--
    at = predecessor(lines, at)
  }
  return undefined
}

/** The record that the one at `at` continues; it is nearly always the nearest before it. */
function predecessor(lines: readonly Seen[], at: number): number {
  const { mark } = lines[at]!
  for (let before = at - 1; before >= 0; before--) {
    const candidate = lines[before]!.mark
    if (candidate.crc === mark.prev && candidate.seq === mark.seq - 1) return before
  }
  return -1
}

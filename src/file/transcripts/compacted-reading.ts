/** Reading with `compacted: true`: the last summary, then every record behind what it stands for. A summary is found from the end, so the
 *  tail costs the tail. */
import type { StoredRecord } from '../../types.js'
import { Chain, type ChainSink } from '../log/chain.js'
import { logCorrupt } from '../log/log-file.js'
import { pieces } from '../log/pieces.js'
import { isSystemOnly, type LineMark, readBody, type Summary, startsWith, summaryPrefix } from '../log/record.js'
import { openTail } from '../log/tail.js'
import { foreignRaws, openSource, parsed, type Range, type Raw, rawOf, type Source } from './reading.js'

export interface FoundSummary extends Summary {
  /** Of the summary's own record. */
  readonly seq: number
}

/** The summary that this line is; undefined for any other. */
export function summaryAt(mark: LineMark, bytes: Buffer, start: number): FoundSummary | undefined {
  if (!startsWith(bytes, start, summaryPrefix)) return undefined
  const summary = readBody(bytes, start, mark).system?.summary
  return summary && { ...summary, seq: mark.seq }
}

/** As readers are handed it: the place in the log is that of the summary, not of what it stands for. */
export function summaryRaw({ seq, text, upTo, records }: FoundSummary): Raw {
  return { seq, json: JSON.stringify({ type: 'summary', text, upTo, records }), system: undefined }
}

/** How far back to look for a summary, in records, before the whole log is read in pieces. */
const searchRecords = [64, 1_024]

/** The last summary in the first `size` bytes. */
export async function lastSummary(source: Source, fd: number, size: number, signal?: AbortSignal): Promise<FoundSummary | undefined> {
  let last: FoundSummary | undefined
  const sink: ChainSink = {
    record(mark, bytes, start) {
      last = summaryAt(mark, bytes, start) ?? last
    },
  }
  for (const records of searchRecords) {
    const chain = openTail(source.disk, fd, size, source.tag, { records }, sink)
    if (last || chain.header || chain.seq < 0) return last
  }
  for await (const _ of pieces(source.disk, fd, size, new Chain(source.tag), sink, signal));
  return last
}

/** The last summary that stands behind the record `after`; undefined when there is none. */
export function summaryAfter(source: Pick<Source, 'disk' | 'tag'>, fd: number, size: number, after: number): FoundSummary | undefined {
  let last: FoundSummary | undefined
  openTail(
    source.disk,
    fd,
    size,
    source.tag,
    { records: 0, after },
    {
      record(mark, bytes, start) {
        if (mark.seq > after) last = summaryAt(mark, bytes, start) ?? last
      },
    },
  )
  return last
}

/** The last `count` of them, oldest first. undefined when there is no such file. */
export function readCompactedTail(source: Source, count: number): StoredRecord[] | undefined {
  const fd = openSource(source)
  if (fd === undefined) return undefined
  try {
    const { size } = source.disk.fstat(fd)
    const first = collect(source, fd, size, { records: count }, count)
    const { summary } = first
    if (!summary) return first.items(0).slice(-count).map(parsed)
    // What it leaves may begin further back than was read.
    const all = first.from <= summary.upTo + 1 ? first : collect(source, fd, size, { records: 0, after: summary.upTo }, count)
    return [summaryRaw(summary), ...all.items(summary.upTo)].slice(-count).map(parsed)
  } finally {
    source.disk.close(fd)
  }
}

function collect(source: Source, fd: number, size: number, reach: { records: number; after?: number }, count: number) {
  const raws: Raw[] = []
  const foreign: [number, number][] = []
  let summary: FoundSummary | undefined
  let from = Number.POSITIVE_INFINITY
  const chain = openTail(source.disk, fd, size, source.tag, reach, {
    record(mark, bytes, start) {
      from = Math.min(from, mark.seq)
      if (!isSystemOnly(bytes, start)) raws.push(rawOf(mark, bytes, start))
      else summary = summaryAt(mark, bytes, start) ?? summary
      if (raws.length > 2 * count + 1_000) raws.splice(0, raws.length - count)
    },
    foreign: (byte, length) => void foreign.push([byte, length]),
  })
  if (chain.damage) throw logCorrupt(source.label, chain.damage)
  const whole = chain.header !== undefined || chain.seq < 0
  const before = whole && raws.length < count ? [...foreignRaws(source, fd, chain, foreign)] : []
  return {
    summary,
    from: whole ? 0 : from,
    items: (upTo: number) => [...before, ...raws].filter(({ seq }) => seq > upTo),
  }
}

/** What is left of a range: the summary, if it is news to whoever has read to `after`, and where the records go on. */
export async function compactedStart(
  source: Source,
  fd: number,
  size: number,
  range: Range,
): Promise<{ readonly first: Raw | undefined; readonly after: number }> {
  const summary = await lastSummary(source, fd, size, range.signal)
  if (!summary) return { first: undefined, after: range.after }
  return { first: summary.seq > range.after ? summaryRaw(summary) : undefined, after: Math.max(range.after, summary.upTo) }
}

/** Reading what turns have left in a transcript: the conversation as a turn should see it, the turns that were, one request's answer. */
import type { InputAt } from '../../backend.js'
import type { StoredRecord, TurnState } from '../../types.js'
import { Chain, type ChainSink } from '../log/chain.js'
import { logCorrupt } from '../log/log-file.js'
import { pieces } from '../log/pieces.js'
import { isSystemOnly, startsWith, type TurnEvent, turnPrefix } from '../log/record.js'
import { openTail } from '../log/tail.js'
import { type FoundSummary, summaryAt, summaryRaw } from './compacted-reading.js'
import { foreignRaws, openSource, parsed, type Raw, rawOf, type Source } from './reading.js'
import { readEvent } from './turn-log.js'

/** A turn as its records tell it. */
export interface PastTurn {
  readonly turn: number
  readonly requestId: string
  readonly channelId: string | undefined
  readonly lane: string
  readonly attempt: number
  readonly state: TurnState
  readonly startedAt: number
  /** Epoch ms; undefined while it is active, or when nobody was there to write it down. */
  readonly endedAt: number | undefined
}

type Item =
  | { readonly raw: Raw }
  | { readonly event: TurnEvent; readonly seq: number }
  | { readonly summary: FoundSummary; readonly seq: number }

/** The last `count` records of the conversation, oldest first: every input where a turn took it, and without those that none has taken. So
 *  a message that came while another was being answered stands behind that answer. undefined when there is no such file.
 *  @param compacted  a summary in the place of what it stands for. */
export function readConversation(source: Source, count: number, compacted = false): StoredRecord[] | undefined {
  return fromTail(source, count, (items, whole) => {
    const summary = compacted ? lastSummaryIn(items) : undefined
    if (summary) {
      if (!whole && seqOf(items[0]!) > summary.upTo + 1) return undefined
      // No input is parted from the turn that takes it by what a summary stands for: nothing before that is asked for.
      const behind = arrange(behindSummary(items, summary), true) ?? []
      return [summaryRaw(summary), ...behind].slice(-count).map(parsed)
    }
    const arranged = arrange(items, whole)
    return arranged && (whole || arranged.length >= count) ? arranged.slice(-count).map(parsed) : undefined
  })
}

/** What there is for a summary to stand for. */
export interface Conversation {
  /** Of the last record of any kind. */
  readonly lastSeq: number
  readonly summary: StoredRecord | undefined
  /** Behind what that stands for, as a turn is shown them. */
  readonly records: readonly StoredRecord[]
  /** Where a summary may end: the number of records that it would stand for, and the seq up to which. Not where an input would be parted from
   *  the turn that takes it, or from the one that may still come. */
  readonly cuts: ReadonlyMap<number, number>
}

/** Reads all of the log, in pieces. undefined when there is no such file. */
export async function readForSummary(source: Source, signal?: AbortSignal): Promise<Conversation | undefined> {
  const fd = openSource(source)
  if (fd === undefined) return undefined
  try {
    let items: Item[] = []
    const foreign: [number, number][] = []
    const chain = new Chain(source.tag)
    let begun = false
    for await (const _ of pieces(source.disk, fd, source.disk.fstat(fd).size, chain, collecting(items, foreign), signal)) {
      if (!begun && chain.seq < 0) continue
      if (!begun) items.unshift(...[...foreignRaws(source, fd, chain, foreign)].map((raw): Item => ({ raw })))
      begun = true
      const summary = lastSummaryIn(items)
      if (summary) items.splice(0, items.length, ...behindSummary(items, summary), { summary, seq: summary.seq })
    }
    if (chain.damage) throw logCorrupt(source.label, chain.damage)
    if (!begun) items.unshift(...[...foreignRaws(source, fd, chain, foreign)].map((raw): Item => ({ raw })))
    const summary = lastSummaryIn(items)
    items = behindSummary(items, summary)
    const cuts = new Map<number, number>()
    const records = arrange(items, true, (count, seq) => void cuts.set(count, seq)) ?? []
    const lastSeq = Math.max(chain.seq, chain.foreign.lines)
    return { lastSeq, summary: summary && parsed(summaryRaw(summary)), records: records.map(parsed), cuts }
  } finally {
    source.disk.close(fd)
  }
}

function lastSummaryIn(items: readonly Item[]): FoundSummary | undefined {
  const last = items.findLast((item) => 'summary' in item)
  return last && 'summary' in last ? last.summary : undefined
}

function behindSummary(items: readonly Item[], summary: FoundSummary | undefined): Item[] {
  return items.filter((item) => !('summary' in item) && seqOf(item) > (summary?.upTo ?? -1))
}

function seqOf(item: Item): number {
  return 'raw' in item ? item.raw.seq : item.seq
}

/** The records of inputs, in the order asked for. undefined when there is no such file. */
export function readInputs(source: Source, inputs: readonly InputAt[]): StoredRecord[] | undefined {
  const wanted = inputs.flatMap(([, seq, count]) => Array.from({ length: count }, (_, at) => seq + at))
  if (wanted.length === 0) return []
  const fd = openSource(source)
  if (fd === undefined) return undefined
  try {
    const raws = new Map(wanted.map((seq): [number, Raw | undefined] => [seq, undefined]))
    const sink: ChainSink = {
      record(mark, bytes, start) {
        if (raws.has(mark.seq)) raws.set(mark.seq, rawOf(mark, bytes, start))
      },
    }
    const reach = { records: 0, after: Math.min(...wanted) - 1 }
    const chain = openTail(source.disk, fd, source.disk.fstat(fd).size, source.tag, reach, sink)
    if (chain.damage) throw logCorrupt(source.label, chain.damage)
    return wanted.flatMap((seq) => raws.get(seq) ?? []).map(parsed)
  } finally {
    source.disk.close(fd)
  }
}

/** The last `limit` turns, newest first. */
export function readTurns(source: Source, limit: number): PastTurn[] | undefined {
  return fromTail(source, limit * 4, (items, whole) => {
    const turns = turnsIn(items)
    return whole || turns.length >= limit ? turns.slice(-limit).reverse() : undefined
  })
}

/** What the end of a turn says; undefined when there is no such record. */
export async function readEnd(source: Source, seq: number): Promise<(TurnEvent & { event: 'end' }) | undefined> {
  const fd = openSource(source)
  if (fd === undefined) return undefined
  try {
    let found: TurnEvent | undefined
    const sink: ChainSink = {
      record(mark, bytes, start) {
        if (mark.seq === seq && startsWith(bytes, start, turnPrefix)) found = readEvent(bytes, start, mark)
      },
    }
    const { size } = source.disk.fstat(fd)
    openTail(source.disk, fd, size, source.tag, { records: 64 }, sink)
    // Long ago: then from the start, with room for other work.
    if (!found) for await (const _ of pieces(source.disk, fd, size, new Chain(source.tag), sink)) if (found) break
    return found?.event === 'end' ? found : undefined
  } finally {
    source.disk.close(fd)
  }
}

/** Reads back from the end, further and further, until `enough` has what it wants. */
function fromTail<R>(source: Source, records: number, enough: (items: readonly Item[], whole: boolean) => R | undefined): R | undefined {
  const fd = openSource(source)
  if (fd === undefined) return undefined
  try {
    const { size } = source.disk.fstat(fd)
    for (let reach = records + 16; ; reach *= 4) {
      const items: Item[] = []
      const foreign: [number, number][] = []
      const chain = openTail(source.disk, fd, size, source.tag, { records: reach }, collecting(items, foreign))
      if (chain.damage) throw logCorrupt(source.label, chain.damage)
      const whole = chain.header !== undefined || chain.seq < 0
      const before = whole ? [...foreignRaws(source, fd, chain, foreign)].map((raw): Item => ({ raw })) : []
      const result = enough([...before, ...items], whole)
      if (result !== undefined || whole) return result
    }
  } finally {
    source.disk.close(fd)
  }
}

function collecting(items: Item[], foreign: [number, number][]): ChainSink {
  return {
    record(mark, bytes, start) {
      if (!isSystemOnly(bytes, start)) items.push({ raw: rawOf(mark, bytes, start) })
      else if (startsWith(bytes, start, turnPrefix)) items.push({ event: readEvent(bytes, start, mark), seq: mark.seq })
      else {
        const summary = summaryAt(mark, bytes, start)
        if (summary) items.push({ summary, seq: mark.seq })
      }
    },
    foreign(byte, length) {
      foreign.push([byte, length])
    },
  }
}

/** undefined when an input that was taken lies further back than was read.
 *  @param settled  is told after each item behind which no input waits: how many records there are by then, and the item's seq. */
function arrange(items: readonly Item[], whole: boolean, settled?: (count: number, seq: number) => void): Raw[] | undefined {
  const conversation: Raw[] = []
  const inputs = new Map<number, Raw[]>()
  const waiting = new Set<string>()
  let open: { readonly raws: Raw[]; readonly until: number } | undefined
  for (const item of items) {
    if ('raw' in item) {
      const { raw } = item
      if (raw.system?.input !== undefined) {
        open = { raws: [], until: raw.seq + (raw.system.count ?? 1) }
        inputs.set(raw.seq, open.raws)
        waiting.add(raw.system.input)
      }
      if (open && raw.seq < open.until) open.raws.push(raw)
      else conversation.push(raw)
    } else if ('event' in item) {
      if (item.event.event === 'withdraw') waiting.delete(item.event.request)
      for (const [request, seq] of 'takes' in item.event ? (item.event.takes ?? []) : []) {
        const raws = inputs.get(seq)
        if (!raws && !whole) return undefined
        conversation.push(...(raws ?? []))
        waiting.delete(request)
      }
    }
    if (waiting.size === 0) settled?.(conversation.length, seqOf(item))
  }
  return conversation
}

function turnsIn(items: readonly Item[]): PastTurn[] {
  const turns = new Map<number, PastTurn>()
  let active: PastTurn | undefined
  for (const item of items) {
    if (!('event' in item)) continue
    const { event } = item
    if (event.event === 'start') {
      if (active) turns.set(active.turn, { ...active, state: 'interrupted' })
      const { n, request, channel, lane, attempt, at } = event
      active = { turn: n, requestId: request, channelId: channel, lane, attempt, state: 'active', startedAt: at, endedAt: undefined }
      turns.set(n, active)
    } else if (event.event === 'end') {
      const begun = turns.get(event.n)
      if (begun) turns.set(event.n, { ...begun, state: event.outcome, endedAt: event.at })
      active = undefined
    }
  }
  return [...turns.values()]
}

/** The conversation as a turn should see it: every input where a turn took it, and without those that none has taken. So a message that came
 *  while another was being answered stands behind that answer. */
import type { InputAt, Summarizable } from '../../backend.js'
import type { StoredRecord, TurnState } from '../../types.js'
import {
  lastRows,
  logOf,
  pagesOf,
  type ReadingTools,
  type RecordRow,
  reachMore,
  recordRow,
  storedRecord,
  summaryRecord,
} from './reading.js'

const asking = { doing: 'reading a conversation' }

/** The last `count` records, oldest first.
 *  @param compacted  a summary in the place of what it stands for */
export async function readConversation(tools: ReadingTools, sessionId: string, count: number, compacted: boolean): Promise<StoredRecord[]> {
  for (let reach = count + reachMore; ; reach *= 4) {
    const { rows, whole } = await lastRows(tools, sessionId, reach)
    const summary = compacted ? rows.findLast(({ kind }) => kind === 's') : undefined
    if (summary) {
      const upTo = upToOf(summary)
      if (!whole && rows[0]!.seq > upTo + 1) continue
      // No input is parted from the turn that takes it by what a summary stands for: nothing before that is asked for.
      const behind = arrange(rowsBehind(rows, upTo), true) ?? []
      return [summaryRecord(summary), ...behind.map(storedRecord)].slice(-count)
    }
    const arranged = arrange(rows, whole)
    if (arranged && (whole || arranged.length >= count)) return arranged.slice(-count).map(storedRecord)
  }
}

/** What there is for a summary to stand for; undefined for a key that names no session. */
export async function readForSummary(tools: ReadingTools, key: string, signal?: AbortSignal): Promise<Summarizable | undefined> {
  const log = await logOf(tools, key)
  if (!log) return undefined
  const { sessionId, lastSeq } = log
  let rows: RecordRow[] = []
  let summary: RecordRow | undefined
  for await (const page of pagesOf(tools, sessionId, { after: 0, upTo: lastSeq })) {
    signal?.throwIfAborted()
    rows.push(...page)
    summary = page.findLast(({ kind }) => kind === 's') ?? summary
    if (summary) rows = rowsBehind(rows, upToOf(summary))
  }
  const cuts = new Map<number, number>()
  const records = arrange(rows, true, (count, seq) => void cuts.set(count, seq)) ?? []
  return { sessionId, base: lastSeq, summary: summary && summaryRecord(summary), records: records.map(storedRecord), cuts }
}

const upToOf = ({ part }: RecordRow) => part!.summary!.upTo
const rowsBehind = (rows: readonly RecordRow[], upTo: number) => rows.filter(({ kind, seq }) => kind !== 's' && seq > upTo)

/** The records of inputs, in the order asked for. */
export async function readInputs(
  { database, schema }: ReadingTools,
  sessionId: string,
  inputs: readonly InputAt[],
): Promise<StoredRecord[]> {
  const wanted = inputs.flatMap(([, seq, count]) => Array.from({ length: count }, (_, at) => seq + at))
  if (wanted.length === 0) return []
  const rows = await database.read(
    `select seq, kind, part, body from ${schema}.records where session_id = $1 and seq = any ($2)`,
    [sessionId, wanted],
    asking,
  )
  const found = new Map(rows.map(recordRow).map((row) => [row.seq, row]))
  return wanted.flatMap((seq) => found.get(seq) ?? []).map(storedRecord)
}

/** A turn as its records tell it. */
export interface PastTurn {
  readonly turn: number
  readonly requestId: string
  readonly channelId: string | undefined
  readonly lane: string
  readonly state: TurnState
  readonly since: number
}

/** The last `limit` turns, newest first. */
export async function readTurns(tools: ReadingTools, sessionId: string, limit: number): Promise<PastTurn[]> {
  for (let reach = limit * 8 + reachMore; ; reach *= 4) {
    const { rows, whole } = await lastRows(tools, sessionId, reach, { onlyEvents: true })
    const turns = turnsIn(rows)
    if (whole || turns.length >= limit) return turns.slice(-limit).reverse()
  }
}

function turnsIn(rows: readonly RecordRow[]): PastTurn[] {
  const turns = new Map<number, PastTurn>()
  let active: PastTurn | undefined
  for (const { part } of rows) {
    const event = part?.turn
    if (event?.event === 'start') {
      // What the log has as active without anybody's having it was left by a process that died.
      if (active) turns.set(active.turn, { ...active, state: 'interrupted' })
      const { n, request, channel, lane, at } = event
      active = { turn: n, requestId: request, channelId: channel, lane, state: 'interrupted', since: at }
      turns.set(n, active)
    } else if (event?.event === 'end') {
      const begun = turns.get(event.n)
      if (begun) turns.set(event.n, { ...begun, state: event.outcome, since: event.at })
      active = undefined
    }
  }
  return [...turns.values()]
}

/** undefined when an input that was taken lies further back than was read.
 *  @param settled  is told after each row behind which no input waits: how many records there are by then, and the row's seq. */
function arrange(rows: readonly RecordRow[], whole: boolean, settled?: (count: number, seq: number) => void): RecordRow[] | undefined {
  const conversation: RecordRow[] = []
  const inputs = new Map<number, RecordRow[]>()
  const waiting = new Set<string>()
  let open: { readonly rows: RecordRow[]; readonly until: number } | undefined
  for (const row of rows) {
    const event = row.part?.turn
    if (event) {
      if (event.event === 'withdraw') waiting.delete(event.request)
      for (const [request, seq] of 'takes' in event ? (event.takes ?? []) : []) {
        const taken = inputs.get(seq)
        if (!taken && !whole) return undefined
        conversation.push(...(taken ?? []))
        waiting.delete(request)
      }
    } else if (row.kind !== 's') {
      if (row.kind === 'i') {
        open = { rows: [], until: row.seq + (row.part?.count ?? 1) }
        inputs.set(row.seq, open.rows)
        waiting.add(row.part!.input!)
      }
      if (open && row.seq < open.until) open.rows.push(row)
      else conversation.push(row)
    }
    if (waiting.size === 0) settled?.(conversation.length, row.seq)
  }
  return conversation
}

/** Reading transcripts: in pages by sequence number, each a statement of its own. Nothing is held between two pages, and a record that is there
 *  never changes; so a reader sees what was committed when it began, however long it takes. */
import { StoreError } from '../../errors.js'
import type { ReadOptions, StoredRecord } from '../../types.js'
import type { Database, Row } from '../database.js'

/** What the store says of a record; as in a log of files. */
export interface Part {
  readonly id?: string
  readonly by?: number
  readonly input?: string
  readonly count?: number
  readonly turn?: TurnEvent
  readonly summary?: { readonly upTo: number; readonly records: number; readonly text: string; readonly at: number }
}

type InputAt = readonly [request: string, seq: number, count: number]

/** The same events that a log of files has. */
export type TurnEvent =
  | {
      readonly event: 'start'
      readonly n: number
      readonly request: string
      readonly attempt: number
      readonly lane: string
      readonly channel?: string
      readonly at: number
      readonly takes?: readonly InputAt[]
    }
  | { readonly event: 'take'; readonly n: number; readonly at: number; readonly takes: readonly InputAt[] }
  | { readonly event: 'withdraw'; readonly request: string; readonly at: number }
  | {
      readonly event: 'end'
      readonly n: number
      readonly request: string
      readonly outcome: 'completed' | 'failed' | 'interrupted'
      readonly at: number
      readonly value?: unknown
      readonly error?: string
    }

export interface RecordRow {
  readonly seq: number
  readonly kind: string
  readonly part: Part | undefined
  readonly body: string
}

export interface ReadingTools {
  readonly database: Database
  readonly schema: string
}

const rowsPerPage = 500
/** How many of the store's own rows are reckoned with at the end of a log. */
export const reachMore = 16
/** Of a page, at most: more only when a single record has. */
const bytesPerPage = 4 << 20
const asking = { doing: 'reading a transcript' }

export function recordRow({ seq, kind, part, body }: Row): RecordRow {
  return { seq: Number(seq), kind: kind as string, part: parsedPart(part), body: body as string }
}

function parsedPart(part: unknown): Part | undefined {
  return typeof part === 'string' ? (JSON.parse(part) as Part) : undefined
}

export function storedRecord({ seq, part, body }: RecordRow): StoredRecord {
  const record = JSON.parse(body) as Record<string, unknown>
  if (!part) return { seq, record }
  const { id, by, input } = part
  return {
    seq,
    ...(id !== undefined && { id }),
    ...(by !== undefined && { turn: by }),
    ...(input !== undefined && { request: input }),
    record,
  }
}

/** As readers are handed it. */
export function summaryRecord({ seq, part }: RecordRow): StoredRecord {
  const { upTo, records, text } = part!.summary!
  return { seq, record: { type: 'summary', text, upTo, records } }
}

/** Of the session that a key names: its id and where its transcript ends. */
export async function logOf({ database, schema }: ReadingTools, key: string): Promise<{ sessionId: string; lastSeq: number } | undefined> {
  const [row] = await database.read(
    `select e.session_id, l.last_seq from ${schema}.entries e left join ${schema}.logs l on l.session_id = e.session_id where e.key = $1`,
    [key],
    asking,
  )
  if (!row) return undefined
  if (row.last_seq === null) throw logMissing(row.session_id as string)
  return { sessionId: row.session_id as string, lastSeq: Number(row.last_seq) }
}

function logMissing(sessionId: string): StoreError {
  return new StoreError('LOG_CORRUPT', `the log of session ${sessionId} is missing.`, {
    details: { sessionId },
    hint: 'Nothing was written. Something other than this library has removed rows; `verify` says more. Restore them from a backup.',
  })
}

/** Every row behind `after`, up to `upTo`, those of the store's own among them unless only records are asked for. A page is a range of numbers,
 *  and those have no gap: so its bounds alone say how much there is to read, whatever a planner believes of the table. */
export async function* pagesOf(
  { database, schema }: ReadingTools,
  sessionId: string,
  { after, upTo, onlyRecords = false, rowsMax = Number.POSITIVE_INFINITY }: PagesOptions,
): AsyncGenerator<readonly RecordRow[]> {
  let left = rowsMax
  for (let from = after; from < upTo && left > 0; ) {
    const to = Math.min(upTo, from + rowsPerPage)
    // The lengths are known without the records themselves; those behind the limit are not fetched.
    const rows = await database.read(
      `select seq, kind, part, body from (
         select *, sum(octet_length(body)) over (order by seq) - octet_length(body) as bytes_before
         from ${schema}.records where session_id = $1 and seq > $2 and seq <= $3
       ) as sized where bytes_before < ${bytesPerPage} order by seq`,
      [sessionId, from, to],
      asking,
    )
    const page = rows.map(recordRow)
    from = page.length === to - from ? to : (page.at(-1)?.seq ?? to)
    const shown = (onlyRecords ? page.filter(isRecord) : page).slice(0, left)
    left -= shown.length
    if (shown.length > 0) yield shown
  }
}

interface PagesOptions {
  readonly after: number
  readonly upTo: number
  readonly onlyRecords?: boolean
  readonly rowsMax?: number
}

const isRecord = ({ kind }: RecordRow) => kind === 'r' || kind === 'i'

/** The last rows of a log, oldest first, by their numbers: at most `reach`, those before `after` left out. */
export async function lastRows(
  { database, schema }: ReadingTools,
  sessionId: string,
  reach: number,
  { after = 0, onlyEvents = false }: { after?: number; onlyEvents?: boolean } = {},
): Promise<{ rows: RecordRow[]; whole: boolean }> {
  const rows = await database.read(
    `select r.seq, r.kind, r.part, r.body, l.last_seq from ${schema}.logs l
     left join ${schema}.records r on r.session_id = l.session_id and r.seq > greatest(l.last_seq - $2, $3) ${onlyEvents ? "and r.kind = 't'" : ''}
     where l.session_id = $1 order by r.seq`,
    [sessionId, reach, after],
    asking,
  )
  const lastSeq = Number(rows[0]?.last_seq ?? 0)
  return { rows: rows.filter(({ seq }) => seq !== null).map(recordRow), whole: lastSeq - reach <= after }
}

export async function* readRecords(tools: ReadingTools, key: string, options: ReadOptions): AsyncGenerator<StoredRecord> {
  const { limit = Number.POSITIVE_INFINITY, signal, compacted } = options
  let { after = 0 } = options
  signal?.throwIfAborted()
  const log = await logOf(tools, key)
  if (!log || limit <= 0) return
  const { sessionId, lastSeq } = log
  let left = limit
  const summary = compacted ? await lastSummary(tools, sessionId, lastSeq) : undefined
  if (summary) {
    if (summary.seq > after) {
      yield summaryRecord(summary)
      left--
    }
    after = Math.max(after, summary.part!.summary!.upTo)
  }
  for await (const page of pagesOf(tools, sessionId, { after, upTo: lastSeq, onlyRecords: true, rowsMax: left }))
    for (const row of page) {
      signal?.throwIfAborted()
      yield storedRecord(row)
    }
}

export async function lastSummary({ database, schema }: ReadingTools, sessionId: string, upTo: number): Promise<RecordRow | undefined> {
  const [row] = await database.read(
    `select r.seq, r.kind, r.part, r.body from ${schema}.summaries s join ${schema}.records r using (session_id, seq)
     where s.session_id = $1 and s.seq <= $2 order by s.seq desc limit 1`,
    [sessionId, upTo],
    asking,
  )
  return row && recordRow(row)
}

/** The last `count` records, oldest first. */
export async function readTail(tools: ReadingTools, key: string, count: number, compacted = false): Promise<StoredRecord[]> {
  const log = await logOf(tools, key)
  if (!log) return []
  const { sessionId, lastSeq } = log
  const summary = compacted ? await lastSummary(tools, sessionId, lastSeq) : undefined
  const after = summary?.part?.summary?.upTo ?? 0
  for (let reach = count + reachMore; ; reach *= 4) {
    const { rows, whole } = await lastRows(tools, sessionId, reach, { after })
    const records = rows.filter(isRecord)
    if (!whole && records.length < count) continue
    const found = records.slice(-count).map(storedRecord)
    return summary ? [summaryRecord(summary), ...found].slice(-count) : found
  }
}

/** Archives what the rules say, one session after another, each in a statement that looks again: nobody has its turn, no input waits, and it is
 *  what it was when that was decided. The records stay where they are; the key is gone, and the log is closed. */
import { uuidv7 } from 'uuidv7'
import { systemClock } from '../../clock.js'
import { StoreError } from '../../errors.js'
import type { PostgresInside } from '../../postgres/backend.js'
import { entryOf, rowOf } from '../../postgres/metadata/rows.js'
import type { Entry } from '../../types.js'
import type { ArchivedSession, ProtectedSession, ProtectedWhy, RemovedFile, RetainOptions, RetentionReport } from '../../upkeep.js'
import { Pace } from '../pace.js'
import { type Going, planInSlices, type RetentionEntry } from '../retention/plan.js'

type Candidate = RetentionEntry & { readonly entry: Entry; readonly lastSeq: number; protectedBy?: ProtectedWhy | undefined }

const asking = { doing: 'retention' }
const removedPerStatement = 100

/** @throws INVALID_OPTION  `archives.maxBytes`: the size of a table is the database's own · what `protect` throws · the signal's reason, between
 *          two sessions. What is archived by then, is. */
export async function retainSessions(inside: PostgresInside, options: RetainOptions): Promise<RetentionReport> {
  const { rules, dryRun = false, protect, onProgress, signal } = options
  if (rules.archives?.maxBytes !== undefined)
    throw new StoreError('INVALID_OPTION', 'archives.maxBytes is not known to a store in PostgreSQL.', {
      hint: 'Nothing was done. Use archives.maxAgeMs and archives.keepLast.',
    })
  const pace = new Pace(systemClock, { budgetMs: Number.POSITIVE_INFINITY, pauseMs: 0, signal })
  const { candidates, usage, nowMs } = await gather(inside, protect)
  const plan = await pace.through(planInSlices(candidates, usage, rules, nowMs))
  const archived: ArchivedSession[] = []
  const spared: ProtectedSession[] = plan.spared.map(({ key, sessionId, protectedBy }) => ({ key, sessionId, why: protectedBy! }))
  for (const [at, going] of plan.goes.entries()) {
    signal?.throwIfAborted()
    const { key, sessionId } = going.entry
    const outcome = dryRun ? 'archived' : await retire(inside, going)
    if (outcome === 'archived') archived.push(archivedSession(going))
    else spared.push({ key, sessionId, why: outcome })
    onProgress?.(at + 1, plan.goes.length)
  }
  const removed = dryRun ? [] : await removeArchived(inside, options, nowMs)
  const sessions = candidates.length
  return { dryRun, sessions, kept: sessions - archived.length, archived, protected: spared, unsatisfied: plan.unsatisfied, removed }
}

async function gather({ database, schema }: PostgresInside, protect: RetainOptions['protect']) {
  const rows = await database.read(
    `select e.*, l.bytes, l.changed_at, l.last_seq, ${schema}.now_ms() as now,
       exists (select from ${schema}.leases t where t.key = e.key and ${schema}.lease_stands(t)) as active,
       exists (select from ${schema}.inputs i where i.session_id = e.session_id) as pending
     from ${schema}.entries e left join ${schema}.logs l on l.session_id = e.session_id`,
    [],
    asking,
  )
  const candidates = rows.map((row): Candidate => {
    const entry = entryOf(rowOf(row))
    const { sessionId, revision, updatedAt } = entry
    const key = row.key as string
    const lastSeq = Number(row.last_seq)
    const why = row.active === true ? 'active-turn' : row.pending === true ? 'pending-input' : undefined
    return { key, sessionId, revision, updatedAt, entry, lastSeq, protectedBy: why ?? protectionOf(key, entry, protect) }
  })
  const usage = new Map(rows.map((row) => [row.session_id as string, { bytes: Number(row.bytes), changedAt: Number(row.changed_at) }]))
  return { candidates, usage, nowMs: Number(rows[0]?.now ?? 0) }
}

function protectionOf(key: string, entry: Entry, protect: RetainOptions['protect']): ProtectedWhy | undefined {
  if ((entry as { pinned?: unknown }).pinned === true) return 'pinned'
  if (!protect) return undefined
  const answer: unknown = protect(key, entry)
  if (typeof answer === 'boolean') return answer ? 'predicate' : undefined
  if (answer instanceof Promise) answer.catch(() => {})
  throw new StoreError('INVALID_OPTION', `protect returned ${typeof answer}, not true or false.`, {
    details: { key },
    hint: 'Nothing was archived. It is synchronous.',
  })
}

async function retire({ database, schema }: PostgresInside, { entry, rule, prefix }: Going): Promise<'archived' | ProtectedWhy> {
  const { key, sessionId, revision, lastSeq } = entry as Candidate
  const why = `retention: ${rule}${prefix ? ` of ${prefix}` : ''}`
  const [answer] = await database.write(
    `select ${schema}.retire($1, $2, $3, $4, $5, $6, $7) as result`,
    [uuidv7(), database.waitMs, key, sessionId, revision, lastSeq, why],
    asking,
  )
  return (answer!.result as [string])[0] as 'archived' | ProtectedWhy
}

/** The only thing here that removes records. */
async function removeArchived(
  { database, schema }: PostgresInside,
  { rules, signal }: RetainOptions,
  nowMs: number,
): Promise<RemovedFile[]> {
  const { maxAgeMs, keepLast = 0 } = rules.archives ?? {}
  if (maxAgeMs === undefined) return []
  const removed: RemovedFile[] = []
  for (;;) {
    signal?.throwIfAborted()
    const rows = await database.write(
      `select * from ${schema}.remove_archived($1, $2, $3)`,
      [nowMs - maxAgeMs, keepLast, removedPerStatement],
      asking,
    )
    for (const { session_id, key, bytes } of rows)
      removed.push({ file: `logs/${String(session_id)}`, key: key as string, bytes: Number(bytes), rule: 'age' })
    if (rows.length < removedPerStatement) return removed
  }
}

function archivedSession({ entry, bytes, changedAt, rule, prefix }: Going): ArchivedSession {
  return { key: entry.key, sessionId: entry.sessionId, bytes, changedAt, rule, prefix }
}

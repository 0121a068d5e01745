/** Archives what the rules say, one session after another. It looks at the entries and at the length of each transcript, not into them: 100,000
 *  sessions take about a second, in slices. No lock is held between two sessions, and whatever has happened since it was decided is found under
 *  the locks of the one whose turn it is (file/transcripts/retiring.ts). */
import { isStoreError, StoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { type Cells, markOf, passingEntryOf } from '../../file/metadata/cells.js'
import { hasPendingInput } from '../../file/transcripts/pending.js'
import type { Entry } from '../../types.js'
import type { ArchivedSession, ProtectedSession, ProtectedWhy, RemovedFile, RetainOptions, RetentionReport } from '../../upkeep.js'
import { Pace } from '../pace.js'
import { archivesIn, planArchives, removeArchive, removedFile } from './archives.js'
import { type Going, planInSlices, type RetentionEntry, type RetentionPlan, type Usage } from './plan.js'

/** What became of one session, or of a file of the archive. */
export interface RetainUnit {
  readonly key?: string | undefined
  readonly sessionId?: string | undefined
  readonly file?: string | undefined
  readonly bytes: number
  readonly outcome: 'archived' | 'removed' | ProtectedWhy
}

type Protect = RetainOptions['protect']

/** Each time it is planned anew without what has turned out to be protected. */
const plansMax = 20
/** Per session; others are at work. */
const waitMs = 2_000

export async function retain(inside: Inside, options: RetainOptions): Promise<RetentionReport> {
  const pace = new Pace(inside.host.clock, { budgetMs: Number.POSITIVE_INFINITY, pauseMs: 0, signal: options.signal })
  const units = retaining(inside, options, pace)
  for (;;) {
    const step = await units.next()
    if (step.done) return step.value
  }
}

/** One session at a time, as fast as it is asked for.
 *  @throws what `protect` throws · the signal's reason, between two sessions. What is archived by then, is. */
export async function* retaining(inside: Inside, options: RetainOptions, pace: Pace): AsyncGenerator<RetainUnit, RetentionReport> {
  const { dryRun = false, protect, onProgress, signal } = options
  if (!dryRun) inside.vital.assertWritable()
  const all = await gather(inside, pace)
  const plan = await planned(inside, all, options, pace)
  const archived: ArchivedSession[] = []
  const spared: ProtectedSession[] = plan.spared.map(({ key, sessionId, protectedBy }) => ({ key, sessionId, why: protectedBy! }))
  for (const [at, going] of plan.goes.entries()) {
    signal?.throwIfAborted()
    const { key, sessionId } = going.entry
    const outcome = dryRun ? 'archived' : await archive(inside, going, all.usage, protect)
    if (outcome === 'archived') archived.push(archivedSession(going))
    else spared.push({ key, sessionId, why: outcome })
    onProgress?.(at + 1, plan.goes.length)
    yield { key, sessionId, bytes: going.bytes, outcome }
    await pace.breathe()
  }
  const emptied = yield* emptying(inside, options, pace)
  const sessions = all.entries.length
  const unsatisfied = [...plan.unsatisfied, ...emptied.unsatisfied]
  return { dryRun, sessions, kept: sessions - archived.length, archived, protected: spared, unsatisfied, removed: emptied.removed }
}

/** What the archive's own rules say. */
async function* emptying(inside: Inside, { rules, dryRun = false, signal }: RetainOptions, pace: Pace) {
  const removed: RemovedFile[] = []
  if (!rules.archives) return { removed, unsatisfied: [] }
  const { disk, clock } = inside.host
  const plan = planArchives(await archivesIn(inside, rules.archives, pace), rules.archives, clock.wallMs())
  for (const { archive, rule } of plan.goes) {
    signal?.throwIfAborted()
    if (!dryRun && !removeArchive(disk, inside.places.store, archive)) continue
    removed.push(removedFile(archive, rule))
    const { file, key, bytes } = archive
    yield { file, key, bytes, outcome: 'removed' } as const
    await pace.breathe()
  }
  return { removed, unsatisfied: plan.unsatisfied }
}

interface Gathered {
  readonly entries: (RetentionEntry & { protectedBy?: ProtectedWhy | undefined })[]
  readonly usage: Map<string, Usage>
  readonly cells: Cells
}

async function gather({ host, metadata, transcripts }: Inside, pace: Pace): Promise<Gathered> {
  const cells = await metadata.cells(true)
  const all: Gathered = { entries: [], usage: new Map(), cells }
  for (const [key, cell] of cells) {
    const { sessionId, revision, updatedAt } = passingEntryOf(cell)
    const stat = host.disk.stat(transcripts.pathOf(sessionId))
    // Closed since by somebody else.
    if (!stat && (await metadata.sessionIdOf(key)) !== sessionId) continue
    // It has had a transcript, and that is gone.
    const protectedBy = !stat && markOf(cell) ? 'damaged' : undefined
    all.entries.push({ key, sessionId, revision, updatedAt, protectedBy })
    if (stat) all.usage.set(sessionId, { bytes: stat.size, changedAt: stat.ctimeMs })
    await pace.breathe()
    pace.signal?.throwIfAborted()
  }
  return all
}

/** Of those that would go, who may not is asked one by one; what takes their place is asked in its turn. */
async function planned(
  inside: Inside,
  all: Gathered,
  { rules, protect, dryRun = false }: RetainOptions,
  pace: Pace,
): Promise<RetentionPlan> {
  const nowMs = inside.host.clock.wallMs()
  const asked = new Set<string>()
  for (let tries = 1; ; tries++) {
    const plan = await pace.through(planInSlices(all.entries, all.usage, rules, nowMs))
    let found = false
    for (const { entry } of plan.goes) {
      if (asked.has(entry.sessionId)) continue
      asked.add(entry.sessionId)
      const why = await protection(inside, entry, all.cells, protect, dryRun)
      if (why) found = true
      ;(entry as Gathered['entries'][number]).protectedBy = why
      await pace.breathe()
      pace.signal?.throwIfAborted()
    }
    if (!found || tries >= plansMax) return plan
  }
}

async function protection(
  inside: Inside,
  { key, sessionId }: RetentionEntry,
  cells: Cells,
  protect: Protect,
  thoroughly: boolean,
): Promise<ProtectedWhy | undefined> {
  const { host, transcripts, tag } = inside
  const cell = cells.get(key)
  if (!cell) return 'changed'
  const refusal = refusalOf(inside, key, passingEntryOf(cell), protect)
  if (refusal) return refusal
  const label = `transcripts/${sessionId}.jsonl`
  const source = { disk: host.disk, path: transcripts.pathOf(sessionId), label, tag, readers: new Set<() => void>() }
  try {
    return (await hasPendingInput(source, thoroughly)) ? 'pending-input' : undefined
  } catch (error) {
    if (isStoreError(error, 'LOG_CORRUPT')) return 'damaged'
    throw error
  }
}

/** What speaks against it, as far as that is known without the log. Synchronous: it is asked under the locks, too. */
function refusalOf({ turns }: Inside, key: string, entry: Entry, protect: Protect): ProtectedWhy | undefined {
  if ((entry as { pinned?: unknown }).pinned === true) return 'pinned'
  if (protect && isProtected(protect, key, entry)) return 'predicate'
  return turns.busy(key)
}

function isProtected(protect: NonNullable<Protect>, key: string, entry: Entry): boolean {
  const answer: unknown = protect(key, entry)
  if (typeof answer === 'boolean') return answer
  if (answer instanceof Promise) answer.catch(() => {})
  throw new StoreError('INVALID_OPTION', `protect returned ${typeof answer}, not true or false.`, {
    details: { key },
    hint: 'It is asked under a lock, and synchronous. What has been archived before stays archived.',
  })
}

async function archive(inside: Inside, { entry, rule, prefix }: Going, usage: ReadonlyMap<string, Usage>, protect: Protect) {
  const { key, sessionId, revision } = entry
  const why = `retention: ${rule}${prefix ? ` of ${prefix}` : ''}`
  const refuses = (now: Entry) => refusalOf(inside, key, now, protect)
  return inside.transcripts.retire({ key, sessionId, revision, bytes: usage.get(sessionId)?.bytes, why, refuses }, { waitMs })
}

function archivedSession({ entry, bytes, changedAt, rule, prefix }: Going): ArchivedSession {
  return { key: entry.key, sessionId: entry.sessionId, bytes, changedAt, rule, prefix }
}

/** What the metadata were, from what is left of them. Pure.
 *
 *  The best case needs no judgement: the journal names the hash of the snapshot that it builds on, and the generation before folds to exactly
 *  that. Else the entries are put together from all that is left, and of two versions of one the later one counts. */
import { withoutMark } from '../../file/metadata/mark.js'
import { droppedBy, type JournalSource, type SourceOp } from './journal-source.js'
import type { SnapshotSource, StoredEntry } from './snapshot-source.js'

export interface MetadataSources {
  readonly snapshot: SnapshotSource | undefined
  readonly journal: JournalSource | undefined
  readonly previousSnapshot: SnapshotSource | undefined
  readonly previousJournal: JournalSource | undefined
  /** Of transcripts that are neither closed nor archived: what their headers say. */
  readonly headers: readonly HeaderFacts[]
  /** Sessions whose transcripts lie in the archive: deleted, or rotated away. */
  readonly archived: ReadonlySet<string>
}

export interface HeaderFacts {
  readonly sessionId: string
  readonly key: string
  readonly createdAt: number
}

export interface Merged {
  readonly entries: Map<string, StoredEntry>
  readonly keysLost: string[]
  readonly recovered: string[]
  readonly lost: string[]
}

export function folded(snapshot: SnapshotSource, ops: readonly SourceOp[]): Map<string, StoredEntry> {
  const entries = new Map(snapshot.entries)
  for (const { key, entry } of ops) {
    if (entry) entries.set(key, entry)
    else entries.delete(key)
  }
  return entries
}

export function merge(sources: MetadataSources, exact: ReadonlyMap<string, StoredEntry> | undefined): Merged {
  const { snapshot, journal } = sources
  const merged: Merged = { entries: new Map(exact ?? []), keysLost: [], recovered: [], lost: [] }
  if (snapshot) takeSnapshot(merged, snapshot, exact)
  if (!exact && !snapshot?.whole) takePrevious(merged, sources)
  takeJournal(merged, journal)
  takeHeaders(merged, sources)
  oneKeyEach(merged)
  unmarkArchived(merged, sources)
  merged.keysLost.push(...(snapshot?.broken ?? []).filter((key) => !merged.entries.has(key)))
  const unreadable = snapshot?.unreadable ?? 0
  if (unreadable > 0 && !exact) merged.lost.push(`Of ${many(unreadable, 'line')} of sessions.json not even the key can be read.`)
  return merged
}

function takeSnapshot({ entries, recovered }: Merged, snapshot: SnapshotSource, exact: ReadonlyMap<string, StoredEntry> | undefined): void {
  const taken: string[] = []
  for (const [key, entry] of snapshot.entries) {
    const other = entries.get(key)
    if (other && (other.json === entry.json || isLater(other, entry))) continue
    entries.set(key, entry)
    if (exact) taken.push(key)
  }
  if (taken.length > 0) recovered.push(`Taken over from sessions.json as it stands there: ${named(taken)}.`)
  const absent = exact ? [...exact.keys()].filter((key) => !snapshot.entries.has(key)) : []
  if (absent.length > 0 && snapshot.whole)
    recovered.push(`Kept although sessions.json lacks them: ${named(absent)}. If they are to go, delete them from the store.`)
}

/** The generation before: what it says may be old, but it is better than nothing. What was archived since, was deleted. */
function takePrevious(merged: Merged, { previousSnapshot, previousJournal, archived, snapshot }: MetadataSources): void {
  if (!previousSnapshot) return
  const older: string[] = []
  for (const [key, entry] of folded(previousSnapshot, previousJournal?.ops ?? [])) {
    if (merged.entries.has(key) || archived.has(entry.sessionId)) continue
    merged.entries.set(key, entry)
    older.push(key)
  }
  if (older.length === 0) return
  merged.recovered.push(`From the generation before: ${named(older)}.`)
  if (snapshot || previousJournal?.seal === undefined)
    merged.lost.push(`Later changes to the fields of ${named(older)}, if there were any.`)
}

/** One that was deleted since comes back without its transcript; so it may not say how far that goes. */
function unmarkArchived({ entries }: Merged, { archived }: MetadataSources): void {
  for (const [key, entry] of entries) if (archived.has(entry.sessionId)) entries.set(key, { ...entry, json: withoutMark(entry.json) })
}

function takeJournal({ entries, recovered, lost }: Merged, journal: JournalSource | undefined): void {
  if (!journal) {
    lost.push('The journal is gone: the latest changes to entries, and the fields of entries made since the last checkpoint.')
    return
  }
  for (const { key, entry, sessionId } of journal.ops) {
    const now = entries.get(key)
    if (entry && !(now && isLater(now, entry))) entries.set(key, entry)
    else if (!entry && now?.sessionId === sessionId) entries.delete(key)
  }
  const gone = journal.lost.reduce((sum, { from, to }) => sum + to - from + 1, 0)
  if (gone > 0) lost.push(`${many(gone, 'change')} of the journal; whose, nothing says any more.`)
  if (!journal.sound && journal.ops.length > 0)
    recovered.push(`${many(journal.ops.length, 'change')} of the journal, those behind the damage included.`)
}

/** A session whose entry is lost still has a transcript that says whose it is; one that was deleted may, too, if its deleter died before the rest. */
function takeHeaders({ entries, recovered, lost }: Merged, { headers, previousJournal, journal }: MetadataSources): void {
  const dropped = droppedBy([...(previousJournal?.ops ?? []), ...(journal?.ops ?? [])])
  const known = new Set([...entries.values()].map(({ sessionId }) => sessionId))
  const made: string[] = []
  for (const { sessionId, key, createdAt } of [...headers].sort((a, b) => b.createdAt - a.createdAt)) {
    if (known.has(sessionId) || entries.has(key) || dropped.has(sessionId)) continue
    const facts = { sessionId, createdAt, updatedAt: createdAt, revision: 1 }
    entries.set(key, { ...facts, json: JSON.stringify(facts) })
    made.push(key)
  }
  if (made.length === 0) return
  recovered.push(`From the headers of transcripts: ${named(made)}.`)
  lost.push(`All fields of the entries of ${named(made)} but the session id and when it was made.`)
}

/** A session belongs to one key. */
function oneKeyEach({ entries, keysLost }: Merged): void {
  const owners = new Map<string, string>()
  for (const [key, entry] of entries) {
    const other = owners.get(entry.sessionId)
    if (other === undefined) {
      owners.set(entry.sessionId, key)
      continue
    }
    const loser = isLater(entries.get(other)!, entry) ? key : other
    entries.delete(loser)
    keysLost.push(loser)
    owners.set(entry.sessionId, loser === key ? other : key)
  }
}

/** Whether the first is a later version than the second. Equal revisions say nothing: then somebody has edited one of them. */
function isLater(one: StoredEntry, other: StoredEntry): boolean {
  if (one.sessionId === other.sessionId) return one.revision > other.revision
  return one.updatedAt > other.updatedAt
}

const namedMax = 20

function named(keys: readonly string[]): string {
  const shown = keys.slice(0, namedMax).map((key) => JSON.stringify(key))
  return keys.length > namedMax ? `${shown.join(', ')} and ${keys.length - namedMax} more` : shown.join(', ')
}

function many(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}

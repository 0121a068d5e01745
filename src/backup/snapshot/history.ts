/** What earlier snapshots say of what is being backed up. */
import type { FileRow, Manifest, Repository, SessionFacts, SnapshotInfo } from '../repository/repository.js'
import type { Capture } from './capture.js'
import type { GoodSnapshot, StoreCaptured } from './store-capture.js'

export interface History {
  /** The newest readable snapshot of this source, good or not: what need not be stored again. */
  readonly newest: Manifest | undefined
  /** The newest one without damage and alarms: what the present is measured by. */
  readonly good: Manifest | undefined
}

export interface Source {
  readonly host: string
  /** The store's directory, then what is included. */
  readonly source: readonly string[]
  /** As its holdfast.json says; undefined when that cannot be read, or when it is no store. */
  readonly storeId: string | undefined
}

/** Of the same store, or of whatever stood in the same place of the same machine. */
export async function readHistory(repository: Repository, source: Source, signal: AbortSignal | undefined): Promise<History> {
  const all = (await repository.snapshots({ signal })).filter((info) => info.unreadable === undefined && isOf(info, source))
  const newest = all[0]
  const good = all.find(({ damaged }) => !damaged)
  const read = (info: SnapshotInfo | undefined) => info && repository.manifest(info.id, { signal })
  const newestManifest = await read(newest)
  return { newest: newestManifest, good: good?.id === newest?.id ? newestManifest : await read(good) }
}

function isOf(info: SnapshotInfo, { host, source, storeId }: Source): boolean {
  const samePlace = info.host === host && info.source[0] === source[0]
  return samePlace || (storeId !== undefined && info.storeId === storeId)
}

const mainLog = /^(?:transcripts|archive)\/([0-9a-f-]{36})\.jsonl(?:\.gz)?$/
const pieceLog = /^archive\/[0-9a-f-]{36}\.\d+\.jsonl(?:\.gz)?$/

export function goodSnapshot(manifest: Manifest | undefined): GoodSnapshot {
  const sessions = new Map<string, SessionFacts>()
  const pieces = new Map<string, SessionFacts>()
  for (const { path, session } of manifest?.files ?? []) {
    if (!session) continue
    if (mainLog.test(path)) sessions.set(session.sessionId, session)
    else if (pieceLog.test(path)) pieces.set(path.replace(/\.gz$/, ''), session)
  }
  return { sessions, pieces }
}

/** Says of what a good snapshot has and is nowhere now, what that means. */
export function noteMissing(capture: Capture, good: Manifest | undefined, now: StoreCaptured): void {
  if (!good) return
  const keys = new Map([...now.moment.sessions.values()].map(({ key, sessionId }) => [key, sessionId]))
  for (const row of good.files) {
    if (!row.session || !mainLog.test(row.path)) continue
    const { session } = row
    const found = now.sessions.get(session.sessionId)
    const about = { path: row.path, key: session.key, sessionId: session.sessionId }
    if (!found) noteGone(capture, row, about)
    // A damaged pair names nobody; that is told already.
    else if (session.key !== undefined && !now.moment.damage) noteUnnamed(capture, session, found, keys, about)
  }
}

function noteGone(capture: Capture, row: FileRow, about: { path: string }): void {
  if (row.role === 'archive') capture.note('notice', about, 'It is in the archive no longer: retention or somebody has removed it.')
  else
    capture.note(
      'alarm',
      about,
      `The transcript is gone, from the archive too; the last good snapshot has it up to seq ${row.session!.lastSeq}.`,
    )
}

/** A key lets go of its session by a rotation or a deletion, and both leave a seal. */
function noteUnnamed(
  capture: Capture,
  { key, sessionId }: SessionFacts,
  found: { readonly seal: { reason: string } | undefined; readonly place: string },
  keys: ReadonlyMap<string, string>,
  about: { path: string },
): void {
  const names = keys.get(key!)
  if (names === sessionId || found.place === 'archive' || found.seal) return
  const now = names === undefined ? 'the metadata does not know the key' : `the metadata has the key name ${names}`
  capture.note('alarm', about, `Its key let go of it without rotation or deletion: ${now}.`)
}

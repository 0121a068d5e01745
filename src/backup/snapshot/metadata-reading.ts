/** The metadata of a live store at one moment, without a lock: snapshot and journal as a pair that belongs together, the journal cut at the
 *  end of its last whole batch. Read first of all files, so that every transcript is at least as new as what is named here.
 *
 *  A damaged pair is taken as it stands, byte for byte, and what can be made out of it is only a guide to the transcripts. */
import { type Clock, systemClock } from '../../clock.js'
import { errnoOf, isStoreError } from '../../errors.js'
import { type Disk, type FileStat, readFully } from '../../file/durable.js'
import type { StorePlaces } from '../../file/format.js'
import { Chain } from '../../file/log/chain.js'
import { Journal } from '../../file/metadata/journal.js'
import { type HighWaterMark, parseMark } from '../../file/metadata/mark.js'
import { whyNoPair } from '../../file/metadata/pair.js'
import { hashOf, parseSnapshot } from '../../file/metadata/snapshot.js'
import { newCounters } from '../../file/stats.js'

export interface NamedSession {
  readonly key: string
  readonly sessionId: string
  /** It was on the disk up to there. */
  readonly highWater: HighWaterMark | undefined
}

export interface MetadataFile {
  /** Relative to the store. */
  readonly path: string
  readonly bytes: Buffer
  readonly stat: FileStat
}

export interface MetadataMoment {
  readonly files: readonly MetadataFile[]
  /** By session id. */
  readonly sessions: ReadonlyMap<string, NamedSession>
  /** Why the store cannot be opened as it is; undefined when it can. */
  readonly damage: { readonly file: string; readonly message: string } | undefined
}

export interface ReadingPlace {
  readonly disk: Disk
  readonly places: StorePlaces
  readonly tag: string
  readonly clock?: Clock | undefined
  readonly signal?: AbortSignal | undefined
}

const triesMax = 60

export async function readMetadata(place: ReadingPlace): Promise<MetadataMoment> {
  const { clock = systemClock, signal } = place
  let why = ''
  try {
    for (let tries = 0; tries < triesMax; tries++) {
      signal?.throwIfAborted()
      const moment = await tryPair(place)
      if (typeof moment !== 'string') return moment
      why = moment
      // Somebody is between the two renames of a checkpoint, or has died there.
      if (tries > 10) await clock.sleep(Math.min(10, tries / 10), signal)
    }
  } catch (error) {
    signal?.throwIfAborted()
    if (!isStoreError(error) || error.kind !== 'damaged') throw error
    return salvage(place, { file: String(error.details.file ?? 'sessions.json'), message: error.message })
  }
  return salvage(place, {
    file: 'sessions.json',
    message: `sessions.json and sessions.journal.jsonl do not belong together: ${why}.`,
  })
}

const snapshotFile = 'sessions.json'
const journalFile = 'sessions.journal.jsonl'

async function tryPair(place: ReadingPlace): Promise<MetadataMoment | string> {
  const { disk, places, tag } = place
  const snapshot = readFile(place, snapshotFile)
  const journal = Journal.open({ disk, path: places.journal, label: journalFile, tag, counters: newCounters() }, 'read')
  try {
    if (!snapshot) return 'sessions.json is missing'
    const previous = previousPair(place)
    const named = disk.stat(places.snapshot)
    if (!named || named.ino !== snapshot.stat.ino || named.dev !== snapshot.stat.dev || named.ctimeMs !== snapshot.stat.ctimeMs)
      return 'they change while they are read'
    const wrong = whyNoPair(hashOf(snapshot.bytes), journal)
    if (wrong) return wrong
    const cells = await parseSnapshot(snapshot.bytes)
    journal.follow(({ key, cell }) => void (cell ? cells.set(key, cell) : cells.delete(key)))
    const files = [snapshot, { path: journalFile, ...cutJournal(disk, journal) }, ...previous]
    const entries = [...cells].map(([key, { bytes, start, end }]) => [key, bytes.toString('utf8', start, end)] as const)
    return { files, sessions: namedIn(entries), damage: undefined }
  } finally {
    journal.log.retire()
  }
}

/** Without what is being written behind the last whole batch. */
function cutJournal(disk: Disk, { log }: Journal): { bytes: Buffer; stat: FileStat } {
  return { bytes: readFully(disk, log.fd, 0, log.chain.end), stat: disk.fstat(log.fd) }
}

/** The generation before: nobody needs it as long as the pair in use is sound, so it is taken as it is. */
function previousPair(place: ReadingPlace): MetadataFile[] {
  return ['sessions.prev.json', 'sessions.prev.journal.jsonl'].flatMap((path) => readFile(place, path) ?? [])
}

function readFile({ disk, places }: ReadingPlace, path: string): MetadataFile | undefined {
  try {
    const fd = disk.open(`${places.store}/${path}`, 'read')
    try {
      const stat = disk.fstat(fd)
      return stat.kind === 'file' ? { path, bytes: readFully(disk, fd, 0, stat.size), stat } : undefined
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    const errno = errnoOf(error)
    // ELOOP: a symbolic link, which a store refuses; it is told as damage by whoever opens it.
    if (errno === 'ENOENT' || errno === 'ELOOP' || errno === 'EMLINK') return undefined
    throw error
  }
}

/** Everything as it stands, and who can be made out in it. */
function salvage(place: ReadingPlace, damage: { file: string; message: string }): MetadataMoment {
  const files = [snapshotFile, journalFile, 'sessions.prev.json', 'sessions.prev.journal.jsonl'].flatMap(
    (path) => readFile(place, path) ?? [],
  )
  const bytesOf = (wanted: string) => files.find(({ path }) => path === wanted)?.bytes
  return { files, sessions: namedIn(entriesIn(bytesOf(snapshotFile), bytesOf(journalFile), place.tag)), damage }
}

/** The entries, as JSON text, that can be made out in a snapshot and the journal that goes with it, sound or not. The operations of a
 *  journal that has been folded already change nothing when they are applied again. */
export function entriesIn(snapshot: Buffer | undefined, journal: Buffer | undefined, tag: string): Map<string, string> {
  const entries = new Map<string, string>()
  for (const [key, entry] of snapshot ? looseEntries(snapshot) : []) entries.set(key, JSON.stringify(entry))
  for (const [key, entry] of journal ? looseOps(journal, tag) : []) {
    if (entry === undefined) entries.delete(key)
    else entries.set(key, JSON.stringify(entry))
  }
  return entries
}

function looseEntries(bytes: Buffer): [string, unknown][] {
  try {
    const object = JSON.parse(bytes.toString('utf8')) as unknown
    return typeof object === 'object' && object !== null ? Object.entries(object) : []
  } catch {
    return []
  }
}

function looseOps(bytes: Buffer, tag: string): [string, unknown][] {
  const ops: [string, unknown][] = []
  new Chain(tag).feed(bytes, {
    record(mark, line, start) {
      const { op, key, entry } = JSON.parse(`${line.toString('utf8', start, start + mark.bodyBytes)}}`) as Record<string, unknown>
      if (typeof key === 'string' && (op === 'put' || op === 'del')) ops.push([key, op === 'put' ? entry : undefined])
    },
  })
  return ops
}

const sessionIdPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

function namedIn(entries: Iterable<readonly [key: string, json: string]>): Map<string, NamedSession> {
  const named = new Map<string, NamedSession>()
  for (const [key, json] of entries) {
    const { sessionId, $ } = (JSON.parse(json) ?? {}) as { sessionId?: unknown; $?: unknown }
    // What cannot be the name of a file of ours is no guide to one.
    if (typeof sessionId !== 'string' || !sessionIdPattern.test(sessionId)) continue
    named.set(sessionId, { key, sessionId, highWater: typeof $ === 'string' ? parseMark($) : undefined })
  }
  return named
}

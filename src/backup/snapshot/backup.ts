/** `createBackup`: a snapshot of a live store, and of whatever other directories are named, into a repository. */

import { realpathSync } from 'node:fs'
import { hostname } from 'node:os'
import { basename, resolve } from 'node:path'
import { crc32 } from 'node:zlib'
import { type Clock, systemClock } from '../../clock.js'
import { errnoOf, ioError, StoreError } from '../../errors.js'
import { type Disk, nodeDisk, readFully } from '../../file/durable.js'
import { formatVersion, placesIn, type StorePlaces } from '../../file/format.js'
import { readIdentity } from '../../file/lock/identity.js'
import { bootTag } from '../../file/log/chain.js'
import type { EncryptionOptions, OpenOrCreateOptions, TargetLocation } from '../repository/access.js'
import { openOrCreateRepository } from '../repository/open.js'
import type { FileRow, Manifest, Repository, SnapshotInfo } from '../repository/repository.js'
import { Capture } from './capture.js'
import { type BackupFinding, findingText, marksSnapshot, worstFirst } from './findings.js'
import { goodSnapshot, type History, noteMissing, readHistory, type Source } from './history.js'
import { readMetadata } from './metadata-reading.js'
import { captureTree } from './plain-capture.js'
import { StoreCapture } from './store-capture.js'

export interface BackupOptions {
  /** Into which; it stays open. Else `to`. */
  readonly repository?: Repository | undefined
  /** Where the repository is; made there when nothing is there, encrypted when keys are given. */
  readonly to?: TargetLocation | undefined
  readonly encryption?: EncryptionOptions | undefined
  /** Called when a repository had to be made at `to`, before the snapshot: keep the key. */
  readonly onCreated?: OpenOrCreateOptions['onCreated']
  /** The store's directory. It need not be sound, nor at rest. */
  readonly store: string
  /** Other directories, as plain files. */
  readonly include?: readonly string[] | undefined
  /** Reads every byte, also of files that look unchanged. Default false: a thirtieth of them, another one each time. */
  readonly full?: boolean | undefined
  /** In how many snapshots every byte is read at least once, 1 to 1,000; default 30. */
  readonly rereadIn?: number | undefined
  /** What differs from the last good snapshot is as it should be (the store was restored from an older one, say): alarms are told, but do
   *  not mark the snapshot, and the next ones are measured by this one. Damage marks it all the same. */
  readonly accept?: boolean | undefined
  /** What this machine is called in the repository; default its host name. */
  readonly host?: string | undefined
  /** Directories that are no part of what is included, such as the repository's own. */
  readonly except?: readonly string[] | undefined
  readonly signal?: AbortSignal | undefined
  /** Bytes seen to, and in all, as far as is known yet. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  readonly disk?: Disk | undefined
  readonly clock?: Clock | undefined
}

export interface BackupReport {
  readonly snapshot: SnapshotInfo
  /** Neither damage nor alarms nor warnings. */
  readonly ok: boolean
  /** Worst first. */
  readonly findings: readonly BackupFinding[]
  readonly files: number
  readonly sessions: number
  readonly bytes: number
  /** Of those, read; the rest was known to be unchanged. */
  readonly bytesRead: number
  /** In no snapshot before; before compression. */
  readonly bytesNew: number
  readonly tookMs: number
  /** The snapshot that this one was measured by. */
  readonly comparedWith: string | undefined
}

/** Takes a snapshot. Where `to` names a directory or prefix that is empty or not there, a repository is made. When it returns, the snapshot is on the target, whole; when it throws, there is none.
 *  @throws NOT_FOUND  no store there · STORE_FORMAT_UNSUPPORTED  of a newer version · BACKEND_UNAVAILABLE, IO_FAILED, DISK_FULL  of the
 *  target · LOCK_LOST  it took so long that a prune has given it up · the signal's reason. */
export async function createBackup(options: BackupOptions): Promise<BackupReport> {
  const { repository: open, to, encryption, onCreated, signal } = options
  signal?.throwIfAborted()
  if (open) return backUp(open, options)
  if (to === undefined) throw new StoreError('INVALID_OPTION', 'A backup needs to know where to: `to`, or an open `repository`.')
  // Before anything is made: a mistyped store is no reason for a repository.
  readStoreId(options.disk ?? nodeDisk, placesIn(realStore(options.store)))
  const repository = await openOrCreateRepository(to, { encryption, onCreated, signal })
  try {
    return await backUp(repository, options)
  } finally {
    await repository.close()
  }
}

async function backUp(repository: Repository, options: BackupOptions): Promise<BackupReport> {
  const { signal, disk = nodeDisk, clock = systemClock } = options
  const startedMs = clock.monotonicMs()
  const places = placesIn(realStore(options.store))
  const storeId = readStoreId(disk, places)
  const include = named((options.include ?? []).map((dir) => resolve(dir)))
  const source: Source = { host: options.host ?? hostname(), source: [places.store, ...include.values()], storeId }
  const history = await readHistory(repository, source, signal)
  const writer = await repository.begin(
    { storeId: storeId ?? history.newest?.info.storeId ?? unknownStore(places), host: source.host },
    { signal },
  )
  try {
    const round = Number(history.newest?.info.extra.round ?? -1) + 1
    const progress = progressOf(options, history.newest)
    const capture = new Capture({
      disk,
      writer,
      previous: new Map(history.newest?.files.map((row): [string, FileRow] => [row.path, row])),
      rereads: rereading(options, round),
      signal,
      onBytes: progress,
      nowMs: () => clock.wallMs(),
    })
    const { time, sessions } = await captureAll(capture, options, places, history, include, storeId)
    const findings = worstFirst(capture.findings)
    const marks = findings.filter(({ level }) => level === 'damage' || (level === 'alarm' && !options.accept))
    const snapshot = await writer.commit({
      time,
      source: source.source,
      damaged: marks.length > 0,
      findings: findings.map(findingText),
      extra: { round, included: Object.fromEntries(include), ...(history.good && { comparedWith: history.good.info.id }) },
    })
    return {
      snapshot,
      ok: findings.every((finding) => !marksSnapshot(finding) && finding.level !== 'warning'),
      findings,
      files: capture.totals.files,
      sessions,
      bytes: snapshot.bytes,
      bytesRead: capture.totals.bytesRead,
      bytesNew: capture.totals.newBytes,
      tookMs: clock.monotonicMs() - startedMs,
      comparedWith: history.good?.info.id,
    }
  } catch (error) {
    await writer.abandon().catch(() => {}) // What went wrong first is what the caller should hear of.
    throw errnoOf(error) === undefined ? error : ioError(error, 'backing up', 'none')
  }
}

async function captureAll(
  capture: Capture,
  options: BackupOptions,
  places: StorePlaces,
  history: History,
  include: ReadonlyMap<string, string>,
  storeId: string | undefined,
): Promise<{ time: number; sessions: number }> {
  const { disk = nodeDisk, clock = systemClock, signal } = options
  const place = { disk, places, tag: bootTag(readIdentity().boot), clock, signal }
  const moment = await readMetadata(place)
  const time = clock.wallMs()
  if (storeId === undefined) capture.note('damage', { path: 'holdfast.json' }, 'It is missing or cannot be read.')
  noteOtherStore(capture, history, storeId)
  const except = (options.except ?? []).map((dir) => resolve(dir))
  const store = await new StoreCapture(capture, place, goodSnapshot(history.good), except).run(moment)
  noteMissing(capture, history.good, store)
  for (const [name, dir] of include) {
    if (disk.stat(dir)?.kind === 'directory') await captureTree(capture, dir, `included/${name}`, [places.store, ...except])
    else capture.note('warning', { path: `included/${name}` }, `${dir} is not a directory, and is not in the snapshot.`)
  }
  return { time, sessions: moment.sessions.size }
}

/** Somebody has put another store where one was that good snapshots exist of. */
function noteOtherStore(capture: Capture, { good }: History, storeId: string | undefined): void {
  if (!good || storeId === undefined || good.info.storeId === storeId) return
  const message = `Another store (${storeId}) stands where the last good snapshot found ${good.info.storeId}.`
  capture.note('alarm', { path: 'holdfast.json' }, message)
}

/** Each file in one of so many rounds, by its name: what is new does not move the others. */
function rereading({ full, rereadIn = 30 }: BackupOptions, round: number): (path: string) => boolean {
  return (path) => full === true || crc32(path) % rereadIn === round % rereadIn
}

function progressOf({ onProgress }: BackupOptions, newest: Manifest | undefined): (bytes: number) => void {
  let done = 0
  const expected = newest?.info.bytes ?? 0
  return (bytes) => {
    done += bytes
    onProgress?.(done, Math.max(done, expected))
  }
}

/** A store may itself be a symbolic link. */
function realStore(dir: string): string {
  try {
    return realpathSync(dir)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw ioError(error, `backing up ${dir}`, 'none')
    throw noStore(resolve(dir))
  }
}

function noStore(dir: string): StoreError {
  return new StoreError('NOT_FOUND', `there is no store in ${dir}.`, {
    details: { store: dir },
    hint: 'Check the path; a directory that is no store is backed up beside one, as an included directory.',
  })
}

/** undefined when it cannot be read: the store is damaged, and backed up as it is.
 *  @throws NOT_FOUND · STORE_FORMAT_UNSUPPORTED  its records may follow other rules. */
function readStoreId(disk: Disk, places: StorePlaces): string | undefined {
  if (![places.format, places.snapshot, places.journal, places.transcripts, places.archive].some((path) => disk.stat(path)))
    throw noStore(places.store)
  let found: { format?: unknown; storeId?: unknown } | null
  try {
    const fd = disk.open(places.format, 'read')
    try {
      found = JSON.parse(readFully(disk, fd, 0, disk.fstat(fd).size).toString('utf8')) as typeof found
    } finally {
      disk.close(fd)
    }
  } catch {
    return undefined
  }
  if (typeof found?.format === 'number' && found.format > formatVersion)
    throw new StoreError('STORE_FORMAT_UNSUPPORTED', `the store has format ${found.format}; this version knows up to ${formatVersion}.`, {
      details: { found: found.format, supported: formatVersion },
      hint: 'Nothing was written. Back it up with the version that wrote it, or a newer one.',
    })
  return typeof found?.storeId === 'string' && found.storeId !== '' ? found.storeId : undefined
}

function unknownStore({ store }: StorePlaces): string {
  return `unknown-${crc32(store).toString(16).padStart(8, '0')}`
}

/** Directories by what they are called in the snapshot: their last part, and a number where two are called the same. */
function named(dirs: readonly string[]): Map<string, string> {
  const names = new Map<string, string>()
  for (const dir of dirs) {
    if ([...names.values()].includes(dir)) continue
    const base = basename(dir) || 'root'
    let name = base
    for (let n = 2; names.has(name); n++) name = `${base}-${n}`
    names.set(name, dir)
  }
  return names
}

/** What goes from `archive/` for good, and from `quarantine/` where that is asked for. The only code that unlinks what somebody has written; it knows
 *  its files by their exact names, and leaves whatever else stands there (F30). */
import { errnoOf } from '../../errors.js'
import { noteFile, parseArchiveFile } from '../../file/archives/archive-name.js'
import type { Inside } from '../../file/backend.js'
import { type Disk, readFully } from '../../file/durable.js'
import { headerPrefix } from '../../file/log/record.js'
import { stringAt, stringEnd } from '../../file/metadata/cells.js'
import type { ArchiveLimits, RemovedFile, UnsatisfiedRule } from '../../upkeep.js'
import type { Pace } from '../pace.js'

export interface Archive {
  /** Relative to the store: the log, or the directory of a quarantine. */
  readonly file: string
  /** What goes with it: the note of a compressed one. */
  readonly also: readonly string[]
  readonly bytes: number
  /** Since when it is there, epoch ms. */
  readonly at: number
  readonly key: string | undefined
  readonly quarantine: boolean
}

export interface ArchivePlan {
  readonly goes: readonly { readonly archive: Archive; readonly rule: 'age' | 'bytes' }[]
  readonly unsatisfied: readonly UnsatisfiedRule[]
}

/** Pure: by age, then by bytes, the oldest first. */
export function planArchives(archives: readonly Archive[], limits: ArchiveLimits, nowMs: number): ArchivePlan {
  const { maxAgeMs, maxBytes, keepLast = 0 } = limits
  const oldestFirst = [...archives].sort((a, b) => a.at - b.at || (a.file < b.file ? -1 : 1))
  const kept = lastOfEach(oldestFirst, keepLast)
  const goes: { archive: Archive; rule: 'age' | 'bytes' }[] = []
  const stays: Archive[] = []
  for (const archive of oldestFirst) {
    const old = maxAgeMs !== undefined && nowMs - archive.at > maxAgeMs && !kept.has(archive)
    if (old && (!archive.quarantine || limits.quarantine)) goes.push({ archive, rule: 'age' })
    else if (!archive.quarantine) stays.push(archive)
  }
  if (maxBytes === undefined) return { goes, unsatisfied: [] }
  let total = bytesOf(stays)
  const fixed = bytesOf(stays.filter((archive) => kept.has(archive)))
  if (fixed > maxBytes) {
    const least = { rule: 'archive-bytes', prefix: '', limit: maxBytes, least: fixed, protected: kept.size } as const
    return { goes, unsatisfied: [least] }
  }
  for (const archive of stays) {
    if (total <= maxBytes) break
    if (kept.has(archive)) continue
    total -= archive.bytes
    goes.push({ archive, rule: 'bytes' })
  }
  return { goes, unsatisfied: [] }
}

function bytesOf(archives: readonly Archive[]): number {
  return archives.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** One whose key nobody knows is kept, if any of that kind is: it may be somebody's last. */
function lastOfEach(oldestFirst: readonly Archive[], keepLast: number): Set<Archive> {
  const kept = new Set<Archive>()
  const left = new Map<string, number>()
  for (const archive of oldestFirst.toReversed()) {
    if (keepLast === 0 || archive.quarantine) continue
    const more = archive.key === undefined ? 1 : (left.get(archive.key) ?? keepLast)
    if (more > 0) kept.add(archive)
    if (archive.key !== undefined) left.set(archive.key, more - 1)
  }
  return kept
}

const quarantinePattern = /^\d{8}T\d{6}Z-[0-9a-f]{8}$/

/** Everything in `archive/` and, where asked for, `quarantine/`. */
export async function archivesIn({ host, places }: Inside, limits: ArchiveLimits, pace: Pace): Promise<Archive[]> {
  const { disk } = host
  const archives: Archive[] = []
  const names = new Set(list(disk, places.archive))
  for (const name of names) {
    const parsed = parseArchiveFile(name)
    const stat = parsed && disk.stat(`${places.archive}/${name}`)
    // The same file under two names: a compaction that is not finished yet.
    const inUse = parsed && stat?.ino === disk.stat(`${places.transcripts}/${parsed.sessionId}.jsonl`)?.ino
    // It is one archive, and the plain one stands for it: whoever compresses it is about to unlink that, or has died.
    const inMaking = parsed?.compressed && names.has(`${parsed.archive}.jsonl`)
    if (parsed && stat?.kind === 'file' && !inUse && !inMaking) {
      const beside = noteFile(parsed.archive)
      const note = parsed.compressed && names.has(beside) ? readNote(disk, `${places.archive}/${beside}`) : undefined
      archives.push({
        file: `archive/${name}`,
        also: note ? [`archive/${beside}`] : [],
        bytes: stat.size,
        // Moving it there was the last change of its name.
        at: note?.at ?? stat.ctimeMs,
        key: note?.key ?? (parsed.compressed ? undefined : keyIn(disk, `${places.archive}/${name}`)),
        quarantine: false,
      })
    }
    await pace.breathe()
  }
  if (limits.quarantine) archives.push(...quarantines(disk, places.quarantine))
  return archives
}

function quarantines(disk: Disk, directory: string): Archive[] {
  return list(disk, directory).flatMap((name): Archive[] => {
    const stat = quarantinePattern.test(name) ? disk.stat(`${directory}/${name}`) : undefined
    if (stat?.kind !== 'directory') return []
    const inside = list(disk, `${directory}/${name}`).map((file) => `quarantine/${name}/${file}`)
    const bytes = inside.reduce((sum, file) => sum + (disk.stat(`${directory}/${file.slice('quarantine/'.length)}`)?.size ?? 0), 0)
    return [{ file: `quarantine/${name}`, also: inside, bytes, at: stat.ctimeMs, key: undefined, quarantine: true }]
  })
}

/** False when it is gone, or will not go; what is left of it is found the next time. */
export function removeArchive(disk: Disk, store: string, { file, also, quarantine }: Archive): boolean {
  try {
    if (!quarantine) disk.unlink(`${store}/${file}`)
    for (const other of also) disk.unlink(`${store}/${other}`)
    if (quarantine) disk.rmdir(`${store}/${file}`)
    return true
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return false
  }
}

export function removedFile({ file, key, bytes }: Archive, rule: 'age' | 'bytes'): RemovedFile {
  return { file, key, bytes, rule }
}

const headBytes = 16 << 10
/** A note has the caller's fields of the entry in it, up to 64 KiB. */
const noteBytesMax = 128 << 10

/** As its header says: without the rest of it, which may be long. */
function keyIn(disk: Disk, path: string): string | undefined {
  const head = headOf(disk, path, headBytes)
  const at = head.indexOf(`${headerPrefix}{`)
  const key = at < 0 ? -1 : head.indexOf('"key":"', at)
  if (key < 0) return undefined
  const start = key + '"key":'.length
  const found = stringEnd(head, start)
  return found.end < 0 ? undefined : stringAt(head, start, found)
}

function readNote(disk: Disk, path: string): { key: string | undefined; at: number } | undefined {
  try {
    const { key, at } = JSON.parse(headOf(disk, path, noteBytesMax).toString('utf8')) as { key?: unknown; at?: unknown }
    return typeof at === 'number' ? { key: typeof key === 'string' ? key : undefined, at } : undefined
  } catch {
    return undefined // Damaged: then the file's own time counts, and its key is nobody's.
  }
}

function headOf(disk: Disk, path: string, bytesMax: number): Buffer {
  try {
    const fd = disk.open(path, 'read')
    try {
      return readFully(disk, fd, 0, Math.min(bytesMax, disk.fstat(fd).size))
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return Buffer.alloc(0)
  }
}

function list(disk: Disk, directory: string): string[] {
  try {
    return disk.readdir(directory)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}

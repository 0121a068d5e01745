/** Snapshot and journal, each by itself and as a pair that belongs together.
 *
 *  Both are opened at one moment at which their paths named them: a checkpoint puts the snapshot in place and then the journal, so at every
 *  moment the two that the paths name are a pair. From then on it does not matter what becomes of the paths: the snapshot's inode never
 *  changes, and the journal's only grows. */
import { errnoOf } from '../../errors.js'
import { type Disk, readFully } from '../../file/durable.js'
import { fileSource } from '../../file/log/scan.js'
import { breathe } from '../../file/stage.js'
import type { Finding, FindingKind } from '../../findings.js'
import type { NamedSessions } from './entries.js'
import { applied, keyIn, type ScannedJournal, scanJournal } from './journal-scan.js'
import type { LogScanOptions } from './log-scan.js'
import { meanings } from './meanings.js'
import { type ScannedSnapshot, scanSnapshot } from './snapshot-scan.js'

export interface PairPlaces {
  readonly snapshot: string
  readonly journal: string
}

export interface ScannedMetadata {
  readonly snapshot: ScannedSnapshot | undefined
  readonly journal: ScannedJournal | undefined
  /** What the keys name; undefined where that is not known, for damage. */
  readonly sessions: NamedSessions | undefined
  readonly findings: readonly Finding[]
}

const openTriesMax = 200
const keyBytesMax = 4 << 10

/** @param files  what the two are called, relative to the store */
export async function scanMetadata(disk: Disk, places: PairPlaces, files: PairPlaces, options: LogScanOptions): Promise<ScannedMetadata> {
  const opened = await openPair(disk, places, files)
  const findings = [...opened.findings]
  try {
    const size = opened.snapshot === undefined ? 0 : disk.fstat(opened.snapshot).size
    const readSnapshot = async (thorough: boolean) =>
      opened.snapshot === undefined ? undefined : scanSnapshot(fileSource(disk, opened.snapshot, size), thorough, options)
    const snapshot = await readSnapshot(false)
    const journal =
      opened.journal === undefined
        ? undefined
        : await scanJournal(fileSource(disk, opened.journal, disk.fstat(opened.journal).size), { file: files.journal }, options)
    const belong = snapshot && journal ? belongTogether(snapshot.hash, journal) : undefined
    // Only the hash says that something in it was changed; then look for where.
    const looked = belong === 'no' || (snapshot && snapshot.bad.length > 0) ? await readSnapshot(true) : snapshot
    for (const { bytes, key, why } of looked?.bad ?? [])
      findings.push(of('snapshot-damaged', files.snapshot, { bytes, key, meaning: `${why}. ${meanings['snapshot-damaged'].meaning}` }))
    if (belong === 'no' && looked?.bad.length === 0) findings.push(of('pair-mismatch', files.snapshot, {}))
    if (journal) findings.push(...withKeys(journal.findings, disk, opened.journal!))
    const isSound = !findings.some(({ severity }) => severity === 'damage')
    const sessions =
      isSound && snapshot && journal ? applied(snapshot.sessions, belong === 'folded' ? new Map() : journal.operations) : undefined
    return { snapshot, journal, sessions, findings }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    findings.push(of('unreadable', files.snapshot, { meaning: `The metadata cannot be read: ${(error as Error).message}.` }))
    return { snapshot: undefined, journal: undefined, sessions: undefined, findings }
  } finally {
    for (const fd of [opened.snapshot, opened.journal]) if (fd !== undefined) disk.close(fd)
  }
}

/** base: the journal's operations come on top · folded: they are in the snapshot already · unknown: the journal is damaged itself. */
function belongTogether(hash: string, { header, seal, damage }: ScannedJournal): 'base' | 'folded' | 'no' | 'unknown' {
  if (seal?.reason === 'checkpoint' && seal.next === hash) return 'folded'
  if (header?.base === hash) return 'base'
  return damage || !header ? 'unknown' : 'no'
}

interface Opened {
  readonly snapshot: number | undefined
  readonly journal: number | undefined
  readonly findings: readonly Finding[]
}

async function openPair(disk: Disk, places: PairPlaces, files: PairPlaces): Promise<Opened> {
  for (let tries = 1; ; tries++) {
    const snapshot = openOne(disk, places.snapshot, files.snapshot, 'snapshot-missing')
    const journal = openOne(disk, places.journal, files.journal, 'journal-missing')
    const opened = { snapshot: snapshot.fd, journal: journal.fd, findings: [...snapshot.findings, ...journal.findings] }
    if (tries >= openTriesMax || (isStill(disk, places.snapshot, snapshot.fd) && isStill(disk, places.journal, journal.fd))) return opened
    for (const fd of [snapshot.fd, journal.fd]) if (fd !== undefined) disk.close(fd)
    await breathe()
  }
}

function openOne(disk: Disk, path: string, file: string, missing: FindingKind): { fd: number | undefined; findings: Finding[] } {
  const stat = disk.stat(path)
  if (!stat) return { fd: undefined, findings: [of(missing, file, {})] }
  if (stat.kind !== 'file')
    return {
      fd: undefined,
      findings: [of('not-a-file', file, { meaning: `${file} is a ${stat.kind}. ${meanings['not-a-file'].meaning}` })],
    }
  try {
    return { fd: disk.open(path, 'read'), findings: [] }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    if (errnoOf(error) === 'ENOENT') return { fd: undefined, findings: [of(missing, file, {})] }
    const meaning = `${file} cannot be opened: ${(error as Error).message}. ${meanings.unreadable.meaning}`
    return { fd: undefined, findings: [of('unreadable', file, { meaning })] }
  }
}

function isStill(disk: Disk, path: string, fd: number | undefined): boolean {
  const now = disk.stat(path)
  if (fd === undefined) return now?.kind !== 'file'
  const then = disk.fstat(fd)
  return now?.ino === then.ino && now.dev === then.dev
}

/** An operation that was altered may still say whose it was. */
function withKeys(findings: readonly Finding[], disk: Disk, fd: number): Finding[] {
  return findings.map((finding) => {
    const { kind, bytes, count } = finding
    if (kind !== 'altered-line' || !bytes || count > 1) return finding
    return { ...finding, key: keyIn(readFully(disk, fd, bytes.from, Math.min(keyBytesMax, bytes.to - bytes.from))) }
  })
}

function of(kind: FindingKind, file: string, more: Partial<Finding>): Finding {
  return { kind, file, bytes: undefined, seqs: undefined, key: undefined, sessionId: undefined, count: 1, ...meanings[kind], ...more }
}

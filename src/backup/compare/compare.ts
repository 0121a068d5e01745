/** `compareBackups`: what has become of everything that a snapshot has, in a later one or in the store as it is now. */
import { resolve } from 'node:path'
import { type Disk, nodeDisk } from '../../file/durable.js'
import { readIdentity } from '../../file/lock/identity.js'
import { bootTag } from '../../file/log/chain.js'
import type { FileRow, Repository } from '../repository/repository.js'
import { unfolded } from '../restore/proof.js'
import { followLog } from '../snapshot/chain-stream.js'
import type { BackupFinding } from '../snapshot/findings.js'
import { logNow } from '../snapshot/log-capture.js'
import type { LogFacts } from '../snapshot/log-reading.js'
import { isAlarming, judge } from '../snapshot/verdict.js'
import { type Difference, firstDifference } from './differing.js'
import { changedFiles, type FileChange } from './files.js'
import { directorySide, type Side, snapshotSide } from './sides.js'

export interface CompareOptions {
  readonly repository: Repository
  /** A snapshot: what was. */
  readonly from: string
  /** Another snapshot, or the directory of a store. */
  readonly to: { readonly snapshot: string } | { readonly store: string }
  readonly signal?: AbortSignal | undefined
  readonly disk?: Disk | undefined
}

/** added · extended: the same and more · closed: archived after a rotation or deletion · remade: by a compaction or a repair, which its
 *  header says · removed: out of the archive. These are in order. gone, unnamed (its key let go of it without a trace), shrunk, rewritten
 *  and damaged are not. */
export type SessionChangeKind =
  | 'added'
  | 'extended'
  | 'closed'
  | 'remade'
  | 'removed'
  | 'gone'
  | 'unnamed'
  | 'shrunk'
  | 'rewritten'
  | 'damaged'

export interface SessionChange {
  readonly what: SessionChangeKind
  readonly alarming: boolean
  readonly key: string | undefined
  readonly sessionId: string
  readonly before: { readonly path: string; readonly lastSeq: number } | undefined
  readonly now: { readonly path: string; readonly lastSeq: number } | undefined
  /** Where it was rotated to, or `deleted`. */
  readonly closed: string | undefined
  readonly firstDifference: Difference | undefined
  readonly message: string
}

export interface CompareReport {
  readonly from: string
  readonly to: string
  /** Nothing alarming. */
  readonly ok: boolean
  readonly same: number
  /** Alarming ones first. */
  readonly sessions: readonly SessionChange[]
  readonly files: readonly FileChange[]
  /** Damage of what is compared with. */
  readonly findings: readonly BackupFinding[]
}

/** Looks only.
 *  @throws NOT_FOUND  no such snapshot or store · BACKUP_MISMATCH · BACKEND_UNAVAILABLE · the signal's reason. */
export async function compareBackups(options: CompareOptions): Promise<CompareReport> {
  const { repository, from, to, signal, disk = nodeDisk } = options
  const then = await snapshotSide(repository, from, signal)
  const now = 'store' in to ? await directorySide(disk, resolve(to.store), signal) : await snapshotSide(repository, to.snapshot, signal)
  const comparing = new Comparing(then, now)
  const sessions = await comparing.run()
  const files = await changedFiles(then, now)
  const findings = now.findings.filter(({ level }) => level === 'damage')
  return {
    from: then.label,
    to: now.label,
    ok: sessions.every(({ alarming }) => !alarming) && files.every(({ alarming }) => !alarming) && findings.length === 0,
    same: comparing.same,
    sessions: sessions.sort((a, b) => Number(b.alarming) - Number(a.alarming)),
    files,
    findings,
  }
}

const mainLog = /^(?:transcripts|archive)\/[0-9a-f-]{36}\.jsonl(?:\.gz)?$/
const tag = () => bootTag(readIdentity().boot)

class Comparing {
  same = 0
  #then: Side
  #now: Side
  #tag = tag()

  constructor(then: Side, now: Side) {
    this.#then = then
    this.#now = now
  }

  async run(): Promise<SessionChange[]> {
    const [before, after] = [this.#then, this.#now].map(({ rows }) => sessionsIn(rows)) as [Map<string, FileRow>, Map<string, FileRow>]
    const changes: SessionChange[] = []
    for (const [sessionId, row] of before) {
      const change = await this.#one(row, after.get(sessionId))
      if (change) changes.push(change)
      else this.same++
    }
    for (const [sessionId, row] of after) if (!before.has(sessionId)) changes.push(changeOf('added', undefined, row, 'It is new.'))
    return changes
  }

  async #one(then: FileRow, now: FileRow | undefined): Promise<SessionChange | undefined> {
    if (!now) {
      if (then.role === 'archive') return changeOf('removed', then, undefined, 'It is in the archive no longer.')
      return changeOf('gone', then, undefined, 'Its transcript is gone, from the archive too.')
    }
    if (isSame(then, now)) return undefined
    const log = await followLog(unfolded(now, this.#now.bytes(now)), this.#tag, new Set([then.session!.lastSeq]))
    if (log.damage && !isDamaged(then)) {
      const message = `It is damaged at byte ${log.damage.byte}, seq ${log.damage.seq}: ${log.damage.why}.`
      return changeOf('damaged', then, now, message, { firstDifference: await this.#difference(then, now) })
    }
    return this.#judged(then, now, log)
  }

  async #judged(then: FileRow, now: FileRow, log: LogFacts): Promise<SessionChange | undefined> {
    const verdict = judge(then.session!, logNow(log, now.session!, then.session!))
    if (isAlarming(verdict)) {
      const firstDifference = await this.#difference(then, now)
      return changeOf(verdict as 'shrunk', then, now, alarm(verdict, then, now), { firstDifference })
    }
    if (verdict === 'remade') return this.#remade(then, now, log)
    const letGo = then.session!.key !== undefined && now.session!.key !== then.session!.key
    if (letGo && now.role === 'transcript' && !log.seal)
      return changeOf('unnamed', then, now, 'Its key names it no longer, and neither a rotation nor a deletion has closed it.')
    if (now.role === 'archive' && then.role !== 'archive' && log.seal) {
      const to = log.seal.reason === 'rotated' ? `rotated to ${log.seal.next}` : log.seal.reason
      return changeOf('closed', then, now, `It was ${to}, and is in the archive.`, { closed: log.seal.next ?? log.seal.reason })
    }
    if (verdict === 'extended') return changeOf('extended', then, now, `${now.session!.lastSeq - then.session!.lastSeq} records more.`)
    return undefined
  }

  /** The header says that the file was made from the one that was: then the records that stayed must be the same. */
  async #remade(then: FileRow, now: FileRow, log: LogFacts): Promise<SessionChange> {
    // The header has the number of the last record that has gone.
    const firstDifference = await this.#difference(then, now, (log.header?.seq ?? -1) + 1)
    if (!firstDifference || isLost(firstDifference)) {
      const what = firstDifference
        ? 'A repair has made it anew; some records could not be saved.'
        : 'A compaction or a repair has made it anew.'
      return changeOf('remade', then, now, what, { firstDifference })
    }
    return changeOf('rewritten', then, now, 'Its header says that it was made anew from the same records, but they differ.', {
      firstDifference,
    })
  }

  #difference(then: FileRow, now: FileRow, fromSeq?: number): Promise<Difference | undefined> {
    const bytes = (side: Side, row: FileRow) => unfolded(row, side.bytes(row))
    return firstDifference(bytes(this.#then, then), bytes(this.#now, now), this.#tag, fromSeq)
  }
}

function isLost({ now }: Difference): boolean {
  return now?.startsWith('{"$$":{"lost":') === true
}

function isDamaged({ findings }: FileRow): boolean {
  return (findings?.length ?? 0) > 0
}

function sessionsIn(rows: readonly FileRow[]): Map<string, FileRow> {
  const found = new Map<string, FileRow>()
  for (const row of rows) if (row.session && mainLog.test(row.path)) found.set(row.session.sessionId, row)
  return found
}

/** The last crc covers everything before it. */
function isSame(then: FileRow, now: FileRow): boolean {
  const [a, b] = [then.session!, now.session!]
  const sameEnd = a.lastSeq >= 0 && a.lastSeq === b.lastSeq && a.lastCrc === b.lastCrc && a.headerCrc === b.headerCrc
  return sameEnd && a.key === b.key && isDamaged(then) === isDamaged(now)
}

function alarm(verdict: string, then: FileRow, now: FileRow): string {
  if (verdict === 'shrunk') return `It ends at seq ${now.session!.lastSeq}; it went up to seq ${then.session!.lastSeq}.`
  return 'Another record stands where its last one stood, and no compaction or repair says that it made the file anew.'
}

function changeOf(
  what: SessionChangeKind,
  then: FileRow | undefined,
  now: FileRow | undefined,
  message: string,
  more: { firstDifference?: Difference | undefined; closed?: string } = {},
): SessionChange {
  const side = (row: FileRow | undefined) => row && { path: row.path, lastSeq: row.session!.lastSeq }
  const session = (now ?? then)!.session!
  return {
    what,
    alarming: ['gone', 'unnamed', 'shrunk', 'rewritten', 'damaged'].includes(what),
    key: now?.session?.key ?? then?.session?.key ?? session.headerKey,
    sessionId: session.sessionId,
    before: side(then),
    now: side(now),
    closed: more.closed,
    firstDifference: more.firstDifference,
    message,
  }
}

/** One transcript, as far as it is written to: where its log stands, which ids it knows, and what to do when it is sealed.
 *
 *  A file that is opened for the first time is believed only after the metadata, asked *after* the opening, still names this session for
 *  the key: else a writer that slept through a rotation would create the archived file anew and append where nobody looks. */
import { errnoOf, isStoreError, StoreError } from '../../errors.js'
import type { Host } from '../host.js'
import { type LogOwner, Preparation } from '../job.js'
import type { Held } from '../lock/baton.js'
import { Chain, type ChainSink } from '../log/chain.js'
import { LogFile, type LogPlace, logCorrupt } from '../log/log-file.js'
import { readInPieces } from '../log/pieces.js'
import { type Header, type Seal, systemBody } from '../log/record.js'
import { openTail } from '../log/tail.js'
import type { HighWaterMark } from '../metadata/mark.js'
import type { Vital } from '../vital.js'
import { Ids, type Remembered } from './ids.js'
import { type MarkCheck, sameMark, transcriptMissing } from './mark-check.js'
import { TurnLog } from './turn-log.js'

export interface TranscriptTools {
  readonly host: Host
  readonly vital: Vital
  readonly directory: string
  /** Whether the key names this session, by asking the disk; undefined when that takes loading. */
  names(key: string, sessionId: string): boolean | undefined
  reloadNames(): Promise<void>
  /** How far the session is known to be on the disk, as the metadata was when it was last asked. */
  mark(key: string, sessionId: string): HighWaterMark | undefined
  readonly marks: MarkCheck
  /** Writes the log anew, from what chains up to its `suspect` seal. */
  rewrite(transcript: Transcript, log: LogFile, held: Held): Promise<void>
  /** A sync has failed. */
  rescue(transcript: Transcript, error: unknown): void
  /** Syncs the directory; shared by all who ask at once. */
  syncDirectory(): Promise<void>
}

/** How far back to look for the last turn, in records, before the whole log is read in pieces. */
const turnSearchRecords = [32, 256, 2_048]

export class Transcript implements LogOwner {
  readonly sessionId: string
  readonly key: string
  readonly label: string
  readonly directory: string
  readonly place: LogPlace
  /** Of the batch that is being put together. */
  batch = { next: 0, userSeq: 0, ids: new Set<string>() }
  #tools: TranscriptTools
  #log: LogFile | undefined
  #verified = false
  #mayCreate = false
  #gone = false
  /** The metadata names this session no more, by a mutator's doing: it is only opened to be closed. */
  closing = false
  /** The metadata record that names this session is known to be on the disk. */
  nameIsDurable = false
  #ids: Ids
  #idsComplete = false
  #turnLog: TurnLog
  #wantIds = false
  #wantTurns = false
  #wantNames = false

  constructor(sessionId: string, key: string, place: LogPlace, tools: TranscriptTools) {
    this.sessionId = sessionId
    this.key = key
    this.place = place
    this.label = place.label
    this.directory = tools.directory
    this.#tools = tools
    this.#ids = new Ids(sessionId)
    this.#turnLog = new TurnLog(sessionId)
  }

  /** Who is active and what is pending. @throws Preparation  that has to be read first. */
  get turns(): TurnLog {
    if (this.#turnLog.known || this.#idsComplete) return this.#turnLog
    this.#wantTurns = true
    throw new Preparation('unlocked')
  }

  /** The same, with every request that was answered. @throws Preparation  the whole log has to be read first. */
  get requests(): TurnLog {
    if (this.#idsComplete) return this.#turnLog
    this.#wantIds = true
    throw new Preparation('unlocked')
  }

  /** The ids of this session. @throws Preparation  they have to be read first. */
  get ids(): Ids {
    if (this.#idsComplete) return this.#ids
    this.#wantIds = true
    throw new Preparation('unlocked')
  }

  /** An id whose record has just landed. */
  remember(id: string, remembered: Remembered): void {
    this.#ids.remember(id, remembered)
  }

  /** For a call that has to wait for another of the same batch. */
  comeBack(): Preparation {
    return new Preparation('unlocked')
  }

  /** All ids of a sealed session, for the log that comes next. */
  async allIds(): Promise<{ ids: ReturnType<Ids['forHeader']>; turns: TurnLog }> {
    if (!this.#idsComplete && this.#log) await this.#readIds(this.#log)
    return { ids: this.#ids.forHeader(), turns: this.#turnLog }
  }

  refresh(): LogFile {
    this.#tools.vital.assertWritable()
    const log = this.#current()
    log.assertSound()
    const { seal } = log.chain
    if (seal?.reason === 'suspect') throw new Preparation('locked')
    if (seal) throw moved(this, seal)
    return log
  }

  #current(): LogFile {
    const log = this.#log
    if (!log || !this.#verified) return this.#open()
    const freshness = log.refresh()
    if (freshness === 'current' || freshness === 'grown') {
      // A mutator may have deleted the key: then there is no seal yet to say so.
      if (!log.chain.seal && !this.#isNamed()) throw moved(this, undefined)
      return log
    }
    if (freshness === 'absent') return this.#vanished(log)
    this.forget()
    return this.#open()
  }

  /** The file is gone from its path: archived behind a seal, or taken away by hand. */
  #vanished(log: LogFile): LogFile {
    log.readOn()
    if (log.chain.seal) return log
    throw new StoreError('LOG_CORRUPT', `${this.label} has vanished while it was in use.`, {
      details: { file: this.label, seq: log.chain.seq, sessionId: this.sessionId },
      hint: 'Nothing was written. Put the file back from where it was moved, or from a backup.',
    })
  }

  #open(): LogFile {
    if (this.#gone) throw moved(this, undefined)
    for (let before: HighWaterMark | undefined; ; ) {
      this.#log ??= this.#openFile()
      this.#assertNamed()
      const mark = this.#mark()
      const damage = mark && this.#tools.marks.look(this.sessionId, this.#log.fd, mark)
      if (!damage) {
        this.#verified = true
        return this.#log
      }
      if (sameMark(mark, before)) throw logCorrupt(this.label, damage)
      // The mark may speak of a file that has taken the place of the one we have: then what we open now is that.
      this.forget()
      before = mark
    }
  }

  #openFile(): LogFile {
    try {
      const log = LogFile.open(this.place, this.#mayCreate ? 'append' : 'appendExisting', 'tail', this.#noting(this.#ids, this.#turnLog))
      this.#idsComplete = log.chain.header !== undefined || log.chain.seq < 0
      return log
    } catch (error) {
      if (isSymlinkRefusal(error)) throw symlinkRefused(this.label)
      if (errnoOf(error) !== 'ENOENT' || this.#mayCreate) throw error
    }
    return this.#createIfNamed()
  }

  #createIfNamed(): LogFile {
    this.#assertNamed()
    const mark = this.#mark()
    this.#mayCreate = mark === undefined
    if (!mark || this.#tools.host.disk.stat(this.place.path)) return this.#openFile()
    // Whoever made the mark had made the file; so it is not there any more. Unless that was a rotation, which has renamed the key before.
    this.#assertNamed()
    this.assertNotMissing()
    return this.#openFile()
  }

  /** For one who has found no file. @throws LOG_CORRUPT  there should be one. */
  assertNotMissing(): void {
    const mark = this.#mark()
    if (mark) throw transcriptMissing(this.label, this.sessionId, mark)
  }

  #mark(): HighWaterMark | undefined {
    return this.closing ? undefined : this.#tools.mark(this.key, this.sessionId)
  }

  #assertNamed(): void {
    if (this.#isNamed()) return
    this.#gone = true
    throw moved(this, undefined)
  }

  #isNamed(): boolean {
    if (this.closing) return true
    const named = this.#tools.names(this.key, this.sessionId)
    if (named === undefined) {
      this.#wantNames = true
      throw new Preparation('unlocked')
    }
    return named
  }

  beginBatch(log: LogFile): readonly string[] {
    const fresh = log.chain.seq < 0
    this.batch = { next: log.nextSeq + (fresh ? 1 : 0), userSeq: fresh ? log.nextSeq - 1 : log.chain.userSeq, ids: new Set() }
    if (this.batch.userSeq < 0) this.batch.userSeq = 0
    return fresh ? [this.headerBody(log)] : []
  }

  headerBody(log: LogFile): string {
    const foreign = log.foreignPart()
    const header: Header = {
      log: 'transcript',
      version: 1,
      key: this.key,
      sessionId: this.sessionId,
      createdAt: this.#tools.host.clock.wallMs(),
      ...(foreign && { foreign }),
    }
    return systemBody({ header })
  }

  async prepare(need: 'locked' | 'unlocked', held: Held | undefined): Promise<void> {
    if (need === 'locked' && held && this.#log) {
      const log = this.#log
      await this.#tools.rewrite(this, log, held)
      if (this.#log === log) this.forget()
      return
    }
    if (this.#wantNames) await this.#tools.reloadNames()
    this.#wantNames = false
    if (this.#wantTurns && !this.#wantIds && this.#log) this.#wantIds = !this.#readTurns(this.#log)
    this.#wantTurns = false
    if (this.#wantIds && this.#log) await this.#readIds(this.#log)
  }

  #noting(ids: Ids, turns: TurnLog): ChainSink {
    return {
      record(mark, bytes, start) {
        ids.note(mark, bytes, start)
        turns.note(mark, bytes, start)
      },
    }
  }

  /** Goes back from the end to the last start or end of a turn. False when it is further away than may be read at once. */
  #readTurns(log: LogFile): boolean {
    const { disk, tag } = this.place
    for (const records of turnSearchRecords) {
      const turns = new TurnLog(this.sessionId)
      const chain = openTail(disk, log.fd, log.size, tag, { records }, this.#noting(new Ids(this.sessionId), turns))
      if (chain.seq !== log.chain.seq || chain.damage) return false
      if (!turns.known) continue
      this.#turnLog.replaceWith(turns)
      return true
    }
    return false
  }

  async #readIds(log: LogFile): Promise<void> {
    const ids = new Ids(this.sessionId)
    const turns = new TurnLog(this.sessionId)
    const chain = new Chain(this.place.tag)
    await readInPieces(this.place.disk, log.fd, log.size, chain, this.#noting(ids, turns))
    if (this.#log !== log || chain.seq !== log.chain.seq) return
    // From here on the log's own sink goes on with them.
    this.#ids.replaceWith(ids)
    this.#turnLog.replaceWith(turns)
    this.#idsComplete = true
    this.#wantIds = false
  }

  async nameDurable(log: LogFile): Promise<void> {
    await this.#tools.syncDirectory()
    log.named = true
  }

  suspect(error: unknown): void {
    this.#tools.rescue(this, error)
  }

  /** How far it is known to be on the disk, for its mark. */
  get syncedPoint(): HighWaterMark | undefined {
    return this.#verified && !this.closing ? this.#log?.syncedPoint() : undefined
  }

  /** Puts on the disk what is in the log by now. A failure poisons the handle. */
  async settle(): Promise<void> {
    const log = this.#log
    if (!log || !this.#verified || log.chain.seal) return
    try {
      await Promise.all([log.named ? undefined : this.nameDurable(log), log.durable(log.chain.seq)])
    } catch (error) {
      this.suspect(error)
      throw error
    }
  }

  get log(): LogFile | undefined {
    return this.#log
  }

  get busy(): boolean {
    return this.#log?.busy ?? false
  }

  get sealed(): Seal | undefined {
    return this.#log?.chain.seal
  }

  /** Lets go of the descriptor and of all that was known by it. */
  forget(): void {
    this.#log?.retire()
    this.#log = undefined
    this.#verified = false
    this.#mayCreate = false
    this.#ids = new Ids(this.sessionId)
    this.#turnLog = new TurnLog(this.sessionId)
    this.#idsComplete = false
  }
}

/** The session that the caller had in mind is closed: finish what its seal says, ask anew which session the key names, and begin again. */
export function moved(transcript: Transcript, seal: Seal | undefined): StoreError {
  return new StoreError('LOCK_LOST', `${transcript.label} was closed${seal ? ` (${seal.reason})` : ''} meanwhile.`, {
    details: { moved: transcript.sessionId, key: transcript.key, seal },
    hint: 'Try again.',
  })
}

export function isMoved(error: unknown): boolean {
  return isStoreError(error, 'LOCK_LOST') && error.details.moved !== undefined
}

/** O_NOFOLLOW has met a symbolic link; some systems say so in other words. */
export function isSymlinkRefusal(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ELOOP' || errno === 'EMLINK' || errno === 'EFTYPE'
}

export function symlinkRefused(label: string): StoreError {
  return new StoreError('LOG_CORRUPT', `${label} is a symbolic link.`, {
    details: { file: label },
    hint: 'Nothing was written. A transcript is a regular file: put the file itself there, or make the whole store directory the link.',
  })
}

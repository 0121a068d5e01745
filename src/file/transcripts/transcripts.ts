/** All transcripts of a store: who is open, which lock guards which, and how a sealed one is brought to its end.
 *
 *  Rotation and deletion go: seal the old log, make the new one, commit to the metadata, archive the old. Whoever meets the seal does the
 *  rest; every step is idempotent, and the content of the new log is a function of the sealed one. */
import { isStoreError, StoreError } from '../../errors.js'
import type { RotateReceipt, SessionsView, WaitOptions } from '../../types.js'
import { Committer } from '../commit.js'
import type { Host } from '../host.js'
import type { CommitterOptions } from '../job.js'
import type { Held } from '../lock/baton.js'
import type { LogFile } from '../log/log-file.js'
import { type Seal, systemBody } from '../log/record.js'
import { entryOf } from '../metadata/cells.js'
import type { Metadata } from '../metadata/metadata.js'
import { type Change, changed, type ViewTools } from '../metadata/view.js'
import { SharedSync } from '../shared-sync.js'
import type { Vital } from '../vital.js'
import { Ahead, type Mark } from './ahead.js'
import type { CommitOptions, JobFor } from './append.js'
import { Compaction } from './compaction.js'
import { Detours } from './detours.js'
import { MarkCheck } from './mark-check.js'
import { Marks } from './marks.js'
import { deletedSeal, type Open, sealJob, type TranscriptsPlaces } from './open.js'
import { decided } from './receipts.js'
import { type Retired, type Retirement, retireSession } from './retiring.js'
import { archiveLog, nextLog, putLog, rewriteLog } from './rewrite.js'
import { Slots } from './slots.js'
import { isMoved, Transcript, type TranscriptTools } from './transcript.js'

const openMax = 256
const movesMax = 100

export class Transcripts {
  #host: Host
  #places: TranscriptsPlaces
  #options: CommitterOptions
  #metadata: Metadata
  #vital: Vital
  #tag: string
  #tools: TranscriptTools
  #viewTools: ViewTools
  readonly slots: Slots
  #open = new Map<string, Open>()
  #detours: Detours
  #ahead = new Ahead<Open>()
  #directorySync: SharedSync
  readonly marks: Marks
  readonly markCheck: MarkCheck
  readonly compaction: Compaction

  constructor(
    host: Host,
    places: TranscriptsPlaces,
    options: CommitterOptions,
    maxHoldMs: number,
    metadata: Metadata,
    vital: Vital,
    tag: string,
    viewTools: ViewTools,
  ) {
    this.#host = host
    this.#places = places
    this.#options = options
    this.slots = new Slots(host, places.locks, maxHoldMs, options.counters)
    this.#metadata = metadata
    this.#vital = vital
    this.#tag = tag
    this.#viewTools = viewTools
    this.#detours = new Detours(host.clock, options.waitMs)
    this.#directorySync = new SharedSync(() => host.disk.syncDirectory(places.transcripts))
    this.marks = new Marks(host, metadata, vital, options.durability)
    this.markCheck = new MarkCheck(host.disk, tag, metadata)
    this.compaction = new Compaction({
      host,
      tag,
      archive: places.archive,
      prepared: `${places.locks}/prepared`,
      names: this.#directorySync,
    })
    this.#tools = {
      host,
      vital,
      directory: places.transcripts,
      names: (key, sessionId) => metadata.names(key, sessionId),
      reloadNames: () => metadata.reload(),
      mark: (key, sessionId) => metadata.lastKnownMark(key, sessionId),
      marks: this.markCheck,
      rewrite: async (transcript, log, held) => void (await this.#rewrite(transcript, log, held)),
      rescue: (transcript, error) => this.#rescue(transcript, error),
      syncDirectory: () => this.#directorySync.run(),
    }
  }

  pathOf(sessionId: string): string {
    return `${this.#places.transcripts}/${sessionId}.jsonl`
  }

  #of(sessionId: string, key: string): Open {
    const known = this.#open.get(sessionId)
    if (known) {
      if (this.#open.size > openMax / 2) {
        this.#open.delete(sessionId) // Least recently used goes first.
        this.#open.set(sessionId, known)
      }
      return known
    }
    const label = `transcripts/${sessionId}.jsonl`
    const place = { disk: this.#host.disk, path: this.pathOf(sessionId), label, tag: this.#tag, counters: this.#options.counters }
    const transcript = new Transcript(sessionId, key, place, this.#tools)
    const committer = new Committer(this.#host, this.slots.of(sessionId), transcript, this.#options)
    const open: Open = { transcript, committer, nameDurable: () => this.#nameDurable(transcript), pins: 0 }
    this.#open.set(sessionId, open)
    if (this.#open.size > openMax) this.#evict()
    return open
  }

  #evict(): void {
    for (const open of this.#open.values()) {
      if (this.#open.size <= openMax) return
      if (open.pins === 0 && open.committer.idle && !open.transcript.busy) this.#letGo(open)
    }
  }

  /** Commits to the log of the session that the key names, in the order of the calls; see detours.ts.
   *  @param jobFor  is asked again when the key has come to name another session meanwhile. */
  commit<R>(key: string, options: CommitOptions, jobFor: JobFor<R>): Promise<R> {
    // Whether the key still names it, the commit asks under the lock.
    const sessionId = this.#detours.has(key) ? undefined : this.#metadata.lastKnown(key)?.sessionId
    if (sessionId === undefined) return this.#commitInLine(key, options, jobFor)
    const open = this.#ahead.logOf(key) ?? this.#of(sessionId, key)
    const mark = this.#ahead.enter(key, open)
    return open.committer.submit(jobFor(open.transcript, open.nameDurable), options).then(
      (value) => {
        this.#ahead.leave(key, mark)
        this.marks.note(open.transcript, options.endsTurn === true)
        return value
      },
      (error: unknown) => {
        this.#ahead.leave(key, mark)
        if (!isMoved(error)) throw error
        return this.#commitInLine(key, options, jobFor, open)
      },
    )
  }

  /** @param closed  what the key named when last looked at. */
  async #commitInLine<R>(key: string, options: CommitOptions, jobFor: JobFor<R>, closed?: Open): Promise<R> {
    let last = closed
    for (let moves = 0; moves < movesMax; moves++) {
      await this.#detours.enter(key, options)
      let submitted: Promise<R>
      let mark: Mark<Open>
      try {
        if (last && this.#open.get(last.transcript.sessionId) === last) await this.#finish(last, options)
        let sessionId = this.#metadata.lastKnown(key)?.sessionId
        if (sessionId === undefined) {
          if (options.absent) throw options.absent()
          await this.#mint(key, options)
          sessionId = this.#metadata.lastKnown(key)?.sessionId
          if (sessionId === undefined) continue
        }
        last = this.#of(sessionId, key)
        mark = this.#ahead.enter(key, last)
        submitted = last.committer.submit(jobFor(last.transcript, last.nameDurable), options)
      } finally {
        this.#detours.leave(key)
      }
      try {
        const value = await submitted
        this.marks.note(last.transcript, options.endsTurn === true)
        return value
      } catch (error) {
        if (!isMoved(error)) throw error
      } finally {
        this.#ahead.leave(key, mark)
      }
    }
    throw new StoreError('LOCK_LOST', `the session of ${JSON.stringify(key)} is being replaced faster than it can be written to.`, {
      details: { key },
      hint: 'Try again.',
    })
  }

  /** The identity of a session is made inside the lock: two first messages meet in one session (F31). */
  #mint(key: string, { signal, waitMs, requestId, channelId }: CommitOptions): Promise<string> {
    const mint = (sessions: SessionsView<Record<string, unknown>>) => (sessions.get(key) ?? sessions.set(key, {})).sessionId
    return this.#metadata.commit(mint, { signal, waitMs }, undefined, { requestId, channelId })
  }

  /** The metadata record that named this session may itself not be on the disk yet; once seen there, it stays. */
  #nameDurable(transcript: Transcript): Promise<void> | undefined {
    if (transcript.nameIsDurable) return undefined
    const pending = this.#metadata.durable()
    if (!pending) transcript.nameIsDurable = true
    return pending?.then(
      () => {
        transcript.nameIsDurable = true
      },
      (error: unknown) => {
        this.#metadata.suspect(error)
        throw error
      },
    )
  }

  /** Gives the key a new session. */
  async rotate(key: string, why: string, wait: WaitOptions): Promise<RotateReceipt> {
    let next = ''
    const closed = await this.#close(key, wait, () => {
      next = this.#host.mintId()
      return { reason: 'rotated', next, key, why, at: this.#host.clock.wallMs() }
    })
    if (closed) return { sessionId: next, previousSessionId: closed }
    throw new StoreError('NOT_FOUND', `there is no session ${JSON.stringify(key)} to rotate.`, {
      details: { key },
      hint: 'Nothing was written.',
    })
  }

  /** Removes the key; its transcript goes to the archive. */
  async delete(key: string, wait: WaitOptions): Promise<boolean> {
    const closed = await this.#close(key, wait, () => deletedSeal(key, this.#metadata.lastKnown(key), this.#host.clock.wallMs()))
    return closed !== undefined
  }

  /** Archives a session that is still as it was when that was decided; retiring.ts. */
  async retire<W extends string>(retirement: Retirement<W>, wait: WaitOptions): Promise<Retired<W>> {
    const { key, sessionId } = retirement
    const tools = { host: this.#host, metadata: this.#metadata, tag: this.#tag }
    return this.pinned(sessionId, key, async (open) => {
      const outcome = await retireSession(tools, open, retirement, wait)
      if (outcome === 'archived') await this.#finishInLine(open, key, wait, true)
      return outcome
    })
  }

  /** The session that was closed by this very call; undefined when the key names none. */
  async #close(key: string, wait: WaitOptions, seal: () => Seal): Promise<string | undefined> {
    for (let moves = 0; moves < movesMax; moves++) {
      const sessionId = await this.#metadata.sessionIdOf(key)
      if (!sessionId) return undefined
      if (await this.#seal(sessionId, key, seal(), wait)) return sessionId
    }
    throw new StoreError('LOCK_LOST', `the session of ${JSON.stringify(key)} is being replaced by others all the time.`, {
      details: { key },
      hint: 'Try again.',
    })
  }

  /** Runs `work` on a session's log, open or not, and keeps it meanwhile. */
  pinned<R>(sessionId: string, key: string, work: (open: Open) => Promise<R>): Promise<R> {
    return this.#pinned(this.#of(sessionId, key), work)
  }

  async #pinned<R>(open: Open, work: (open: Open) => Promise<R>): Promise<R> {
    open.pins++
    try {
      return await work(open)
    } finally {
      open.pins--
    }
  }

  /** Archives what a mutator has deleted. The entry is gone already; nobody looks for the session any more. */
  async archiveDropped(changes: readonly Pick<Change, 'key' | 'dropped' | 'last'>[], wait: WaitOptions): Promise<void> {
    for (const { key, dropped, last } of changes) {
      // Not at once when it is sealed already for another reason: that is brought to its end first.
      for (let moves = 0; dropped && moves < movesMax && this.#host.disk.stat(this.pathOf(dropped)); moves++) {
        const open = this.#of(dropped, key)
        open.transcript.closing = true
        try {
          await this.#seal(dropped, key, deletedSeal(key, last, this.#host.clock.wallMs()), wait)
        } catch (error) {
          if (!isStoreError(error, 'LOG_CORRUPT')) throw error
          // The key is gone. What is damaged is kept as it is, where deleted transcripts are kept.
          await open.committer.exclusively('archive', wait, () => this.#archive(dropped))
          this.#letGo(open)
        }
      }
    }
  }

  /** True when this call's seal is the one that stands. */
  #seal(sessionId: string, key: string, seal: Seal, wait: WaitOptions): Promise<boolean> {
    return this.pinned(sessionId, key, (open) => this.#sealAndFinish(open, key, seal, wait))
  }

  async #sealAndFinish(open: Open, key: string, seal: Seal, wait: WaitOptions): Promise<boolean> {
    let ours = true
    try {
      await open.committer.submit(sealJob(open, seal), wait)
    } catch (error) {
      if (!isMoved(error)) throw error
      ours = false
    }
    await this.#finishInLine(open, key, wait, ours)
    return ours
  }

  async #finishInLine(open: Open, key: string, wait: WaitOptions, ours: boolean): Promise<void> {
    try {
      await this.#detours.enter(key, wait)
      try {
        if (this.#open.get(open.transcript.sessionId) === open) await this.#finish(open, wait)
      } finally {
        this.#detours.leave(key)
      }
    } catch (error) {
      throw ours ? decided(error) : error
    }
  }

  /** Does what the seal of a log says, from wherever an earlier finisher has left it. */
  #finish(open: Open, wait: WaitOptions): Promise<void> {
    return this.#pinned(open, () => this.#bringToItsEnd(open, wait))
  }

  async #bringToItsEnd(open: Open, wait: WaitOptions): Promise<void> {
    const { transcript } = open
    const { sessionId } = transcript
    const seal = transcript.sealed
    if (seal?.reason === 'compacted') await this.compaction.finish(open, wait)
    if (seal && (seal.reason === 'rotated' || seal.reason === 'deleted')) {
      const key = seal.key ?? transcript.key
      // Whoever wrote the seal may have died before it was on the disk; what follows must not get there first.
      await transcript.log?.durable(transcript.log.chain.seq)
      // Before the metadata names it; as often as the lock is lost over it.
      for (let tries = 0; seal.reason === 'rotated'; tries++) {
        if (await open.committer.exclusively('rotate', wait, (held) => this.#makeNext(transcript, seal, held))) break
        if (tries >= movesMax)
          throw new StoreError('LOCK_LOST', `the lock of ${transcript.label} is lost again and again.`, { hint: 'Try again.' })
      }
      await this.#renameKey(key, sessionId, seal.next, wait)
      // Before the archive has it, and whatever durability we were opened with: a power cut must not leave a key whose session is gone.
      await this.#metadata.durable(true)
      await open.committer.exclusively('archive', wait, () => this.#archive(sessionId))
    }
    this.#letGo(open)
  }

  #letGo({ transcript }: Open): void {
    this.marks.take(transcript)
    transcript.forget()
    this.#open.delete(transcript.sessionId)
  }

  /** The new session's log, with the ids that the old one remembers. Made before the metadata names it. */
  async #makeNext(transcript: Transcript, seal: Seal, held: Held): Promise<boolean> {
    const { disk } = this.#host
    const path = this.pathOf(seal.next!)
    if ((await this.#metadata.sessionIdOf(seal.key!)) !== transcript.sessionId) return true
    if (disk.stat(path)) {
      // Whoever made it may have died before its name was on the disk.
      await this.#directorySync.run()
      return true
    }
    const next = nextLog(transcript, seal, await transcript.allIds(), this.#tag + this.#host.nonce(8))
    return putLog(this.#host, held, path, [next], this.#directorySync)
  }

  #renameKey(key: string, from: string, to: string | undefined, wait: WaitOptions): Promise<void> {
    return this.#metadata.commitOwn((cellOf) => {
      const cell = cellOf(key)
      const entry = cell && entryOf(cell)
      if (entry?.sessionId !== from) return []
      if (to === undefined) return [{ key, cell: undefined, json: '', dropped: from }]
      return [changed(key, entry, entry as unknown as Record<string, unknown>, this.#viewTools, {}, to)]
    }, wait)
  }

  async #archive(sessionId: string): Promise<void> {
    const { archive } = this.#places
    if (await archiveLog(this.#host.disk, this.pathOf(sessionId), archive, `${sessionId}.jsonl`)) await this.#directorySync.run()
  }

  #rewrite(transcript: Transcript, log: LogFile, held: Held): Promise<boolean> {
    return rewriteLog(this.#host, held, this.pathOf(transcript.sessionId), log, this.#tag, this.#directorySync)
  }

  #rescue(transcript: Transcript, error: unknown): void {
    this.#vital.poison(transcript.label, error)
    const open = this.#open.get(transcript.sessionId)
    const log = transcript.log
    if (!open || !log) return
    const body = systemBody({ seal: { reason: 'suspect', at: this.#host.clock.wallMs() } })
    this.#vital.track(
      open.committer.exclusively('rescue', {}, async (held) => {
        log.readOn()
        if (log.chain.seal || !open.committer.appendHeld(log, [body])) return
        await this.#rewrite(transcript, log, held)
      }),
    )
  }

  close(): void {
    for (const { transcript } of this.#open.values()) transcript.forget()
    this.#open.clear()
  }
}

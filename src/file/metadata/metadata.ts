/** The shared metadata: a snapshot, the journal of commits since it, and in memory the two folded together.
 *
 *  Reading never takes a lock: compare the journal's inode, size and change time, read what was added. When the journal has been replaced,
 *  the old inode (still open here) is read to its seal, which names the hash of the snapshot that the new journal builds on: then what is in
 *  memory is that snapshot, and nothing is loaded again. */
import { StoreError } from '../../errors.js'
import type { Entry, SessionsView, WaitOptions } from '../../types.js'
import { Committer } from '../commit.js'
import { type FileStat, isUntouched } from '../durable.js'
import type { Host } from '../host.js'
import { type CommitterOptions, type Job, type LogOwner, Preparation } from '../job.js'
import type { About, Baton, Held } from '../lock/baton.js'
import type { LogFile, LogPlace } from '../log/log-file.js'
import type { Vital } from '../vital.js'
import { type Cell, type Cells, entryOf, markOf } from './cells.js'
import { Checkpoint, type Folding, type MetadataPlaces } from './checkpoint.js'
import { encodeOp, Journal } from './journal.js'
import type { HighWaterMark } from './mark.js'
import { loadPair, noPair } from './pair.js'
import { aboutOf, type Change, MutatorView, Overlay, type ViewTools } from './view.js'

export interface MetadataOptions extends CommitterOptions {
  readonly checkpoint: 'auto' | 'always'
  readonly readOnly: boolean
}

type View = SessionsView<Record<string, unknown>>

/** A journal smaller than this is not worth folding. */
const journalBytesMin = 256 << 10
const loadTriesMax = 60
const idleMs = 1_000
const idleBytesMin = 32 << 10
const idleBytesMax = 4 << 20

export class Metadata implements LogOwner {
  readonly label = 'metadata'
  readonly directory: string
  #host: Host
  #places: MetadataPlaces
  #options: MetadataOptions
  #vital: Vital
  #tools: ViewTools
  /** For whoever commits more than changes. */
  readonly committer: Committer
  #checkpoint: Checkpoint
  #place: LogPlace
  #cells: Cells = new Map()
  #journal: LogFile | undefined
  /** The snapshot that `cells` builds on, as it was when last looked at, and how large it is. */
  #snapshot: FileStat | undefined
  /** After a fold that failed: how large the journal has to be for the next try. */
  #foldFromBytes = 0
  #batch: Overlay = new Overlay(this.#cells)
  #loading: Promise<void> | undefined
  #stopIdle: (() => void) | undefined
  /** The journal that is being rescued. */
  #suspected: LogFile | undefined

  constructor(host: Host, baton: Baton, places: MetadataPlaces, options: MetadataOptions, vital: Vital, tools: ViewTools, tag: string) {
    this.#host = host
    this.#places = places
    this.directory = places.store
    this.#options = options
    this.#vital = vital
    this.#tools = tools
    this.#place = { disk: host.disk, path: places.journal, label: 'sessions.journal.jsonl', tag, counters: options.counters }
    this.committer = new Committer(host, baton, this, options)
    this.#checkpoint = new Checkpoint(host, places, options.counters)
  }

  // — reading —

  /** What the key stands for, with everything acknowledged before the call. Synchronous unless a snapshot has to be loaded. */
  get(key: string): Entry | undefined | Promise<Entry | undefined> {
    const lookUp = () => {
      const cell = this.#cells.get(key)
      return cell && entryOf(cell)
    }
    return this.#isFresh() ? lookUp() : this.#fresh().then(lookUp)
  }

  /** What the key stood for when last looked at; asks nobody. */
  lastKnown(key: string): Entry | undefined {
    const cell = this.#cells.get(key)
    return cell && entryOf(cell)
  }

  /** How far the transcript of that session is known to be on the disk, as last looked at. */
  lastKnownMark(key: string, sessionId: string): HighWaterMark | undefined {
    const cell = this.#cells.get(key)
    return cell && entryOf(cell).sessionId === sessionId ? markOf(cell) : undefined
  }

  /** Whether the key names this session still; undefined when that takes loading. Asks the journal alone: it is what names sessions. */
  names(key: string, sessionId: string): boolean | undefined {
    try {
      if (!this.#journal) return undefined
      const freshness = this.#journal.refresh()
      if (freshness !== 'current' && freshness !== 'grown') this.#follow()
      this.#journal.assertSound()
    } catch (error) {
      if (error instanceof Preparation) return undefined
      throw error
    }
    return this.lastKnown(key)?.sessionId === sessionId
  }

  async sessionIdOf(key: string): Promise<string | undefined> {
    return (await this.get(key))?.sessionId
  }
  /** @param live  not a copy, which takes its time with many: what changes meanwhile is in it, or not */
  async cells(live = false): Promise<Cells> {
    await this.#fresh()
    return live ? this.#cells : new Map(this.#cells)
  }

  async #fresh(): Promise<void> {
    for (let tries = 0; tries < loadTriesMax; tries++) {
      if (this.#isFresh()) return
      await this.reload()
    }
    throw new StoreError('LOCK_LOST', 'the metadata changes faster than it can be read.', { hint: 'Try again.' })
  }

  /** Brings memory up to date if that takes no loading. */
  #isFresh(): boolean {
    try {
      this.#follow()
      return true
    } catch (error) {
      if (error instanceof Preparation) return false
      throw error
    }
  }

  /** Reads on in the journal, over a checkpoint if need be.
   *  @throws Preparation  the snapshot has to be loaded. */
  #follow(): LogFile {
    const journal = this.#journal
    if (!journal) throw new Preparation('unlocked')
    const freshness = journal.refresh()
    if (freshness === 'touched') throw new Preparation('unlocked')
    if (freshness === 'replaced' || freshness === 'absent') return this.#followReplaced(journal)
    journal.assertSound()
    if (!journal.chain.seal && !this.#snapshotUntouched()) throw new Preparation('unlocked')
    return journal
  }

  #snapshotUntouched(): boolean {
    return isUntouched(this.#host.disk.stat(this.#places.snapshot), this.#snapshot)
  }

  #followReplaced(old: LogFile): LogFile {
    old.readOn()
    const next = old.chain.seal?.reason === 'checkpoint' ? old.chain.seal.next : undefined
    if (!next) throw new Preparation('unlocked')
    const journal = this.#openJournal()
    if (journal.base !== next) {
      journal.log.retire()
      throw new Preparation('unlocked')
    }
    this.#adopt(journal, this.#host.disk.stat(this.#places.snapshot))
    return journal.log.chain.seal ? journal.log : this.#follow()
  }

  #openJournal(): Journal {
    return Journal.open(this.#place, this.#options.readOnly ? 'read' : 'appendExisting')
  }

  /** From now on this is the journal; what is in memory is what it builds on. */
  #adopt(journal: Journal, snapshot: FileStat | undefined): void {
    this.#journal?.retire()
    this.#journal = journal.log
    this.#foldFromBytes = 0
    this.#snapshot = snapshot
    journal.follow(({ key, cell }) => {
      if (cell) this.#cells.set(key, cell)
      else this.#cells.delete(key)
    })
    journal.log.assertSound()
  }

  /** Loads snapshot and journal, as a pair that belongs together. */
  reload(): Promise<void> {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined
    })
    return this.#loading
  }

  async #load(): Promise<void> {
    let why = ''
    for (let tries = 0; tries < loadTriesMax; tries++) {
      const loaded = await loadPair(this.#host.disk, this.#places, () => this.#openJournal())
      if (typeof loaded !== 'string') {
        this.#cells = loaded.cells
        this.#adopt(loaded.journal, loaded.snapshot)
        return
      }
      why = loaded
      // Somebody is between the two renames of a checkpoint, or has died there; the latter does not go away by waiting.
      if (tries > 10) await this.#host.clock.sleep(Math.min(10, tries / 10))
    }
    throw noPair(why)
  }

  // — committing —

  /** Runs the mutator on state that nobody changes meanwhile, and commits what it changed. */
  commit<R>(mutate: (sessions: View) => R, wait: WaitOptions, dropped?: (changes: readonly Change[]) => void, about?: About): Promise<R> {
    let value: R
    let changes: Change[] = []
    const job: Job<R> = {
      get about() {
        const [only] = changes
        if (!only || changes.length > 1) return { ...about, keys: changes.map(({ key }) => key) }
        return { ...about, ...aboutOf(only) }
      },
      run: () => {
        const overlay = new Overlay(this.#cells, this.#batch)
        value = this.#runMutator(mutate, overlay)
        changes = [...overlay.changes.values()].filter(({ key, cell }) => cell || this.#batch.get(key))
        this.#batch.merge(overlay)
        return changes.map(encodeOp)
      },
      applied: () => this.#take(changes),
      result: () => {
        if (dropped && changes.some((change) => change.dropped)) dropped(changes)
        return value
      },
    }
    return this.committer.submit(job, wait)
  }

  /** Commits changes of the store's own making; `decide` may find that there are none to make.
   *  @param background  nobody has asked for it: it is not told as a commit, and not waited for until it is on the disk */
  commitOwn(
    decide: (cellOf: (key: string) => Cell | undefined) => readonly Change[],
    wait: WaitOptions,
    background = false,
  ): Promise<void> {
    let changes: readonly Change[] = []
    const job: Job<void> = {
      background,
      relaxed: () => background,
      get about() {
        return changes[0] && !background ? aboutOf(changes[0]) : {}
      },
      run: () => {
        changes = decide((key) => this.#batch.get(key))
        for (const change of changes) this.#batch.changes.set(change.key, change)
        return changes.map(encodeOp)
      },
      applied: () => this.#take(changes),
      result: () => undefined,
    }
    return this.committer.submit(job, wait)
  }

  #take(changes: readonly Change[]): void {
    for (const { key, cell } of changes) {
      if (cell) this.#cells.set(key, cell)
      else this.#cells.delete(key)
    }
  }

  /** True while a mutator runs: whoever then calls the store would wait for itself. */
  mutating = false

  #runMutator<R>(mutate: (sessions: View) => R, overlay: Overlay): R {
    const view = new MutatorView(overlay, this.#tools)
    this.mutating = true
    try {
      const value = mutate(view)
      if (typeof (value as { then?: unknown } | undefined)?.then === 'function') {
        // A promise's own failure is not our news. Another thenable is left alone: asking it would set it going under the lock.
        if (value instanceof Promise) value.catch(() => {})
        throw new StoreError('ASYNC_MUTATOR', 'the mutator returned a promise.', {
          hint: 'Nothing was written. Mutators run under the lock and are synchronous: compute first, then change.',
        })
      }
      return value
    } finally {
      this.mutating = false
      view.close()
    }
  }

  refresh(): LogFile {
    this.#vital.assertWritable()
    const journal = this.#follow()
    if (journal.chain.seal) throw new Preparation('locked')
    return journal
  }

  beginBatch(): readonly string[] {
    this.#batch = new Overlay(this.#cells)
    return []
  }

  async prepare(need: 'locked' | 'unlocked', held: Held | undefined): Promise<void> {
    if (need === 'unlocked' || !held) await this.reload()
    else await this.#fold(held)
  }

  afterLanding(held: Held): { work: Promise<void>; first: boolean } | undefined {
    const journalBytes = this.#journal?.size ?? 0
    const always = this.#options.checkpoint === 'always'
    this.#foldWhenIdle()
    if (journalBytes < this.#foldFromBytes) return undefined
    if (!always && (journalBytes < journalBytesMin || journalBytes < (this.#snapshot?.size ?? 0))) return undefined
    // The commit stands whatever becomes of the checkpoint; the next commit tries again.
    const work = this.#fold(held).catch((error: unknown) => {
      // On a full disk, say: not at every commit anew.
      this.#foldFromBytes = journalBytes + (journalBytes >> 2)
      this.#vital.report('checkpoint-failed', error)
    })
    return { work, first: always }
  }

  /** A store that has fallen idle is folded, where that is cheap: the next open reads one file. */
  #foldWhenIdle(): void {
    this.#stopIdle?.()
    this.#stopIdle = this.#host.later?.(idleMs, () => {
      if (!this.committer.idle || this.#vital.poisoned || this.journalBytes < idleBytesMin || this.snapshotBytes > idleBytesMax) return
      this.#vital.track(this.checkpoint({ waitMs: 100 }))
    })
  }

  async nameDurable(log: LogFile): Promise<void> {
    await this.#host.disk.syncDirectory(this.#places.store)
    log.named = true
  }

  suspect(error: unknown): void {
    this.#vital.poison(this.label, error)
    if (this.#suspected === this.#journal) return
    this.#suspected = this.#journal
    // Everything goes into fresh files before anyone chains on pages that may be gone. Best effort: the disk is already failing.
    this.#vital.track(
      this.committer.exclusively('rescue', {}, async (held) => {
        await this.#fresh()
        await this.#fold(held)
      }),
    )
  }

  /** Resolves when all that has been read of the journal so far is on the disk: a record that relies on it may then be acknowledged.
   *  undefined when it already is. `always`: whatever durability the handle was opened with. */
  durable(always = false): Promise<void> | undefined {
    const journal = this.#journal
    if (!journal || (this.#options.durability === 'process' && !always)) return undefined
    const { seq } = journal.chain
    if (journal.named && journal.synced >= seq) return undefined
    return Promise.all([journal.named ? undefined : this.nameDurable(journal), journal.durable(seq)]).then(() => {})
  }

  // — checkpoints —

  /** Folds the journal into the snapshot, if it holds anything. */
  async checkpoint(wait: WaitOptions): Promise<void> {
    await this.committer.exclusively('checkpoint', wait, async (held) => {
      await this.#fresh()
      if (this.#journal && (this.#journal.chain.records > 1 || this.#journal.chain.seal)) await this.#fold(held)
    })
  }

  get journalBytes(): number {
    return this.#journal?.size ?? 0
  }

  get journalRecords(): number {
    return Math.max(0, (this.#journal?.chain.records ?? 0) - 1)
  }

  get snapshotBytes(): number {
    return this.#snapshot?.size ?? 0
  }

  async #fold(held: Held): Promise<void> {
    const journal = this.#journal
    if (!journal) return
    const folding: Folding = {
      cells: this.#cells,
      journal,
      current: () => this.#isFresh() && this.#journal === journal,
      seal: (body) => this.committer.appendHeld(journal, [body]),
    }
    if (!(await this.#checkpoint.run(held, folding))) return
    if (this.#journal === journal) this.#follow()
  }

  close(): void {
    this.#stopIdle?.()
    this.#journal?.retire()
    this.#journal = undefined
  }
}

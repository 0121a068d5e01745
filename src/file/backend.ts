/** The embedded backend: one directory, any number of processes on one machine. */
import { realpathSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Backend, EncodedRecord, NewSummary, Summarizable, SummaryReceipt } from '../backend.js'
import { type Effect, errnoOf, ioError, isStoreError, StoreError } from '../errors.js'
import type {
  AppendOptions,
  AppendReceipt,
  Durability,
  Entry,
  LockStatus,
  ReadOptions,
  RotateReceipt,
  SessionsView,
  StoredRecord,
  StoreStats,
  TailOptions,
  WaitOptions,
} from '../types.js'
import { archivedEnd } from './archives/turn-ends.js'
import { checkFormat, giveBirth, isComplete, makeStoreDirectories, placesIn, type StorePlaces } from './format.js'
import { type Host, systemHost } from './host.js'
import { Baton } from './lock/baton.js'
import { Leases } from './lock/lease.js'
import { bootTag } from './log/chain.js'
import { entryOf } from './metadata/cells.js'
import { Metadata } from './metadata/metadata.js'
import type { Change, ViewTools } from './metadata/view.js'
import { type Counters, newCounters } from './stats.js'
import { AppendJob, type JobFor } from './transcripts/append.js'
import { compactedStart, readCompactedTail } from './transcripts/compacted-reading.js'
import { type Range, readRange, readTail, type Source } from './transcripts/reading.js'
import { decided } from './transcripts/receipts.js'
import { type SummaryAbout, sessionGone, summaryJob } from './transcripts/summary-job.js'
import { Transcripts } from './transcripts/transcripts.js'
import { readForSummary } from './transcripts/turn-reading.js'
import { FileTurns } from './turns/file-turns.js'
import { Vital } from './vital.js'

export interface FileBackendOptions {
  readonly durability: Durability
  readonly checkpoint: 'auto' | 'always'
  readonly waitMs: number
  readonly maxHoldMs: number
  readonly readOnly: boolean
  /** Opened all the same when its metadata is damaged. */
  readonly repair?: boolean
  readonly checkKey: (key: unknown) => asserts key is string
}

/** What the backend is made of. */
export interface Inside {
  readonly host: Host
  readonly places: StorePlaces
  readonly options: FileBackendOptions
  readonly counters: Counters
  readonly tag: string
  readonly metadata: Metadata
  readonly transcripts: Transcripts
  readonly vital: Vital
  readonly turns: FileTurns
  readonly metadataBaton: Baton
  /** Of the lead in maintenance; locks/maintenance. */
  readonly leads: Leases
}

/** A store that small is folded on closing: the next open reads one file. */
const foldOnCloseBytesMax = 4 << 20
const tidyMs = 500
const readTriesMax = 20

/** Opens the store in `dir`, and makes it where there is none. */
export async function openFileBackend(dir: string, options: FileBackendOptions, host: Host = systemHost()): Promise<FileBackend> {
  const places = placesIn(resolvedStore(host, dir))
  const counters = newCounters()
  const tag = bootTag(host.identity.boot)
  const metadataBaton = new Baton(host, `${places.locks}/metadata`, { maxHoldMs: options.maxHoldMs, counters, label: 'metadata' })
  try {
    const traces = [places.format, places.snapshot, places.journal, places.transcripts]
    const prepare = async (): Promise<undefined> => {
      if (options.readOnly) assertThere(host, traces, places.store)
      else {
        checkFormat(host, places)
        makeStoreDirectories(host, places)
        if (!isComplete(host, places)) await giveBirth(host, places, metadataBaton, options.waitMs, tag)
      }
      checkFormat(host, places)
    }
    if (options.repair) assertThere(host, traces, places.store)
    const damage = await prepare().catch((error: unknown) => toleratedIn(error, options))
    if (!options.readOnly && options.durability === 'power') await syncNames(host, places)
    const backend = new FileBackend(host, places, options, counters, metadataBaton, tag)
    const { vital } = backend.inside
    vital.damage = damage
    if (damage && !options.readOnly) makeStoreDirectories(host, places)
    await backend.load().catch((error: unknown) => {
      vital.damage ??= toleratedIn(error, options)
    })
    return backend
  } catch (error) {
    throw ioError(error, `opening the store ${dir}`, 'none')
  }
}

/** What keeps others from opening the store, and neither whoever has come to mend it, nor whoever only looks: what is sound can be read. */
function toleratedIn(error: unknown, { repair, readOnly }: FileBackendOptions): StoreError {
  if ((repair || readOnly) && isStoreError(error) && error.kind === 'damaged' && error.code !== 'STORE_FORMAT_UNSUPPORTED') return error
  throw error
}

/** A store may itself be a symbolic link. */
function resolvedStore(host: Host, dir: string): string {
  try {
    return host.disk.stat(dir)?.kind === 'symlink' ? realpathSync(dir) : resolve(dir)
  } catch (error) {
    throw ioError(error, `opening the store ${dir}`, 'none')
  }
}

/** What the system says becomes a StoreError; an abort's reason and what a mutator throws stay what they are. */
function typed<R>(work: Promise<R>, doing: string, effect: Effect): Promise<R> {
  return work.then(undefined, (error: unknown) => {
    throw errnoOf(error) === undefined ? error : ioError(error, doing, effect)
  })
}

function assertThere(host: Host, marks: readonly string[], store: string): void {
  if (marks.some((path) => host.disk.stat(path))) return
  throw new StoreError('NOT_FOUND', `there is no store in ${store}.`, {
    details: { store },
    hint: 'Check the path; opening without readOnly: true creates one.',
  })
}

/** Whoever made these directories may have died before they were on the disk. */
async function syncNames(host: Host, places: StorePlaces): Promise<void> {
  await host.disk.syncDirectory(places.store)
  try {
    await host.disk.syncDirectory(dirname(places.store))
  } catch {
    // Not ours to read; then it was there before us.
  }
}

export class FileBackend implements Backend {
  #host: Host
  #places: StorePlaces
  #options: FileBackendOptions
  #counters: Counters
  #metadata: Metadata
  #transcripts: Transcripts
  #vital: Vital
  #tag: string
  #metadataBaton: Baton
  #readers = new Set<() => void>()
  readonly turns: FileTurns
  /** For maintenance, which knows the files. */
  readonly inside: Inside

  constructor(host: Host, places: StorePlaces, options: FileBackendOptions, counters: Counters, metadataBaton: Baton, tag: string) {
    this.#host = host
    this.#places = places
    this.#options = options
    this.#counters = counters
    this.#tag = tag
    this.#metadataBaton = metadataBaton
    this.#vital = new Vital(options.readOnly)
    const viewTools: ViewTools = { mintId: () => host.mintId(), nowMs: () => host.clock.wallMs(), checkKey: options.checkKey }
    const { durability, waitMs, checkpoint, readOnly } = options
    const committing = { durability, waitMs, counters, does: 'commit' }
    this.#metadata = new Metadata(host, metadataBaton, places, { ...committing, checkpoint, readOnly }, this.#vital, viewTools, tag)
    this.#transcripts = new Transcripts(host, places, committing, options.maxHoldMs, this.#metadata, this.#vital, tag, viewTools)
    const leases = new Leases(host, `${places.locks}/turns`, { counters, label: 'turns' })
    this.turns = new FileTurns(host, leases, `${places.locks}/turns`, {
      assertWritable: () => {
        this.#assertNotMutating()
        this.#vital.assertWritable()
      },
      commit: async (key, wait, jobFor) => typed(this.#transcripts.commit(key, wait, jobFor), 'writing for a turn', 'none'),
      sessionIdOf: (key) => this.#metadata.sessionIdOf(key),
      source: (sessionId, key) => this.#source(sessionId, key),
      live: (sessionId) => this.#file(sessionId),
      archivedEnd: (sessionId, seq) => archivedEnd(host.disk, places.archive, tag, sessionId, seq),
    })
    const [metadata, transcripts, vital, turns] = [this.#metadata, this.#transcripts, this.#vital, this.turns]
    const leads = new Leases(host, places.locks, { counters, label: '' })
    this.inside = { host, places, options, counters, tag, metadata, transcripts, vital, turns, metadataBaton, leads }
  }

  async load(): Promise<void> {
    await this.#metadata.reload()
    if (this.#options.readOnly) return
    try {
      this.turns.sweep()
    } catch (error) {
      this.#vital.report('sweep-failed', error)
    }
  }

  async commitMetadata<R>(mutate: (sessions: SessionsView<Record<string, unknown>>) => R, wait: WaitOptions): Promise<R> {
    this.#assertNotMutating()
    this.#vital.assertWritable()
    let dropped: readonly Change[] | undefined
    const result = await this.#metadata.commit(mutate, wait, (changes) => {
      dropped = changes
    })
    if (dropped)
      await typed(this.#transcripts.archiveDropped(dropped, wait), 'archiving what was deleted', 'unknown').catch((error: unknown) => {
        throw decided(error)
      })
    return result
  }

  async get(key: string): Promise<Entry | undefined> {
    return this.#metadata.get(key)
  }

  async *entries(prefix: string): AsyncGenerator<[string, Entry]> {
    let sinceMs = performance.now()
    for (const [key, cell] of await this.#metadata.cells()) {
      if (!key.startsWith(prefix)) continue
      if (performance.now() - sinceMs > 8) {
        await new Promise((resume) => setImmediate(resume))
        sinceMs = performance.now()
      }
      yield [key, entryOf(cell)]
    }
  }

  async delete(key: string, wait: WaitOptions): Promise<boolean> {
    this.#assertNotMutating()
    this.#vital.assertWritable()
    return typed(this.#transcripts.delete(key, wait), 'deleting a session', 'unknown')
  }

  /** Not an async function, and no more promises than needed: a thousand calls at once are a use of their own. */
  append(key: string, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt> {
    try {
      this.#assertNotMutating()
      this.#vital.assertWritable()
      const jobFor: JobFor<AppendReceipt> = (transcript, nameDurable) => new AppendJob(transcript, records, options, nameDurable)
      return typed(this.#transcripts.commit(key, options, jobFor), 'appending', 'none')
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async *read(key: string, options: ReadOptions): AsyncGenerator<StoredRecord> {
    const { after = 0, limit = Number.POSITIVE_INFINITY, signal, compacted } = options
    const range: Range = { after, limit, signal, begin: compacted ? (...of) => compactedStart(...of, range) : undefined }
    for (let tries = 0; tries < readTriesMax; tries++) {
      const sessionId = await this.#metadata.sessionIdOf(key)
      if (!sessionId) return
      if (yield* readRange(this.#source(sessionId, key), range)) return
      // No such file: archived since we asked, or nothing written yet.
      if (await this.#isUnwritten(key, sessionId)) return
    }
  }

  async tail(key: string, count: number, { compacted }: TailOptions = {}): Promise<StoredRecord[]> {
    if (count === 0) return []
    const readOf = compacted ? readCompactedTail : readTail
    for (let tries = 0; tries < readTriesMax; tries++) {
      const sessionId = await this.#metadata.sessionIdOf(key)
      if (!sessionId) return []
      const records = readOf(this.#source(sessionId, key), count)
      if (records) return records
      if (await this.#isUnwritten(key, sessionId)) return []
    }
    return []
  }

  async summarizable(key: string, signal?: AbortSignal): Promise<Summarizable | undefined> {
    for (let tries = 0; tries < readTriesMax; tries++) {
      const sessionId = await this.#metadata.sessionIdOf(key)
      if (!sessionId) return undefined
      const found = await readForSummary(this.#source(sessionId, key), signal)
      if (found) return { sessionId, base: found.lastSeq, ...found }
      if (await this.#isUnwritten(key, sessionId)) return undefined
    }
    return undefined
  }

  async summarize(key: string, summary: NewSummary, options: SummaryAbout & WaitOptions): Promise<SummaryReceipt> {
    this.#assertNotMutating()
    this.#vital.assertWritable()
    const absent = () => sessionGone(key, summary.sessionId)
    return typed(
      this.#transcripts.commit(key, { ...options, absent }, (transcript, named) =>
        summaryJob(transcript, summary, options, () => this.#host.clock.wallMs(), named),
      ),
      'adding a summary',
      'none',
    )
  }

  async #isUnwritten(key: string, sessionId: string): Promise<boolean> {
    return (await this.#metadata.sessionIdOf(key)) === sessionId && !this.#metadata.lastKnownMark(key, sessionId)
  }

  /** The mark is that of before the file is opened. */
  #source(sessionId: string, key: string): Source {
    const file = this.#file(sessionId)
    return { ...file, lacks: this.#transcripts.markCheck.lacking(file.label, key, sessionId) }
  }

  #file(sessionId: string): Source {
    const label = `transcripts/${sessionId}.jsonl`
    return { disk: this.#host.disk, path: this.#transcripts.pathOf(sessionId), label, tag: this.#tag, readers: this.#readers }
  }

  async rotate(key: string, reason: string, wait: WaitOptions): Promise<RotateReceipt> {
    this.#assertNotMutating()
    this.#vital.assertWritable()
    return typed(this.#transcripts.rotate(key, reason, wait), 'rotating a session', 'unknown')
  }

  async checkpoint(): Promise<void> {
    this.#assertNotMutating()
    this.#vital.assertWritable()
    await typed(this.#checkpoint(), 'checkpointing', 'none')
  }

  async #checkpoint(): Promise<void> {
    await this.#transcripts.marks.flush({})
    await this.#metadata.checkpoint({})
  }

  async locks(): Promise<LockStatus[]> {
    const { disk } = this.#host
    const slots = disk.stat(`${this.#places.locks}/transcripts`) ? disk.readdir(`${this.#places.locks}/transcripts`) : []
    const numbers = slots.filter((name) => /^\d\d$/.test(name)).map(Number)
    const transcripts = numbers.sort((a, b) => a - b).map((slot) => this.#transcripts.slots.baton(slot).status())
    const lead = this.inside.leads.status('maintenance')
    return [this.#metadataBaton.status(), ...transcripts, ...(lead.state === 'absent' ? [] : [lead]), ...this.turns.leases()]
  }

  get damage(): StoreError | undefined {
    return this.#vital.damage
  }

  stats(): StoreStats {
    return { ...this.#counters, takeovers: { ...this.#counters.takeovers } }
  }

  async close(): Promise<void> {
    this.#transcripts.marks.close()
    await this.#vital.settled()
    if (!this.#options.readOnly && !this.#vital.poisoned) await this.#leaveTidy()
    for (const letGo of this.#readers) letGo()
    this.turns.close()
    this.inside.leads.close()
    this.#transcripts.close()
    this.#metadata.close()
  }

  /** Only a convenience for those who open it next: whatever is in the way, transcripts and journal have everything. */
  async #leaveTidy(): Promise<void> {
    await this.#transcripts.marks.flush({ waitMs: tidyMs }).catch((error: unknown) => this.#vital.report('marks-failed', error))
    if (this.#vital.poisoned || this.#metadata.journalRecords === 0 || this.#metadata.snapshotBytes >= foldOnCloseBytesMax) return
    await this.#metadata.checkpoint({ waitMs: tidyMs }).catch((error: unknown) => this.#vital.report('checkpoint-failed', error))
  }

  /** A call from inside a mutator would wait for the lock that its own caller holds. */
  #assertNotMutating(): void {
    if (!this.#metadata.mutating) return
    throw new StoreError('ASYNC_MUTATOR', 'the store was called from inside a mutator, which would wait for itself.', {
      hint: 'Nothing was written by this call. Use the view that the mutator is given; call the store before or after.',
    })
  }
}

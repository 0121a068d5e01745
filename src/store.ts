/** The store as its users see it: checks what comes in and hands it to the backend. No I/O and no format here. */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { uuidv7 } from 'uuidv7'
import type { ArchiveInfo, RestoreOptions, RestoreReceipt } from './archives.js'
import type { Backend, MaintenancePort, Running } from './backend.js'
import { StoreError } from './errors.js'
import { openFileBackend } from './file/backend.js'
import {
  type CheckedOptions,
  checkAppend,
  checkKey,
  checkMaintenance,
  checkOptions,
  checkRead,
  checkRestore,
  checkRetain,
  checkTail,
  checkTurn,
  checkTurns,
  checkWait,
  encodeRecords,
} from './input.js'
import { FileMaintenance } from './maintenance/file-maintenance.js'
import type { RepairPlan, RepairReport } from './repair-plan.js'
import { Session } from './session.js'
import { assertLanes } from './turns/lanes.js'
import { Turns } from './turns/turns.js'
import type {
  Entry,
  LockStatus,
  ReadOptions,
  SessionsView,
  StoredRecord,
  StoreOptions,
  StoreStats,
  Turn,
  TurnOptions,
  TurnResult,
  TurnStatus,
  TurnsOptions,
  VerifyOptions,
  VerifyReport,
  WaitOptions,
} from './types.js'
import type { MaintenanceOptions, MaintenanceReport, RetainOptions, RetentionReport } from './upkeep.js'

type Fields = Record<string, unknown>
export type FieldsOf<S> = S extends StandardSchemaV1
  ? StandardSchemaV1.InferOutput<S> extends object
    ? StandardSchemaV1.InferOutput<S>
    : Fields
  : Fields

const own = ['sessionId', 'createdAt', 'updatedAt', 'revision']

export class SessionStore<T extends object = Fields> {
  #backend: Backend
  #maintenance: MaintenancePort
  #schema: StandardSchemaV1 | undefined
  #recordBytesMax: number
  #closing: Promise<void> | undefined
  /** A close has failed since. */
  #closed = false
  #active = 0
  #drained = () => {}
  #turns: Turns
  #closeMs: number
  #background: Running | undefined

  private constructor(
    backend: Backend,
    maintenance: MaintenancePort,
    schema: StandardSchemaV1 | undefined,
    { recordBytesMax, lanes, closeMs, maintenance: background }: CheckedOptions,
  ) {
    this.#backend = backend
    this.#maintenance = maintenance
    this.#schema = schema
    this.#recordBytesMax = recordBytesMax
    this.#closeMs = closeMs
    this.#turns = new Turns(backend.turns, lanes, {
      freshId: uuidv7,
      encode: (records) => encodeRecords(records, recordBytesMax),
      checkAppend,
      checkTail,
    })
    this.#background = background && maintenance.background(background)
  }

  /** Opens the store in a directory, and makes it where there is none (unless `readOnly`).
   *  @throws STORE_CORRUPT, LOG_CORRUPT  its metadata is damaged, and it is opened neither `readOnly` nor to `repair` · STORE_FORMAT_UNSUPPORTED  a newer version wrote it ·
   *          NOT_FOUND  readOnly and nothing there · IO_FAILED, DISK_FULL. Effect none in every case. */
  static async open<S extends StandardSchemaV1 | undefined = undefined>(
    directory: string,
    options: StoreOptions<S> = {},
  ): Promise<SessionStore<FieldsOf<S>>> {
    if (typeof directory !== 'string' || directory === '')
      throw new StoreError('INVALID_OPTION', 'open takes the path of a directory.', { hint: 'Nothing was done.' })
    if (/^postgres(ql)?:\/\//.test(directory))
      throw new StoreError('INVALID_OPTION', 'a store in PostgreSQL is opened with openPostgres, from holdfast/postgres.', {
        hint: 'Nothing was done.',
      })
    const checked = checkOptions(options)
    const { entry, durability, checkpoint, lock, readOnly, repair, maintenance } = checked
    if (readOnly && maintenance)
      throw new StoreError('INVALID_OPTION', 'a handle that is opened with readOnly: true does no maintenance.', {
        hint: 'Nothing was done. Leave one of the two out.',
      })
    assertLanes(checked.lanes)
    const backend = await openFileBackend(directory, { durability, checkpoint, readOnly, repair, ...lock, checkKey })
    return new SessionStore<FieldsOf<S>>(backend, new FileMaintenance(backend.inside), entry, checked)
  }

  /** Over a backend that is open: for the other doors. @internal */
  static over<S extends StandardSchemaV1 | undefined>(backend: Backend, maintenance: MaintenancePort, checked: CheckedOptions) {
    assertLanes(checked.lanes)
    return new SessionStore<FieldsOf<S>>(backend, maintenance, checked.entry, checked)
  }

  /** Runs the mutator on the metadata as it is inside the lock, and commits what it changed, all or nothing.
   *
   *  The mutator is synchronous and may run more than once (when another writer got in first): only its last run counts, so let it touch
   *  nothing but its view. What it returns is what the call resolves with, once the change is on the disk (durability `power`).
   *
   *  @throws ASYNC_MUTATOR  it returned a promise, or called the store · INVALID_ENTRY, INVALID_KEY · LOCK_TIMEOUT  details name the holder ·
   *          LOCK_LOST  overtaken again and again. Effect none. Whatever the mutator throws comes through as it is; nothing is written. */
  async withStoreLock<R>(mutator: (sessions: SessionsView<T>) => R, wait?: WaitOptions): Promise<R> {
    if (typeof mutator !== 'function')
      throw new StoreError('INVALID_OPTION', 'withStoreLock takes a function.', { hint: 'Nothing was done.' })
    return this.#commit(mutator, checkWait(wait))
  }

  /** Changes one entry. The mutator gets the entry, or undefined when there is none, and returns the whole new one.
   *  @returns the entry as stored. Throws as `withStoreLock` does. */
  async update(key: string, mutator: (entry: Entry<T> | undefined) => T | Entry<T>, wait?: WaitOptions): Promise<Entry<T>> {
    checkKey(key)
    if (typeof mutator !== 'function') throw new StoreError('INVALID_OPTION', 'update takes a function.', { hint: 'Nothing was done.' })
    return this.#commit((sessions) => {
      const next = mutator(sessions.get(key)) as T
      if (typeof (next as { then?: unknown } | undefined)?.then === 'function') return next as unknown as Entry<T>
      return sessions.set(key, next)
    }, checkWait(wait))
  }

  #commit<R>(mutator: (sessions: SessionsView<T>) => R, wait: WaitOptions): Promise<R> {
    return this.#run(() => this.#backend.commitMetadata((sessions) => mutator(this.#checkedView(sessions)), wait))
  }

  /** The entry, with everything acknowledged before the call; undefined when there is none. Takes no lock. */
  async get(key: string): Promise<Entry<T> | undefined> {
    checkKey(key)
    this.#assertOpen()
    return this.#backend.get(key) as Promise<Entry<T> | undefined>
  }

  /** All entries of one moment, those whose key begins with `prefix`. */
  entries(options: { prefix?: string } = {}): AsyncIterable<[string, Entry<T>]> {
    this.#assertOpen()
    return this.#entries(options.prefix ?? '')
  }

  async *#entries(prefix: string): AsyncGenerator<[string, Entry<T>]> {
    this.#assertOpen()
    for await (const entry of this.#backend.entries(prefix)) {
      this.#assertOpen()
      yield entry as [string, Entry<T>]
    }
  }

  /** Removes the key. Its transcript goes to `archive/`, it is not unlinked. False when there was no such key. */
  async delete(key: string, wait?: WaitOptions): Promise<boolean> {
    checkKey(key)
    const options = checkWait(wait)
    return this.#run(() => this.#backend.delete(key, options))
  }

  /** A session by its key. No I/O: who it is, is decided inside the lock at the first write. */
  session(key: string): Session {
    checkKey(key)
    return new Session(key, {
      backend: this.#backend,
      maintenance: this.#maintenance,
      recordBytesMax: this.#recordBytesMax,
      run: (work) => this.#run(work),
      assertOpen: () => this.#assertOpen(),
    })
  }

  /** Runs `work` as one turn of the key's conversation: no other turn of that key runs meanwhile, in any process.
   *
   *  The input is durable before anything is waited for. The turn's start and end are records of the transcript, and whatever `work` appends
   *  through `turn` is valid only while no later turn has begun: a process that was frozen, and wakes, adds nothing.
   *
   *  @returns when `work` has settled and the turn's end is durable; at once for `coalesced` and `duplicate`.
   *  @throws what `work` throws; the turn is then recorded as failed (interrupted, when its signal was aborted) · the signal's reason ·
   *          TURN_BUSY  refused (`reject`), waited for too long, or called from inside a turn of the same key; effect none ·
   *          LANE_FULL  effect none · TURN_LOST  overtaken, effect unknown: what it had appended stands · and as `append`. */
  async runTurn<R>(key: string, options: TurnOptions, work: (turn: Turn) => Promise<R> | R): Promise<TurnResult<R>> {
    checkKey(key)
    if (typeof work !== 'function') throw new StoreError('INVALID_OPTION', 'runTurn takes a function.', { hint: 'Nothing was done.' })
    this.#assertOpen()
    return this.#turns.run(key, checkTurn(options, this.#recordBytesMax), work)
  }

  /** The turns that are queued or active now, of all processes, oldest first; of one key, also those that are over, newest first. */
  async turns(options?: TurnsOptions): Promise<TurnStatus[]> {
    this.#assertOpen()
    return this.#turns.list(checkTurns(options))
  }

  /** Aborts the signal of the key's active turn, in whichever process it runs. False when there is none. It may take a moment to settle. */
  async interrupt(key: string): Promise<boolean> {
    checkKey(key)
    this.#assertOpen()
    return this.#turns.interrupt(key)
  }

  /** Transcripts that are not in use any more, newest first: of sessions that were rotated or deleted, and what was before a compaction.
   *  @param key  only those that this key has named, be it deleted since. */
  async archives(key?: string): Promise<ArchiveInfo[]> {
    if (key !== undefined) checkKey(key)
    return this.#run(() => this.#maintenance.archives(key))
  }

  /** The records of an archived transcript, compressed or not, in order.
   *  @throws NOT_FOUND · LOG_CORRUPT  when it comes to damage, after everything before it has been handed out. */
  readArchive(archive: string, options?: ReadOptions): AsyncIterable<StoredRecord> {
    const checked = checkRead(options)
    this.#assertOpen()
    return this.#maintenance.readArchive(String(archive), checked)
  }

  /** Brings an archived transcript back as a session under a key that names none: records, their numbers and ids, under a fresh session id. No
   *  turn goes on in it. The archive stays as it is.
   *  @throws NOT_FOUND  there is no such archive · INVALID_KEY  the key names a session · LOG_CORRUPT  the archive is damaged · DISK_FULL ·
   *          INVALID_ENTRY. Effect none · IO_FAILED  see effect. */
  async restoreArchive(archive: string, options: RestoreOptions): Promise<RestoreReceipt> {
    const checked = checkRestore(options)
    const made = (fields: object) => (this.#schema ? this.#validate(checked.key, fields) : fields)
    const entry = checked.entry && made(checked.entry)
    return this.#run(() => this.#maintenance.restoreArchive(String(archive), checked, (kept) => entry ?? made(kept ?? {})))
  }

  /** Folds the journal into sessions.json. */
  async checkpoint(): Promise<void> {
    return this.#run(() => this.#backend.checkpoint())
  }

  /** Looks at every file and changes nothing. Works beside live writers. */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    return this.#run(() => this.#maintenance.verify(options))
  }

  /** Archives what the rules say, the sessions first that were changed longest ago. Never one with an active turn or an input that waits, in
   *  any process, nor a pinned one (`pinned: true` in the entry), nor one that `protect` keeps, nor one that has been changed since it was
   *  decided. A cap that cannot be kept without these archives nothing, and is reported. Only `rules.archives` unlinks anything.
   *  @throws INVALID_OPTION  effect none · what `protect` throws, the signal's reason: what had been archived by then, is. */
  async retain(options: RetainOptions<Entry<T>>): Promise<RetentionReport> {
    const checked = checkRetain(options as RetainOptions)
    return this.#run(() => this.#maintenance.retain(checked))
  }

  /** One round of maintenance, now, unless another process has the lead in it. A step that fails is in the report; the others are done. */
  async maintain(options: MaintenanceOptions<Entry<T>> & { readonly signal?: AbortSignal | undefined } = {}): Promise<MaintenanceReport> {
    const { signal, ...rest } = options
    const [checked, wait] = [checkMaintenance(rest as MaintenanceOptions), checkWait({ signal })]
    return this.#run(() => this.#maintenance.maintain(checked, wait.signal))
  }

  /** What a repair would do about what `verify` finds: a plan to be shown, kept or applied. Changes nothing, and works beside live writers.
   *  Nothing to be done: no actions. */
  async planRepair(options: VerifyOptions = {}): Promise<RepairPlan> {
    return this.#run(() => this.#maintenance.planRepair(options))
  }

  /** Does what the plan lists, and nothing else. Every byte that is removed is in `quarantine/` before. An action whose files have changed
   *  since the plan was made is refused, and the others are done: the report says of each what became of it.
   *  @throws INVALID_OPTION  it is no plan of this store · the signal's reason, between two actions. */
  async repair(plan: RepairPlan, options: VerifyOptions = {}): Promise<RepairReport> {
    return this.#run(() => this.#maintenance.repair(plan, options))
  }

  /** Who holds which lock, since when, and what this process makes of it. */
  async locks(): Promise<LockStatus[]> {
    this.#assertOpen()
    return this.#backend.locks()
  }

  /** What is wrong with the metadata of a store that was opened `readOnly`, or to `repair`, nevertheless: found when it was opened. Whatever
   *  needs the damaged part throws the same; `verify`, `planRepair`, `locks` and `stats` work. undefined for nothing, and after the repair. */
  get damage(): StoreError | undefined {
    return this.#backend.damage
  }

  stats(): StoreStats {
    return this.#backend.stats()
  }

  /** Refuses new calls, waits for those under way, and lets go of every file. Turns that still run after `closeMs` are aborted.
   *  @throws TURN_BUSY  naming turns that go on nevertheless; the store stays open for their appends. Close again. */
  close(): Promise<void> {
    this.#closing ??= this.#drain().catch((error: unknown) => {
      this.#closed = true
      this.#closing = undefined
      throw error
    })
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #drain(): Promise<void> {
    await this.#background?.stop()
    await this.#turns.close(this.#closeMs)
    if (this.#active > 0)
      await new Promise<void>((resolve) => {
        this.#drained = resolve
      })
    await this.#backend.close()
  }

  #assertOpen(): void {
    if (this.#closing || this.#closed)
      throw new StoreError('STORE_CLOSED', 'the store has been closed.', { hint: 'Nothing was done. Open it again.' })
  }

  /** Not an async function, and one promise only: a thousand calls at once are a use of their own. */
  #run<R>(work: () => Promise<R>): Promise<R> {
    try {
      this.#assertOpen()
      const running = work()
      this.#active++
      running.then(this.#leave, this.#leave)
      return running
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #leave = () => {
    if (--this.#active === 0) this.#drained()
  }

  #checkedView(sessions: SessionsView<Fields>): SessionsView<T> {
    if (!this.#schema) return sessions as unknown as SessionsView<T>
    const check = (key: string, fields: object) => this.#validate(key, fields)
    const view: SessionsView<Fields> = {
      get: (key) => sessions.get(key),
      has: (key) => sessions.has(key),
      set: (key, fields) => sessions.set(key, check(key, fields)),
      patch: (key, fields) => sessions.set(key, check(key, { ...sessions.get(key), ...fields })),
      delete: (key) => sessions.delete(key),
      keys: () => sessions.keys(),
      entries: () => sessions.entries(),
      get size() {
        return sessions.size
      },
    }
    return view as unknown as SessionsView<T>
  }

  /** The caller's part of an entry, as the schema leaves it. */
  #validate(key: string, fields: object): Fields {
    if (typeof fields !== 'object' || fields === null) return fields as unknown as Fields
    const theirs = Object.fromEntries(Object.entries(fields).filter(([name]) => !own.includes(name)))
    const result = this.#schema!['~standard'].validate(theirs)
    if (result instanceof Promise) {
      result.catch(() => {})
      throw new StoreError('INVALID_OPTION', 'the entry schema is asynchronous.', {
        hint: 'Nothing was written. Entries are checked under the lock: use a synchronous schema.',
      })
    }
    if (!result.issues) return result.value as Fields
    const issue = result.issues[0]
    const path = issue?.path?.map((step) => String(typeof step === 'object' ? step.key : step)).join('.')
    throw new StoreError(
      'INVALID_ENTRY',
      `the entry of ${JSON.stringify(key)}${path ? `, field ${path}` : ''}: ${issue?.message ?? 'not valid'}.`,
      {
        details: { key, issues: result.issues },
        hint: 'Nothing was written.',
      },
    )
  }
}

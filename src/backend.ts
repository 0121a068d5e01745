import type {
  AppendOptions,
  AppendReceipt,
  Entry,
  LockStatus,
  ReadOptions,
  RotateReceipt,
  SessionsView,
  StoredRecord,
  StoreStats,
  VerifyReport,
  WaitOptions,
} from './types.js'

/** What a store needs from the place where it keeps things. `file/` is one; a database can be another. test/backend/conformance.ts is
 *  its specification: whoever passes it keeps promises P1 to P6.
 *
 *  Keys, records and options arrive checked. Records arrive as JSON text, so that every backend stores the very same value. Nothing here
 *  is told about lanes, turns or schemas: `validate` is a function that throws. */
export interface Backend {
  /** Runs `mutate` synchronously on state that nobody else can change in between, and commits what it changed, all or nothing. May
   *  run it again, on newer state, when another writer won; only the last run counts. */
  commitMetadata<R>(mutate: (sessions: SessionsView<Record<string, unknown>>) => R, wait: WaitOptions): Promise<R>
  /** The committed entry, with everything in it that was acknowledged before the call. Frozen. */
  get(key: string): Promise<Entry | undefined>
  /** One moment's entries, in no promised order. */
  entries(prefix: string): AsyncIterable<[string, Entry]>
  /** Removes the key and moves its transcript to the archive. False when there was none. */
  delete(key: string, wait: WaitOptions): Promise<boolean>

  /** Appends in order, all or nothing, to the session that the key names; names one inside the commit when there is none. */
  append(key: string, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt>
  read(key: string, options: ReadOptions): AsyncIterable<StoredRecord>
  /** The last `count` records, oldest first; costs what they cost, not what the transcript costs. */
  tail(key: string, count: number): Promise<StoredRecord[]>
  /** Gives the key a new session id; the old transcript is closed and archived. NOT_FOUND when there is no such session. */
  rotate(key: string, reason: string, wait: WaitOptions): Promise<RotateReceipt>

  /** Folds what has been journaled into the snapshot. A backend without journal returns at once. */
  checkpoint(): Promise<void>
  verify(options: { onProgress?: (done: number, total: number) => void; signal?: AbortSignal }): Promise<VerifyReport>
  locks(): Promise<LockStatus[]>
  stats(): StoreStats
  close(): Promise<void>
}

/** A record's JSON text: an object, without the two reserved names. */
export interface EncodedRecord {
  readonly json: string
}

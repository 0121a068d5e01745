import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Finding, FindingKind } from './findings.js'
import type { MaintenanceOptions } from './upkeep.js'

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

/** What a caller appends: any JSON object without a top-level `$` or `$$` (those two names are the log's own). */
export type TranscriptRecord = object

/** A record as read back, frozen nowhere: it is the reader's own copy. */
export interface StoredRecord {
  /** Position in the log; grows by one per record, system records included, so gaps are normal. */
  readonly seq: number
  /** The idempotency id it was appended with, if any. */
  readonly id?: string
  /** The turn that appended it, if any. */
  readonly turn?: number
  /** The request whose input it is; of several records, the first one says so. */
  readonly request?: string
  readonly record: Record<string, unknown>
}

/** The fields that the store keeps in every entry. Times are epoch milliseconds. */
export interface EntryFields {
  readonly sessionId: string
  readonly createdAt: number
  readonly updatedAt: number
  /** Grows by one per committed change. */
  readonly revision: number
}

/** One session's metadata. Frozen to its depths: change it through a mutator, not in place. */
export type Entry<T extends object = Record<string, unknown>> = EntryFields & Readonly<T>

/** power: acknowledged means on the disk. process: acknowledged means with the kernel; survives kill -9, not a power cut. */
export type Durability = 'power' | 'process'

export interface WaitOptions {
  /** Aborting rejects with `signal.reason`; what has not begun to be written is not written. */
  signal?: AbortSignal | undefined
  /** How long to wait for a lock, in ms. Default: the store's `lock.waitMs`. */
  waitMs?: number | undefined
}

export interface LockOptions {
  /** 1 to 3,600,000 ms, default 10,000. */
  waitMs?: number
  /** 10 to 3,600,000 ms, default 15,000. A holder older than this may be overtaken; its late writes are void. */
  maxHoldMs?: number
}

export interface StoreOptions<S extends StandardSchemaV1 | undefined = undefined> {
  /** Any Standard Schema (zod, valibot, arktype…), synchronous; checks the caller's part of an entry on every write. */
  entry?: S
  durability?: Durability
  /** auto: fold the journal into sessions.json when it has outgrown it. always: on every commit, for tools that read sessions.json. */
  checkpoint?: 'auto' | 'always'
  lock?: LockOptions
  /** Never writes, takes no lock, creates nothing; works on a read-only mount and beside live writers. Opens also a store whose metadata is
   *  damaged: `store.damage` tells, what needs the damaged part throws it, and everything else works. */
  readOnly?: boolean
  /** Opens also a store whose metadata is damaged, to mend it: `verify`, `planRepair`, `repair`, `locks` and `stats` work; everything else
   *  throws the damage until it is repaired, and goes on with the same handle afterwards. Creates no store. */
  repair?: boolean
  /** 1 KiB to 256 MiB, default 16 MiB: the largest record, as JSON. */
  recordBytesMax?: number
  /** How many turns of each lane run at once in this process, 1 to 10,000. Default `{ main: 4, subagent: 8, cron: 1 }`; other names are yours. */
  lanes?: Readonly<Record<string, number>>
  /** How long `close` waits for active turns before it aborts them, 0 to 86,400,000 ms, default 30,000. */
  closeMs?: number
  /** Care of the store in the background, by one of the processes that have asked for it. Default: none. */
  maintenance?: MaintenanceOptions<Entry> | undefined
}

export interface AppendOptions extends WaitOptions {
  /** Idempotency key, 1 to 256 characters: a second append with the same id returns the first one's receipt with `duplicate: true`. */
  id?: string | undefined
  /** Append only if the last sequence number is this one, else SEQ_CONFLICT and nothing is written. 0 for a session without records. */
  expectedSeq?: number | undefined
  /** Append only if the key still names this session, else SEQ_CONFLICT and nothing is written: a rotation starts the numbers anew. */
  expectedSessionId?: string | undefined
  /** For diagnostics channels and logs. */
  requestId?: string | undefined
  channelId?: string | undefined
}

export interface AppendReceipt {
  readonly sessionId: string
  /** Sequence number of the last record of the call. */
  readonly seq: number
  /** One per record, in the order given. */
  readonly seqs: readonly number[]
  readonly duplicate: boolean
}

export interface ReadOptions {
  /** Only records with a greater sequence number. Default 0. */
  after?: number | undefined
  /** At most this many. Default: all. */
  limit?: number | undefined
  signal?: AbortSignal | undefined
  /** The last summary in the place of the records that it stands for. It has the sequence number under which it was written, so it does not
   *  stand in order; a reader that asks for what comes `after` the last number it has seen gets a new summary, and what is new. */
  compacted?: boolean | undefined
}

export interface TailOptions {
  /** As in `ReadOptions`: the last `count` of the summary and the records behind what it stands for. */
  compacted?: boolean | undefined
}

export interface RotateReceipt {
  readonly sessionId: string
  readonly previousSessionId: string
}

/** Who holds a lock, as read from the lock's own name. */
export interface LockHolder {
  readonly pid: number
  readonly host: string
  readonly does: string
  readonly heldMs: number | undefined
  readonly maxHoldMs: number
  /** alive | dead | expired | unknown */
  readonly verdict: string
  readonly why: string
}

export interface LockStatus {
  /** Relative to the store, such as `metadata` or `transcripts/07`. */
  readonly lock: string
  /** Of the lease of a turn, `turns/…`: whose conversation. Absent when nobody has said so. */
  readonly key?: string
  readonly state: 'free' | 'held' | 'absent' | 'foreign'
  readonly entry: string | undefined
  readonly fencingToken: number | undefined
  readonly holder: LockHolder | undefined
  readonly waiting: number
}

export interface VerifyOptions {
  /** Looks at what a chat makes of its records, too: tool calls without a result, parents that are missing, two roots. Default false. */
  chat?: boolean | undefined
  /** Bytes read, and bytes to read. */
  onProgress?: ((done: number, total: number) => void) | undefined
  signal?: AbortSignal | undefined
}

/** What `verify` found. Damage is in `damage`; everything else is normal wear that the chain rule has already dealt with. */
export interface VerifyReport {
  readonly ok: boolean
  readonly files: readonly FileReport[]
  readonly damage: readonly Damage[]
  /** Everything that was noticed, damage included, in the order of the files. At most 1,000 of each kind in a file, 10,000 in all. */
  readonly findings: readonly Finding[]
  /** How many more there are, of each kind. */
  readonly omitted: Readonly<Partial<Record<FindingKind, number>>>
}

export interface FileReport {
  readonly file: string
  readonly kind: 'snapshot' | 'journal' | 'transcript' | 'archive'
  readonly bytes: number
  readonly records: number
  readonly lastSeq: number
  readonly voidLines: number
  readonly tornTailBytes: number
  readonly sealed: boolean
}

export interface Damage {
  readonly file: string
  readonly code: 'STORE_CORRUPT' | 'LOG_CORRUPT'
  readonly message: string
  readonly byte: number | undefined
  readonly seq: number | undefined
}

/** Counters since this handle was opened; nothing here is persisted. */
export interface StoreStats {
  readonly commits: number
  readonly recordsWritten: number
  readonly bytesWritten: number
  readonly reruns: number
  readonly conflicts: number
  readonly voidLines: number
  readonly syncs: number
  readonly checkpoints: number
  readonly lockAcquisitions: number
  readonly lockWaits: number
  readonly lockWaitMsTotal: number
  readonly lockWaitMsMax: number
  readonly lockTimeouts: number
  readonly locksLost: number
  readonly handOvers: number
  /** Locks that were handed to somebody who did not take them up in time. */
  readonly offersLapsed: number
  readonly takeovers: { readonly dead: number; readonly expired: number }
  /** Rounds of maintenance that this handle has done as the leader, and steps of them that have failed. */
  readonly maintenanceRounds: number
  readonly maintenanceFailures: number
  /** Places that verifying in the background has found damaged; a place counts once. */
  readonly damageFound: number
}

/** What a synchronous mutator sees: the metadata as it is inside the lock, with its own changes laid over it. */
export interface SessionsView<T extends object> {
  get(key: string): Entry<T> | undefined
  has(key: string): boolean
  /** Replaces the caller's fields of an entry; creates it, with a session id, where there is none. */
  set(key: string, fields: T): Entry<T>
  /** Lays fields over those of an entry; creates it where there is none. A field that is `undefined` is removed. */
  patch(key: string, fields: Partial<T>): Entry<T>
  delete(key: string): boolean
  keys(): IterableIterator<string>
  entries(): IterableIterator<[string, Entry<T>]>
  readonly size: number
}

// — turns —

/** What a request does when the key's conversation is busy. queue: waits for its turn · reject: TURN_BUSY at once, nothing written ·
 *  coalesce: leaves its input for the active turn · interrupt: aborts the active turn, waits for it to settle, then runs. */
export type WhenBusy = 'queue' | 'reject' | 'coalesce' | 'interrupt'

export type TurnState = 'queued' | 'active' | 'completed' | 'failed' | 'interrupted' | 'rejected' | 'coalesced'

export interface TurnOptions extends WaitOptions {
  /** Idempotency key of the request, 1 to 256 characters: a completed one is not run again, its result is returned. Default: a fresh one. */
  requestId?: string | undefined
  /** Where the request came from, for logs and `turns()`; 1 to 256 characters. */
  channelId?: string | undefined
  /** Which global lane it runs in. Default `main`. */
  lane?: string | undefined
  /** Default `queue`. */
  whenBusy?: WhenBusy | undefined
  /** Appended, durably, before the turn waits for anything (with `reject`: together with its start). */
  input?: TranscriptRecord | readonly TranscriptRecord[] | undefined
  /** 100 to 86,400,000 ms without progress, default 1,020,000. Then `turn.signal` aborts, and another process may take over. */
  maxTurnMs?: number | undefined
  /** How long to wait for the key and the lane, ms. Default 1,200,000: longer than a legal turn (F10). */
  waitMs?: number | undefined
}

/** One unit of agent work on one session: exclusive per key across all processes. */
export interface Turn {
  readonly key: string
  readonly sessionId: string
  /** Grows by one per turn of the session; the fencing token of everything that is appended through the turn. */
  readonly turn: number
  readonly requestId: string
  readonly channelId: string | undefined
  readonly lane: string
  /** 1, or more when earlier attempts of this request were interrupted or failed. */
  readonly attempt: number
  /** Aborts when the turn is interrupted, its lease is lost, its time is over or its caller has aborted; `reason` says which. */
  readonly signal: AbortSignal
  /** The request's own input, as stored. */
  readonly inputs: readonly StoredRecord[]
  /** As `Session.append`, and counts as progress.
   *  @throws TURN_LOST  effect none: another turn has begun since, or the session was rotated. */
  append(records: TranscriptRecord | readonly TranscriptRecord[], options?: AppendOptions): Promise<AppendReceipt>
  /** The last records of the conversation as this turn should see it: inputs stand where they were taken, those that wait for other turns
   *  are left out. */
  tail(count: number, options?: TailOptions): Promise<StoredRecord[]>
  /** Takes what other requests have left for this turn, those that waited when it began among them; each is handed out once. */
  pending(): Promise<StoredRecord[]>
  /** Progress without an append: `maxTurnMs` starts anew. */
  heartbeat(): void
}

export interface TurnResult<R = unknown> {
  /** completed: the function has run to its end · interrupted: it was aborted, and returned nevertheless · coalesced: the input is in the
   *  transcript and the active turn's to answer · duplicate: this request was answered before (or meanwhile); here is that result. */
  readonly outcome: 'completed' | 'interrupted' | 'coalesced' | 'duplicate'
  /** The turn that did it; of a coalesced input the active one. */
  readonly turn: number
  readonly sessionId: string
  readonly requestId: string
  readonly attempt: number
  /** Of the input, then of what the turn appended. */
  readonly seqs: readonly number[]
  /** What the function returned; of a duplicate, what JSON keeps of it. */
  readonly value: R | undefined
}

export interface TurnStatus {
  readonly key: string
  readonly sessionId: string | undefined
  readonly turn: number | undefined
  readonly requestId: string
  readonly channelId: string | undefined
  readonly lane: string
  readonly state: TurnState
  /** 0 for the active one, then 1, 2…; undefined when it is over. */
  readonly position: number | undefined
  /** Since when it is in this state, epoch ms. */
  readonly since: number
  readonly ageMs: number
  /** Whose process; undefined for one that is over. */
  readonly holder: { readonly pid: number; readonly host: string; readonly verdict: string; readonly why: string } | undefined
}

export interface TurnsOptions {
  /** Only this key's; then those that are over are listed, too, newest first. */
  key?: string | undefined
  /** At most so many that are over. Default 50. */
  limit?: number | undefined
}

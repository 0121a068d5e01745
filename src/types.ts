import type { StandardSchemaV1 } from '@standard-schema/spec'

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

/** What a caller appends: any JSON object without a top-level `$` or `$$` (those two names are the log's own). */
export type TranscriptRecord = object

/** A record as read back, frozen nowhere: it is the reader's own copy. */
export interface StoredRecord {
  /** Position in the log; grows by one per record, system records included, so gaps are normal. */
  readonly seq: number
  /** The idempotency id it was appended with, if any. */
  readonly id?: string
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
  /** Never writes, takes no lock, creates nothing; works on a read-only mount and beside live writers. */
  readOnly?: boolean
  /** 1 KiB to 256 MiB, default 16 MiB: the largest record, as JSON. */
  recordBytesMax?: number
  /** How many turns of each lane run at once (used from the release that brings turns). */
  lanes?: Readonly<Record<string, number>>
}

export interface AppendOptions extends WaitOptions {
  /** Idempotency key, 1 to 256 characters: a second append with the same id returns the first one's receipt with `duplicate: true`. */
  id?: string | undefined
  /** Append only if the last sequence number is this one, else SEQ_CONFLICT and nothing is written. 0 for a session without records. */
  expectedSeq?: number | undefined
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
  readonly state: 'free' | 'held' | 'absent' | 'foreign'
  readonly entry: string | undefined
  readonly fencingToken: number | undefined
  readonly holder: LockHolder | undefined
  readonly waiting: number
}

/** What `verify` found. Damage is in `damage`; everything else is normal wear that the chain rule has already dealt with. */
export interface VerifyReport {
  readonly ok: boolean
  readonly files: readonly FileReport[]
  readonly damage: readonly Damage[]
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

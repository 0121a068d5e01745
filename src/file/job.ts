/** What a commit is made of: callers' jobs, and the owner of the log they go to. */

import type { Durability } from '../types.js'
import type { Held } from './lock/baton.js'
import type { LogFile } from './log/log-file.js'
import type { Counters } from './stats.js'

export interface CommitterOptions {
  readonly durability: Durability
  readonly waitMs: number
  readonly does: string
  readonly counters: Counters
}

/** One caller's part of a commit. */
export interface Job<R> {
  /** Decides, on the state inside the lock, what to append; may run again on newer state. Throwing fails this job alone. */
  run(log: LogFile): readonly string[]
  /** The call's result once its records have these sequence numbers (none when it appended nothing). */
  result(seqs: readonly number[], log: LogFile): R
  /** Takes note, in memory, of what has just landed as `run` prepared it. */
  applied?(seqs: readonly number[]): void
  /** Its records are the store's own, some or all. */
  readonly system?: boolean
  /** It asks what only landed records can answer, and others ask the same of its own: it goes into a batch of its own. */
  readonly solo?: boolean
  /** Anything else that must be on the disk before the acknowledgement. */
  alsoDurable?: () => Promise<void> | undefined
  /** It is acknowledged when it has landed: whatever is said on the strength of it, says so in a later record. */
  readonly relaxed?: () => boolean
  /** When it appends nothing: the sequence number of this log that its result speaks of, -1 for none. */
  dependsOn?: () => number
  /** Of the store's own doing, in the background: it is not told as somebody's commit. */
  readonly background?: boolean
  /** For diagnostics. */
  readonly about?: Readonly<Record<string, unknown>>
}

/** Whose log it is. */
export interface LogOwner {
  readonly label: string
  /** Where its file is. */
  readonly directory: string
  /** Step 2: the log as it is now, ready to be appended to. May throw a StoreError, or one of the two signals below. */
  refresh(): LogFile
  /** Forgets what the last `run`s have prepared. What it returns goes before the callers' records: the header of a new log. */
  beginBatch(log: LogFile): readonly string[]
  /** Resolves when the directory entry of the log is on the disk. */
  nameDurable(log: LogFile): Promise<void>
  /** What takes time and must be done before the log can be appended to; under the lock, or without it. */
  prepare(need: 'locked' | 'unlocked', held: Held | undefined): Promise<void>
  /** What is to be done after a landing, still under the lock; `first` when callers shall wait for it. It does not reject. */
  afterLanding?(held: Held): { work: Promise<void>; first: boolean } | undefined
  /** A sync has failed: nobody may chain on pages that may be gone. */
  suspect(error: unknown): void
}

/** Thrown by `refresh` or `run`: first do this, then begin again. */
export class Preparation {
  readonly need: 'locked' | 'unlocked'
  constructor(need: 'locked' | 'unlocked') {
    this.need = need
  }
}

/** What a repair would do, as data: it can be shown, kept in a file, read by another program, and applied later. A repair does what stands
 *  here and nothing else, and only while every file is still what the plan was made from. */
import type { Finding, Range } from './findings.js'

export interface RepairPlan {
  readonly version: 1
  readonly planId: string
  /** Of holdfast.json; undefined where that cannot be read. */
  readonly storeId: string | undefined
  /** Epoch ms. */
  readonly madeAt: number
  /** What the actions answer, and what nothing can be done about. */
  readonly findings: readonly Finding[]
  readonly actions: readonly RepairAction[]
}

export type RepairKind =
  /** A log is written anew from what is sound in it. */
  | 'rewrite-log'
  /** sessions.json and its journal are made anew. */
  | 'rebuild-metadata'
  /** holdfast.json is made anew. */
  | 'remake-format'
  /** A rotation, deletion, compaction or earlier repair is brought to its end. */
  | 'finish-work'
  /** A transcript that no key names gets its key back. */
  | 'attach-transcript'
  /** A transcript that no key names, and whose key is taken, goes to the archive. */
  | 'archive-transcript'
  /** A transcript that its entry names comes back from where it is. */
  | 'restore-transcript'
  /** A transcript that is gone begins anew, behind the numbers that it had. */
  | 'begin-anew'
  /** Something that does not belong there goes to quarantine. */
  | 'move-aside'
  | 'set-permissions'

export interface RepairAction {
  /** 1, 2, 3…: the order in which they are done. */
  readonly id: number
  readonly kind: RepairKind
  /** Relative to the store. */
  readonly file: string
  readonly key: string | undefined
  readonly sessionId: string | undefined
  /** One sentence to a person. */
  readonly does: string
  readonly recovers: Recovery
  readonly loses: Losses
  /** Which bytes go to quarantine. */
  readonly quarantines: readonly Removal[]
  /** What every file must still look like when this is applied; else it is refused, and nothing of it is done. */
  readonly requires: readonly Requirement[]
  /** What a program needs to do it. */
  readonly work: RepairWork
}

export interface Recovery {
  readonly records: number
  readonly keys: number
  /** What else is worth saying, a sentence each. */
  readonly notes: readonly string[]
}

/** What could not be recovered. All empty: nothing is lost. */
export interface Losses {
  /** Of records that are gone; inclusive. */
  readonly seqs: readonly Range[]
  readonly keys: readonly string[]
  readonly notes: readonly string[]
}

export interface Removal {
  readonly file: string
  /** Exclusive ends, in the order of the file. */
  readonly ranges: readonly Range[]
  readonly bytes: number
}

/** bytes undefined: there must be no such file. crc: CRC-32 of the first `bytes` bytes. */
export interface Requirement {
  readonly file: string
  readonly bytes: number | undefined
  readonly crc: number | undefined
  /** Records that continue what was read may have been appended since; they stay. */
  readonly mayGrow: boolean
}

export type RepairWork =
  | LogRewrite
  | MetadataRebuild
  | { readonly kind: 'remake-format'; readonly text: string }
  | { readonly kind: 'finish-work' }
  /** The entry's JSON text. */
  | { readonly kind: 'attach-transcript'; readonly entry: string }
  | { readonly kind: 'archive-transcript' }
  | { readonly kind: 'restore-transcript'; readonly from: string }
  | { readonly kind: 'begin-anew'; readonly header: Readonly<Record<string, unknown>>; readonly headerSeq: number }
  /** Names in the directory `file`. */
  | { readonly kind: 'move-aside'; readonly names: readonly string[] }
  | { readonly kind: 'set-permissions'; readonly mode: number }

/** How the new log comes out of the old one's bytes. */
export interface LogRewrite {
  readonly kind: 'rewrite-log'
  /** The new header, and its sequence number. */
  readonly header: Readonly<Record<string, unknown>>
  readonly headerSeq: number
  /** Bytes at the start of the file that stay as they are: the lines of another program that the header names. */
  readonly prefix: number
  /** Lines of another program that become records: from, to, seq. */
  readonly foreign: readonly (readonly [from: number, to: number, seq: number])[]
  /** Where the records stand that stay, in the order of their numbers. */
  readonly keep: readonly (readonly [from: number, to: number])[]
  /** The last number that the new log has; where no record is kept, it says that one is lost. */
  readonly upTo: number
  /** The last record that is kept, as it stands in the old file: what may have been appended since continues it. */
  readonly last: { readonly seq: number; readonly crc: number }
}

/** The new sessions.json follows from the files that are named in `requires`; it must come out with this hash. */
export interface MetadataRebuild {
  readonly kind: 'rebuild-metadata'
  /** exact: the very bytes whose hash the journal names, which goes on as it is · anew: a new pair. */
  readonly how: 'exact' | 'anew'
  /** SHA-256 of the new sessions.json. */
  readonly hash: string
  /** Of the new journal's header. */
  readonly seq: number
}

export interface RepairReport {
  /** Every action was done. */
  readonly ok: boolean
  readonly planId: string
  readonly actions: readonly ActionReport[]
}

export interface ActionReport {
  readonly id: number
  readonly kind: RepairKind
  readonly file: string
  /** done · refused: the files are not what the plan was made from · failed: the machine refused. Nothing has changed but for `done`. */
  readonly outcome: 'done' | 'refused' | 'failed'
  /** Relative to the store: where the removed bytes are. */
  readonly quarantine: string | undefined
  readonly error: { readonly code: string; readonly message: string; readonly effect: 'none' | 'unknown' } | undefined
}

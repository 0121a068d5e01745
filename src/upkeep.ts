/** What keeps a store from growing without end, and who sees to it: rules, reports and events of retention and of background maintenance. */

/** Each limit is asked for separately. Left out: the next wider rule's counts. null: none, whatever a wider rule says. */
export interface SessionLimits {
  /** Since the entry or the transcript was last changed, ms; 0 to 10 years. */
  readonly maxAgeMs?: number | null | undefined
  /** Sessions. */
  readonly maxCount?: number | null | undefined
  /** Of the transcripts' files, as long as they are; `archive/` does not count. */
  readonly maxBytes?: number | null | undefined
}

/** Of the whole store, and of the keys that begin with a prefix.
 *  - An age is that of the longest prefix of the key which names one, else the store's.
 *  - A count or number of bytes of a prefix is that of the keys for which it is the longest prefix that names one.
 *  - That of the store is over all sessions. A key whose longest prefix says `null` counts, and does not go. */
export interface RetentionRules extends SessionLimits {
  readonly prefixes?: Readonly<Record<string, SessionLimits>> | undefined
  /** The only thing here that unlinks data. Left out: nothing is ever unlinked. */
  readonly archives?: ArchiveLimits | undefined
}

/** What goes from `archive/`, for good. */
export interface ArchiveLimits {
  /** Since it was archived, ms. */
  readonly maxAgeMs?: number | undefined
  /** Of everything in `archive/`: the oldest goes first. */
  readonly maxBytes?: number | undefined
  /** So many of each key, the latest, stay whatever the others say. Default 0. */
  readonly keepLast?: number | undefined
  /** Whether what repair has put into `quarantine/` goes after `maxAgeMs`, too. Default false. */
  readonly quarantine?: boolean | undefined
}

export interface RetainOptions<E = unknown> {
  readonly rules: RetentionRules
  /** Says what would be done, and does nothing. Default false. */
  readonly dryRun?: boolean | undefined
  /** Synchronous, and asked again under the lock: true keeps the session. */
  readonly protect?: ((key: string, entry: E) => boolean) | undefined
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  /** Aborting stops between two sessions; what is archived by then, is. */
  readonly signal?: AbortSignal | undefined
}

export type RetentionRule = 'age' | 'count' | 'bytes'

/** pinned: the entry says `pinned: true` · predicate: the caller's · active-turn, pending-input: in any process, or in the log ·
 *  changed: since it was decided · damaged: its transcript is for repair to look at first · unfinished: somebody is closing or rewriting it ·
 *  busy: its lock was not to be had. */
export type ProtectedWhy = 'pinned' | 'predicate' | 'active-turn' | 'pending-input' | 'changed' | 'damaged' | 'unfinished' | 'busy'

export interface RetentionReport {
  readonly dryRun: boolean
  /** Sessions that were looked at. */
  readonly sessions: number
  /** Of those, how many are left. */
  readonly kept: number
  /** Of a dry run: what would be. */
  readonly archived: readonly ArchivedSession[]
  /** What a rule would have archived, and why it stayed. */
  readonly protected: readonly ProtectedSession[]
  /** Rules that cannot be kept without touching what is protected. They have archived nothing. */
  readonly unsatisfied: readonly UnsatisfiedRule[]
  /** Files of `archive/` and `quarantine/` that were unlinked. */
  readonly removed: readonly RemovedFile[]
}

export interface ArchivedSession {
  readonly key: string
  readonly sessionId: string
  readonly bytes: number
  /** Epoch ms. */
  readonly changedAt: number
  readonly rule: RetentionRule
  /** Whose rule; empty for the store's. */
  readonly prefix: string
}

export interface ProtectedSession {
  readonly key: string
  readonly sessionId: string
  readonly why: ProtectedWhy
}

export interface UnsatisfiedRule {
  readonly rule: RetentionRule | 'archive-bytes'
  readonly prefix: string
  readonly limit: number
  /** What there would be if everything went that may go. */
  readonly least: number
  /** How many sessions (or files) may not go. */
  readonly protected: number
}

export interface RemovedFile {
  /** Relative to the store. */
  readonly file: string
  readonly key: string | undefined
  readonly bytes: number
  readonly rule: 'age' | 'bytes'
}

// — in the background —

export interface MaintenanceOptions<E = unknown> {
  /** From the end of one round to the begin of the next, 100 to 86,400,000 ms, default 600,000. */
  readonly everyMs?: number | undefined
  /** By how much of it that varies, 0 to 1, default 0.2: processes that were started together do not work together. */
  readonly jitter?: number | undefined
  /** How long it works before it pauses, 1 to 10,000 ms, default 20. */
  readonly budgetMs?: number | undefined
  /** How long it then leaves the disk to others, 0 to 60,000 ms, default 60. */
  readonly pauseMs?: number | undefined
  /** How long the leader may go without a sign of life before another takes over, 1,000 to 3,600,000 ms, default 30,000. */
  readonly leaseMs?: number | undefined
  /** Default: none, nothing is archived. */
  readonly retention?: RetentionRules | undefined
  /** As in `RetainOptions`. */
  readonly protect?: ((key: string, entry: E) => boolean) | undefined
  /** When transcripts are written anew without what can go; `{}` for the defaults. Default: never. The old file goes to `archive/`. */
  readonly compactBytes?: BytesCompaction | undefined
  /** Whether archived transcripts become `.jsonl.gz` when they have lain there for ten minutes. Default true. */
  readonly compressArchives?: boolean | undefined
  /** Which part of the bytes of all transcripts and archives is verified in a round, 0 to 1, default 0.05; begun anew when all is done. */
  readonly verifyShare?: number | undefined
  /** Told of everything that is done. `holdfast:maintenance` says the same. What it throws is ignored. */
  readonly onEvent?: ((event: MaintenanceEvent) => void) | undefined
}

export interface BytesCompaction {
  /** Which part of the file could go, at least: void lines, and what a summary stands for. 0.05 to 1, default 0.5. */
  readonly voidShare?: number | undefined
  /** How many bytes, at least; 1 or more, default 1 MiB. */
  readonly minBytes?: number | undefined
}

/** leader: who does it · step: what was done, one unit of it or, without a key and file, all of it · damage: what verifying has come across. */
export interface MaintenanceEvent {
  readonly event: 'leader' | 'step' | 'damage'
  /** leader: took, lost, gave, busy · step: done, failed, stopped, or what became of the key or file. */
  readonly outcome: string
  readonly step?: string | undefined
  readonly key?: string | undefined
  readonly sessionId?: string | undefined
  /** Relative to the store. */
  readonly file?: string | undefined
  readonly tookMs?: number | undefined
  readonly bytes?: number | undefined
  /** To a person: what was done, what has failed, who leads. */
  readonly text?: string | undefined
  readonly error?: unknown
}

export interface MaintenanceReport {
  /** False: another process has the lead, nothing was done. */
  readonly led: boolean
  /** Who, then. */
  readonly leader: string | undefined
  readonly steps: readonly StepReport[]
  /** It was stopped, or has lost the lead, before all was done. */
  readonly stopped: boolean
}

export interface StepReport {
  readonly step: string
  readonly outcome: 'done' | 'failed' | 'stopped'
  /** How many sessions or files something was done to. */
  readonly units: number
  readonly tookMs: number
  readonly error?: unknown
}

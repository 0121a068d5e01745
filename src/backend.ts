import type { ArchiveInfo, CompactBytesOptions, CompactBytesReceipt, RestoreOptions, RestoreReceipt } from './archives.js'
import type { StoreError } from './errors.js'
import type { RepairPlan, RepairReport } from './repair-plan.js'
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
  TailOptions,
  TurnStatus,
  TurnsOptions,
  VerifyOptions,
  VerifyReport,
  WaitOptions,
  WhenBusy,
} from './types.js'
import type { MaintenanceOptions, MaintenanceReport, RetainOptions, RetentionReport } from './upkeep.js'

/** What a store needs from the place where it keeps things. `file/` is one; a database can be another. test/backend/conformance.ts is
 *  its specification: whoever passes it keeps promises P1 to P6.
 *
 *  Keys, records and options arrive checked. Records arrive as JSON text, so that every backend stores the very same value. Nothing here
 *  is told about lanes or schemas: `validate` is a function that throws. */
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
  tail(key: string, count: number, options?: TailOptions): Promise<StoredRecord[]>
  /** What there is for a summary to stand for; undefined for a key that names no session. */
  summarizable(key: string, signal?: AbortSignal): Promise<Summarizable | undefined>
  /** Adds a summary, unless one that stands for as much has come in since `base`.
   *  @throws SEQ_CONFLICT  the key names another session by now. */
  summarize(
    key: string,
    summary: NewSummary,
    options: WaitOptions & Pick<AppendOptions, 'requestId' | 'channelId'>,
  ): Promise<SummaryReceipt>
  /** Gives the key a new session id; the old transcript is closed and archived. NOT_FOUND when there is no such session. */
  rotate(key: string, reason: string, wait: WaitOptions): Promise<RotateReceipt>

  /** Folds what has been journaled into the snapshot. A backend without journal returns at once. */
  checkpoint(): Promise<void>
  locks(): Promise<LockStatus[]>
  /** What it was found damaged with, where it was opened nevertheless. */
  readonly damage: StoreError | undefined
  stats(): StoreStats
  close(): Promise<void>
  readonly turns: TurnPort
}

export interface Summarizable {
  readonly sessionId: string
  /** The last record of any kind when it was read. */
  readonly base: number
  /** The summary before. */
  readonly summary: StoredRecord | undefined
  /** Behind what that stands for, as a turn is shown them: inputs where they were taken. */
  readonly records: readonly StoredRecord[]
  /** Where a summary may end: the number of records that it would stand for, and the seq up to which. */
  readonly cuts: ReadonlyMap<number, number>
}

export interface NewSummary {
  readonly sessionId: string
  readonly base: number
  readonly upTo: number
  /** How many it stands for, with those of the summary before. */
  readonly records: number
  readonly text: string
}

export interface SummaryReceipt {
  /** False: somebody else's, that stands for as much. */
  readonly ours: boolean
  readonly seq: number
  readonly upTo: number
  readonly records: number
}

/** Care of what is stored: each backend knows its own damage. */
export type EntryFrom = (kept: Readonly<Record<string, unknown>> | undefined) => object

export interface MaintenancePort {
  /** Writes a key's transcript anew without what can go; keeps the whole of the old one. */
  compactBytes(key: string, options: CompactBytesOptions): Promise<CompactBytesReceipt>
  /** Transcripts that are not in use any more, newest first; of one key, or all. */
  archives(key: string | undefined): Promise<ArchiveInfo[]>
  readArchive(archive: string, options: ReadOptions): AsyncIterable<StoredRecord>
  /** @param entryFrom  makes the new entry of what the archive has of the old one; may refuse it */
  restoreArchive(archive: string, options: RestoreOptions, entryFrom: EntryFrom): Promise<RestoreReceipt>
  verify(options: VerifyOptions): Promise<VerifyReport>
  planRepair(options: VerifyOptions): Promise<RepairPlan>
  repair(plan: RepairPlan, options: VerifyOptions): Promise<RepairReport>
  retain(options: RetainOptions): Promise<RetentionReport>
  /** One round, now, unless another process has the lead. */
  maintain(options: CheckedMaintenance, signal: AbortSignal | undefined): Promise<MaintenanceReport>
  /** Round after round, whenever this process has the lead. */
  background(options: CheckedMaintenance): Running
}

/** With the defaults filled in. */
export type CheckedMaintenance = MaintenanceOptions & {
  readonly [name in 'everyMs' | 'jitter' | 'budgetMs' | 'pauseMs' | 'leaseMs' | 'verifyShare']: number
}

export interface Running {
  /** Resolves when nothing of it goes on any more. */
  stop(): Promise<void>
}

/** Turns, as far as they concern more than this process: a line per key that all processes see, a lease that one of them holds, and what
 *  turns write to the log, fenced. Who runs when within the process is decided above. */
export interface TurnPort {
  /** Gives a request a place in the line of its key. Advisory: it orders and shows; it does not exclude. */
  enlist(key: string, request: RequestFacts): Place
  /** Appends an input that waits for a turn; nothing when this request has left one before. */
  leaveInput(key: string, records: readonly EncodedRecord[], request: RequestFacts, wait: WaitOptions): Promise<LeftInput>
  /** Takes an input back. False when a turn has taken it. */
  withdrawInput(key: string, request: RequestFacts): Promise<boolean>
  /** What the log knows of a request; undefined when it has never been begun. */
  find(key: string, request: RequestFacts, wait: WaitOptions): Promise<EarlierRequest | undefined>
  /** What an answered request's function returned, where JSON can say it. */
  valueOf(sessionId: string, endSeq: number): Promise<unknown>
  list(options: TurnsOptions): Promise<TurnStatus[]>
  /** Asks the holder of the active turn, wherever it is, to stop. False when there is none. */
  interrupt(key: string, by: string): Promise<boolean>
}

export interface RequestFacts {
  readonly requestId: string
  /** It is the caller's own, and may come again. */
  readonly given: boolean
  readonly channelId?: string | undefined
  readonly lane: string
  readonly whenBusy: WhenBusy
}

export interface EarlierRequest {
  readonly state: 'pending' | 'taken' | 'active' | 'completed' | 'failed' | 'interrupted'
  readonly sessionId: string
  readonly turn: number
  readonly attempt: number
  readonly endSeq: number
}

export interface LeftInput {
  readonly sessionId: string
  readonly seqs: readonly number[]
  readonly earlier: EarlierRequest | undefined
  /** Whose turn was active where the input stands in the log. */
  readonly active: { readonly turn: number; readonly requestId: string; readonly lease: number } | undefined
}

/** At once where that is known here, else when it has been asked for. */
export type Soon<T> = T | Promise<T>

/** A request's place in the line of its key. */
export interface Place {
  /** The lease, now or not at all. */
  tryLease(maxTurnMs: number, events: LeaseEvents): Promise<TurnLease | undefined>
  /** Waits for it. @throws TURN_BUSY  naming the holder; the signal's reason. */
  lease(maxTurnMs: number, events: LeaseEvents, wait: WaitOptions & { waitMs: number }): Promise<TurnLease>
  /** Others see from now on that it waits. Waiting for the lease shows it, too, and so does a turn that begins. */
  show(): Soon<void>
  /** Who has the lease now; undefined for nobody alive. */
  holder(): Soon<LeaseHolder | undefined>
  /** Whether the same request stands in line, or is active, elsewhere. */
  isElsewhere(): Soon<boolean>
  /** Whether others wait for their own turns. */
  othersWait(): Soon<boolean>
  leave(): Soon<void>
}

export interface LeaseHolder {
  readonly pid: number
  readonly host: string
  readonly verdict: string
  readonly why: string
  readonly heldMs: number | undefined
  readonly maxHoldMs: number
  /** Fencing token of the lease. */
  readonly token: number
  /** Of its card; undefined where there is none. */
  readonly requestId: string | undefined
  readonly turn: number | undefined
}

export interface LeaseEvents {
  /** Somebody has taken the lease over, or nobody could tell any more. */
  onLost(reason: StoreError): void
  /** No progress for maxTurnMs: it may be taken over from now on. */
  onExpired(): void
  /** Somebody asks for the turn to stop. */
  onInterrupt(by: string): void
}

/** The right to run a key's turns. One turn after another may be begun under it. */
export interface TurnLease {
  /** @param records  its input; not appended when it is in the log already.
   *  @throws TURN_LOST  before it began · the signal's reason. Nothing was written. */
  begin(request: RequestFacts, records: readonly EncodedRecord[] | undefined, options?: BeginOptions): Promise<BegunTurn>
  /** Begins a turn for what others have left and nobody waits to run; `nothing` when there is none. */
  beginForLeft(request: RequestFacts): Promise<BegunTurn>
  append(turn: StartedTurn, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt>
  /** Takes what others have left since. */
  take(turn: StartedTurn): Promise<StoredRecord[]>
  /** The records of these inputs. */
  inputs(turn: StartedTurn, at: readonly InputAt[]): Promise<StoredRecord[]>
  tail(turn: StartedTurn, count: number, options?: TailOptions): Promise<StoredRecord[]>
  /** @returns how many inputs it leaves that nobody waits to run. */
  end(turn: StartedTurn, request: RequestFacts, ending: TurnEnding): Promise<{ left: number }>
  /** One look: the lease is still ours. */
  stands(): boolean
  progress(): void
  release(): Promise<void>
}

export interface BeginOptions {
  /** The request has left its input before; default false. */
  readonly hasLeft?: boolean | undefined
  /** Whoever has aborted by the time it would be written, has not begun. */
  readonly signal?: AbortSignal | undefined
}

/** An input in a log: its request, the seq of its first record, how many records. */
export type InputAt = readonly [request: string, seq: number, count: number]

export interface StartedTurn {
  readonly kind: 'started'
  readonly key: string
  readonly sessionId: string
  readonly turn: number
  readonly attempt: number
  /** Its own. */
  readonly input: InputAt | undefined
  /** Its own input was written with its start: what was handed in is what is there. */
  readonly inputIsNew: boolean
  /** Those of others that it has taken. */
  readonly left: readonly InputAt[]
}

export type BegunTurn =
  | StartedTurn
  /** The request was answered before: by its own turn, or by the one that took its input. */
  | {
      readonly kind: 'answered' | 'coalesced'
      readonly sessionId: string
      readonly turn: number
      readonly attempt: number
      readonly endSeq: number
    }
  | { readonly kind: 'nothing' }

export interface TurnEnding {
  readonly outcome: 'completed' | 'failed' | 'interrupted'
  /** A JSON value. */
  readonly value?: unknown
  readonly error?: string | undefined
}

/** A record's JSON text: an object, without the two reserved names. */
export interface EncodedRecord {
  readonly json: string
}

/** The right to run a key's turns, while it is ours, and what turns write under it. Every write is fenced twice: by the log, which says
 *  whose turn it is, and by a look at the lease's own entry, made after the log was read. */
import type {
  BeginOptions,
  BegunTurn,
  EncodedRecord,
  InputAt,
  LeaseEvents,
  RequestFacts,
  StartedTurn,
  TurnEnding,
  TurnLease,
} from '../../backend.js'
import type { StoreError } from '../../errors.js'
import type { AppendOptions, AppendReceipt, StoredRecord, TailOptions } from '../../types.js'
import type { Lease } from '../lock/lease.js'
import type { CommitOptions, JobFor } from '../transcripts/append.js'
import { AppendJob } from '../transcripts/append.js'
import type { Source } from '../transcripts/reading.js'
import { type Beginning, endJob, type Fence, startJob, takeJob, turnLost, type Waiting } from '../transcripts/turn-jobs.js'
import { readConversation, readInputs } from '../transcripts/turn-reading.js'
import type { Board, Card } from './board.js'

export interface LeaseTools {
  readonly key: string
  commit<R>(options: CommitOptions, jobFor: JobFor<R>): Promise<R>
  source(sessionId: string): Source
  readonly waiting: Waiting
  nowMs(): number
}

export class KeyLease implements TurnLease {
  #tools: LeaseTools
  #lease: Lease
  #card: Card
  #stopWatching: () => void
  /** The input of the turn that has just begun, where it need not be read again. */
  #written: { readonly at: InputAt; readonly records: readonly EncodedRecord[] } | undefined
  #heardAt: number | undefined
  /** Taken, says the log, and not handed out yet: reading them has failed. */
  #owed: InputAt[] = []

  constructor(tools: LeaseTools, lease: Lease, card: Card, board: Board, events: LeaseEvents) {
    this.#tools = tools
    this.#lease = lease
    this.#card = card
    this.#stopWatching = board.pollCard(() => {
      const asked = card.interruption()
      // Asked of one turn, it is not asked of the next one under the same lease.
      if (!asked || asked.since === this.#heardAt) return
      this.#heardAt = asked.since
      events.onInterrupt(asked.by)
    })
  }

  begin(
    request: RequestFacts,
    records: readonly EncodedRecord[] | undefined,
    { hasLeft = false, signal }: BeginOptions = {},
  ): Promise<BegunTurn> {
    const abandoned = () => (signal?.aborted ? signal.reason : undefined)
    return this.#begin(request, { records, hasLeft, onlyForLeft: false, abandoned }, { signal })
  }

  async beginForLeft(request: RequestFacts): Promise<BegunTurn> {
    const deleted = new Error()
    const how = { records: undefined, hasLeft: false, onlyForLeft: true, abandoned: () => undefined }
    return this.#begin(request, how, { absent: () => deleted }).catch((error: unknown) => {
      if (error === deleted) return { kind: 'nothing' }
      throw error
    })
  }

  async #begin(
    request: RequestFacts,
    how: Pick<Beginning, 'records' | 'hasLeft' | 'onlyForLeft' | 'abandoned'>,
    options: CommitOptions,
  ): Promise<BegunTurn> {
    const { waiting, nowMs } = this.#tools
    const beginning = { ...how, request, stands: () => this.#lease.stands(), lease: this.#lease.token, waiting, nowMs }
    const { requestId, channelId } = request
    this.#lease.progress()
    const begun = await this.#tools.commit({ ...options, requestId, channelId }, (transcript, named) =>
      startJob(transcript, beginning, named),
    )
    if (begun.kind !== 'started') return begun
    this.#lease.progress()
    this.#written = how.records && begun.input && begun.inputIsNew ? { at: begun.input, records: how.records } : undefined
    this.#card.update({ state: 'active', turn: begun.turn, sessionId: begun.sessionId })
    return begun
  }

  append(turn: StartedTurn, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt> {
    const fence = this.#fence(turn)
    return this.#tools.commit(
      { ...options, absent: () => this.#deleted(turn) },
      (transcript, named) => new AppendJob(transcript, records, options, named, fence),
    )
  }

  async take(turn: StartedTurn): Promise<StoredRecord[]> {
    const fence = this.#fence(turn)
    const { waiting, nowMs } = this.#tools
    const absent = () => this.#deleted(turn)
    this.#owed.push(...(await this.#tools.commit({ absent }, (transcript) => takeJob(transcript, fence, waiting, nowMs))))
    const owed = this.#owed.splice(0)
    return this.inputs(turn, owed).catch((error: unknown) => {
      this.#owed.unshift(...owed)
      throw error
    })
  }

  async inputs(turn: StartedTurn, at: readonly InputAt[]): Promise<StoredRecord[]> {
    if (this.#written && at.length === 1 && at[0] === this.#written.at) return storedInput(this.#written.at, this.#written.records)
    return readInputs(this.#tools.source(turn.sessionId), at) ?? this.#gone(turn)
  }

  async tail(turn: StartedTurn, count: number, { compacted }: TailOptions = {}): Promise<StoredRecord[]> {
    return readConversation(this.#tools.source(turn.sessionId), count, compacted) ?? this.#gone(turn)
  }

  end(turn: StartedTurn, request: RequestFacts, ending: TurnEnding): Promise<{ left: number }> {
    const fence = this.#fence(turn)
    const { waiting, nowMs } = this.#tools
    const { requestId, channelId } = request
    const absent = () => this.#deleted(turn)
    return this.#tools.commit({ requestId, channelId, absent, endsTurn: true }, (transcript) =>
      endJob(transcript, fence, request, ending, waiting, nowMs),
    )
  }

  stands(): boolean {
    return this.#lease.stands()
  }

  progress(): void {
    this.#lease.progress()
  }

  release(): Promise<void> {
    this.#stopWatching()
    return this.#lease.release()
  }

  #fence({ key, sessionId, turn }: StartedTurn): Fence {
    return { key, sessionId, turn, stands: () => this.#lease.stands() }
  }

  #deleted(turn: StartedTurn): StoreError {
    return turnLost(turn, 'the session was deleted')
  }

  #gone(turn: StartedTurn): never {
    throw turnLost(turn, 'the session was closed and goes on under another id')
  }
}

/** As a reader of the transcript would find it. */
function storedInput([request, seq]: InputAt, records: readonly EncodedRecord[]): StoredRecord[] {
  return records.map(({ json }, at) => ({
    seq: seq + at,
    ...(at === 0 && { request }),
    record: JSON.parse(json) as Record<string, unknown>,
  }))
}

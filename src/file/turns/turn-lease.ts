/** The right to run a key's turns, while it is ours, and what turns write under it. Every write is fenced twice: by the log, which says
 *  whose turn it is, and by a look at the lease's own entry, made after the log was read. */
import type { BegunTurn, EncodedRecord, InputAt, LeaseEvents, RequestFacts, StartedTurn, TurnEnding, TurnLease } from '../../backend.js'
import type { StoreError } from '../../errors.js'
import type { AppendOptions, AppendReceipt, StoredRecord } from '../../types.js'
import type { Lease } from '../lock/lease.js'
import type { CommitOptions, JobFor } from '../transcripts/append.js'
import { appendJob } from '../transcripts/append.js'
import type { Source } from '../transcripts/reading.js'
import { endJob, type Fence, startJob, takeJob, turnLost } from '../transcripts/turn-jobs.js'
import { readConversation, readInputs } from '../transcripts/turn-reading.js'
import type { Board, Card } from './board.js'

export interface LeaseTools {
  readonly key: string
  commit<R>(options: CommitOptions, jobFor: JobFor<R>): Promise<R>
  source(sessionId: string): Source
  /** Whether somebody alive still waits to run this request himself. */
  waits(request: string): boolean
  nowMs(): number
}

export class KeyLease implements TurnLease {
  #tools: LeaseTools
  #lease: Lease
  #card: Card
  #stopWatching: () => void

  constructor(tools: LeaseTools, lease: Lease, card: Card, board: Board, events: LeaseEvents) {
    this.#tools = tools
    this.#lease = lease
    this.#card = card
    this.#stopWatching = board.pollCard(() => {
      const asked = card.interruption()
      if (asked) events.onInterrupt(asked.by)
    })
  }

  begin(request: RequestFacts, records: readonly EncodedRecord[] | undefined): Promise<BegunTurn> {
    return this.#begin(request, records, false)
  }

  beginForLeft(request: RequestFacts): Promise<BegunTurn> {
    return this.#begin(request, undefined, true)
  }

  async #begin(request: RequestFacts, records: readonly EncodedRecord[] | undefined, onlyForLeft: boolean): Promise<BegunTurn> {
    const { waits, nowMs } = this.#tools
    const beginning = { request, records, onlyForLeft, stands: () => this.#lease.stands(), lease: this.#lease.token, waits, nowMs }
    const { requestId, channelId } = request
    const begun = await this.#tools.commit({ requestId, channelId }, (transcript, named) => startJob(transcript, beginning, named))
    if (begun.kind === 'started') this.#card.update({ state: 'active', turn: begun.turn, sessionId: begun.sessionId })
    return begun
  }

  append(turn: StartedTurn, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt> {
    const fence = this.#fence(turn)
    return this.#tools.commit({ ...options, absent: () => this.#deleted(turn) }, (transcript, named) =>
      appendJob(transcript, records, options, named, fence),
    )
  }

  async take(turn: StartedTurn): Promise<StoredRecord[]> {
    const fence = this.#fence(turn)
    const { waits, nowMs } = this.#tools
    return this.inputs(
      turn,
      await this.#tools.commit({ absent: () => this.#deleted(turn) }, (transcript) => takeJob(transcript, fence, waits, nowMs)),
    )
  }

  async inputs(turn: StartedTurn, at: readonly InputAt[]): Promise<StoredRecord[]> {
    return readInputs(this.#tools.source(turn.sessionId), at) ?? this.#gone(turn)
  }

  async tail(turn: StartedTurn, count: number): Promise<StoredRecord[]> {
    return readConversation(this.#tools.source(turn.sessionId), count) ?? this.#gone(turn)
  }

  end(turn: StartedTurn, request: RequestFacts, ending: TurnEnding): Promise<{ left: number }> {
    const fence = this.#fence(turn)
    const { waits, nowMs } = this.#tools
    const { requestId, channelId } = request
    const absent = () => this.#deleted(turn)
    return this.#tools.commit({ requestId, channelId, absent }, (transcript) => endJob(transcript, fence, request, ending, waits, nowMs))
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

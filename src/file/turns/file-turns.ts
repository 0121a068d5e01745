/** Turns of the embedded store: a lease per key (lock/lease.ts), a board of cards beside it, and the log, which decides. */
import type { EarlierRequest, EncodedRecord, LeftInput, Place, RequestFacts, TurnPort } from '../../backend.js'
import type { LockStatus, TurnStatus, TurnsOptions, WaitOptions } from '../../types.js'
import type { Host } from '../host.js'
import type { Leases } from '../lock/lease.js'
import type { CommitOptions, JobFor } from '../transcripts/append.js'
import type { Source } from '../transcripts/reading.js'
import { askJob, inputJob, withdrawJob } from '../transcripts/turn-jobs.js'
import { type PastTurn, readEnd, readTurns } from '../transcripts/turn-reading.js'
import { Board, leaseNameOf } from './board.js'
import { KeyPlace } from './place.js'
import type { LeaseTools } from './turn-lease.js'

export interface FileTurnsTools {
  assertWritable(): void
  commit<R>(key: string, options: CommitOptions, jobFor: JobFor<R>): Promise<R>
  sessionIdOf(key: string): Promise<string | undefined>
  source(sessionId: string, key: string): Source
  /** Of a session that may not be a key's any more. */
  live(sessionId: string): Source
  /** What the end of a turn says that is in the archive: of a session that is not a key's any more, or was compacted since. */
  archivedEnd(sessionId: string, seq: number): Promise<{ readonly value?: unknown } | undefined>
}

const pastTurnsDefault = 50

export class FileTurns implements TurnPort {
  #host: Host
  #leases: Leases
  #board: Board
  #tools: FileTurnsTools

  constructor(host: Host, leases: Leases, path: string, tools: FileTurnsTools) {
    this.#host = host
    this.#leases = leases
    this.#board = new Board(host, path)
    this.#tools = tools
  }

  enlist(key: string, request: RequestFacts): Place {
    this.#tools.assertWritable()
    const { requestId, channelId, lane, whenBusy } = request
    const card = this.#board.draw({ key, requestId, channelId, lane, whenBusy }, false)
    const tools: LeaseTools = {
      key,
      commit: (options, jobFor) => this.#tools.commit(key, options, jobFor),
      source: (sessionId) => this.#tools.source(sessionId, key),
      waiting: () => this.#board.waiting(key),
      nowMs: () => this.#host.clock.wallMs(),
    }
    return new KeyPlace(this.#host, this.#leases, this.#board, card, request, tools)
  }

  leaveInput(key: string, records: readonly EncodedRecord[], request: RequestFacts, wait: WaitOptions): Promise<LeftInput> {
    return this.#tools.commit(key, { ...wait, ...idsOf(request) }, (transcript, named) => inputJob(transcript, records, request, named))
  }

  async withdrawInput(key: string, request: RequestFacts): Promise<boolean> {
    if ((await this.#tools.sessionIdOf(key)) === undefined) return false
    return this.#tools.commit(key, idsOf(request), (transcript) => withdrawJob(transcript, request, () => this.#host.clock.wallMs()))
  }

  async find(key: string, request: RequestFacts, wait: WaitOptions): Promise<EarlierRequest | undefined> {
    if ((await this.#tools.sessionIdOf(key)) === undefined) return undefined
    return this.#tools.commit(key, { ...wait, ...idsOf(request) }, (transcript) => askJob(transcript, request))
  }

  async valueOf(sessionId: string, endSeq: number): Promise<unknown> {
    if (endSeq < 0) return undefined
    const end = (await readEnd(this.#tools.live(sessionId), endSeq)) ?? (await this.#tools.archivedEnd(sessionId, endSeq))
    return end?.value
  }

  async list({ key, limit = pastTurnsDefault }: TurnsOptions): Promise<TurnStatus[]> {
    const nowMs = this.#host.clock.wallMs()
    const live = withoutOvertaken(this.#board.list(key).map(({ whenBusy: _, ...status }): TurnStatus => status))
    if (key === undefined) return live.sort((a, b) => a.since - b.since)
    const sessionId = await this.#tools.sessionIdOf(key)
    const past = sessionId === undefined || limit === 0 ? [] : (readTurns(this.#tools.source(sessionId, key), limit) ?? [])
    const shown = new Set(live.map(({ turn }) => turn))
    return [...live, ...past.filter(({ turn }) => !shown.has(turn)).map((turn) => pastStatus(key, sessionId!, turn, nowMs))]
  }

  /** The leases that there are, with whose they are and how many wait. */
  leases(): LockStatus[] {
    return this.#leases.statuses((name) => this.#board.about(name))
  }

  /** What can be seen of the key's conversation without its log: somebody alive, in any process, has its turn, or waits for it. A holder that
   *  cannot be asked counts as alive, and one that has gone on for too long, too. */
  busy(key: string): 'active-turn' | 'pending-input' | undefined {
    const holder = this.#leases.look(leaseNameOf(key))
    if (holder !== 'free' && holder.verdict !== 'dead') return 'active-turn'
    const living = this.#board.list(key).filter(({ state }) => state !== 'interrupted')
    if (living.some(({ state }) => state === 'active')) return 'active-turn'
    return living.length > 0 ? 'pending-input' : undefined
  }

  /** Takes away what processes have left that died. A courtesy, to be done whenever there is time. */
  sweep(): void {
    for (const _ of this.sweeping());
  }

  /** The same, with a halt after each. */
  *sweeping(): Generator<void> {
    yield* this.#leases.sweeping()
    yield* this.#board.sweeping()
  }

  /** Takes away what was left for the next turn to find. */
  close(): void {
    this.#leases.close()
    this.#board.close()
  }

  async interrupt(key: string, by: string): Promise<boolean> {
    this.#tools.assertWritable()
    return this.#board.requestInterrupt(key, by)
  }
}

function idsOf({ requestId, channelId }: RequestFacts) {
  return { requestId, channelId }
}

/** Whoever sleeps through the loss of his lease has a card that says active: the latest turn of a key is the one that is. */
function withoutOvertaken(cards: readonly TurnStatus[]): TurnStatus[] {
  const latest = new Map<string, number>()
  for (const { key, state, turn = 0 } of cards) if (state === 'active') latest.set(key, Math.max(turn, latest.get(key) ?? 0))
  return cards.map((card) =>
    card.state === 'active' && (card.turn ?? 0) < latest.get(card.key)! ? { ...card, state: 'interrupted', position: undefined } : card,
  )
}

function pastStatus(key: string, sessionId: string, past: PastTurn, nowMs: number): TurnStatus {
  const { turn, requestId, channelId, lane, startedAt, endedAt } = past
  const since = endedAt ?? startedAt
  // What the log has as active without anybody's card was left by a process that died.
  const state = past.state === 'active' ? 'interrupted' : past.state
  return {
    key,
    sessionId,
    turn,
    requestId,
    channelId,
    lane,
    state,
    position: undefined,
    since,
    ageMs: Math.max(0, nowMs - since),
    holder: undefined,
  }
}

/** Turns of the embedded store: a lease per key (lock/lease.ts), a board of cards beside it, and the log, which decides. */
import type { EarlierRequest, EncodedRecord, LeftInput, Place, RequestFacts, TurnPort } from '../../backend.js'
import type { AppendOptions, LockStatus, TurnStatus, TurnsOptions, WaitOptions } from '../../types.js'
import type { Host } from '../host.js'
import type { Leases } from '../lock/lease.js'
import type { Source } from '../transcripts/reading.js'
import type { JobFor } from '../transcripts/transcripts.js'
import { askJob, inputJob, withdrawJob } from '../transcripts/turn-jobs.js'
import { type PastTurn, readEnd, readTurns } from '../transcripts/turn-reading.js'
import { Board, type SeenCard } from './board.js'
import { KeyPlace } from './place.js'
import type { LeaseTools } from './turn-lease.js'

export interface FileTurnsTools {
  assertWritable(): void
  commit<R>(key: string, options: AppendOptions, jobFor: JobFor<R>): Promise<R>
  sessionIdOf(key: string): Promise<string | undefined>
  source(sessionId: string): Source
  /** Of a session that is not a key's any more. */
  archived(sessionId: string): Source
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
    const card = this.#board.draw(key, request)
    const tools: LeaseTools = {
      key,
      commit: (options, jobFor) => this.#tools.commit(key, options, jobFor),
      source: (sessionId) => this.#tools.source(sessionId),
      waits: (requestId) => this.#board.find(key, requestId)?.state === 'queued',
      nowMs: () => this.#host.clock.wallMs(),
    }
    return new KeyPlace(this.#host, this.#leases, this.#board, card, tools)
  }

  leaveInput(key: string, records: readonly EncodedRecord[], request: RequestFacts, wait: WaitOptions): Promise<LeftInput> {
    return this.#tools.commit(key, { ...wait, ...idsOf(request) }, (transcript, named) => inputJob(transcript, records, request, named))
  }

  withdrawInput(key: string, request: RequestFacts): Promise<boolean> {
    return this.#tools.commit(key, idsOf(request), (transcript) => withdrawJob(transcript, request, () => this.#host.clock.wallMs()))
  }

  async find(key: string, request: RequestFacts, wait: WaitOptions): Promise<EarlierRequest | undefined> {
    if ((await this.#tools.sessionIdOf(key)) === undefined) return undefined
    return this.#tools.commit(key, { ...wait, ...idsOf(request) }, (transcript) => askJob(transcript, request))
  }

  async valueOf(sessionId: string, endSeq: number): Promise<unknown> {
    if (endSeq < 0) return undefined
    const end = (await readEnd(this.#tools.source(sessionId), endSeq)) ?? (await readEnd(this.#tools.archived(sessionId), endSeq))
    return end?.value
  }

  async list({ key, limit = pastTurnsDefault }: TurnsOptions): Promise<TurnStatus[]> {
    const nowMs = this.#host.clock.wallMs()
    const cards = this.#board.list(key)
    const live = cards.map((card) => statusOf(card, cards, nowMs))
    if (key === undefined) return live
    const sessionId = await this.#tools.sessionIdOf(key)
    const past = sessionId === undefined || limit === 0 ? [] : (readTurns(this.#tools.source(sessionId), limit) ?? [])
    const shown = new Set(live.map(({ turn }) => turn))
    return [...live, ...past.filter(({ turn }) => !shown.has(turn)).map((turn) => pastStatus(key, sessionId!, turn, nowMs))]
  }

  /** The leases that somebody has, with whose they are and how many wait. */
  leases(): LockStatus[] {
    return this.#leases.statuses((name) => this.#board.about(name))
  }

  async interrupt(key: string, by: string): Promise<boolean> {
    this.#tools.assertWritable()
    return this.#board.requestInterrupt(key, by)
  }
}

function idsOf({ requestId, channelId }: RequestFacts) {
  return { requestId, channelId }
}

/** Of a turn whose process died, nobody has been able to write down more than that. */
function statusOf(card: SeenCard, cards: readonly SeenCard[], nowMs: number): TurnStatus {
  const { key, sessionId, turn, requestId, channelId, lane, since, holder, verdict } = card
  const dead = verdict.kind === 'dead'
  const before = cards.filter(
    (other) => other.key === key && other.state === 'queued' && other.drawn < card.drawn && other.verdict.kind !== 'dead',
  )
  return {
    key,
    sessionId,
    turn,
    requestId,
    channelId,
    lane,
    state: dead && card.state === 'active' ? 'interrupted' : card.state,
    position: dead ? undefined : card.state === 'active' ? 0 : before.length + 1,
    since,
    ageMs: Math.max(0, nowMs - since),
    holder: { pid: holder.pid, host: holder.host, verdict: verdict.kind, why: verdict.why },
  }
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

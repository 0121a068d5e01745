/** The turns of one store in this process: who runs, who joins whom, and how they come to an end when the store is closed. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import type { EncodedRecord, TurnPort } from '../backend.js'
import { type Clock, systemClock } from '../clock.js'
import { StoreError } from '../errors.js'
import type { AppendOptions, TranscriptRecord, TurnResult, TurnStatus, TurnsOptions, WhenBusy } from '../types.js'
import type { ActiveTurn } from './active-turn.js'
import { Lanes } from './lanes.js'
import { Visit, type VisitTools, type Work } from './visit.js'

export interface CheckedTurn {
  readonly requestId: string | undefined
  readonly channelId: string | undefined
  readonly lane: string
  readonly whenBusy: WhenBusy
  readonly records: readonly EncodedRecord[] | undefined
  readonly maxTurnMs: number
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
}

export interface TurnsTools {
  readonly clock?: Clock
  freshId(): string
  encode(records: TranscriptRecord | readonly TranscriptRecord[]): readonly EncodedRecord[]
  checkAppend(options: AppendOptions | undefined): AppendOptions
  checkCount(count: unknown): number
}

const turnChannel = channel('holdfast:turn')
/** How long an aborted turn may take to settle when the store is closed. */
const settleMs = 5_000

export class Turns {
  #port: TurnPort
  #tools: VisitTools
  #lanes: Lanes
  /** Requests that the caller has named, while they are served here: whoever comes with the same one joins. */
  #serving = new Map<string, Promise<TurnResult<unknown>>>()
  #visits = new Set<Promise<unknown>>()
  #active = new Map<string, ActiveTurn>()
  #background = new Set<Promise<void>>()
  #inside = new AsyncLocalStorage<ActiveTurn>()

  constructor(port: TurnPort, lanes: Readonly<Record<string, number>> | undefined, tools: TurnsTools) {
    const clock = tools.clock ?? systemClock
    const report = (message: object) => void (turnChannel.hasSubscribers && turnChannel.publish(message))
    this.#port = port
    this.#lanes = new Lanes(clock, lanes, { report })
    this.#tools = {
      ...tools,
      clock,
      report,
      port,
      lanes: this.#lanes,
      inside: this.#inside,
      active: (key) => this.#active.get(key),
      activate: (key, turn) => {
        if (turn) this.#active.set(key, turn)
        else this.#active.delete(key)
      },
      background: (_key, work) => {
        this.#background.add(work)
        void work.finally(() => this.#background.delete(work))
      },
    }
  }

  async run<R>(key: string, turn: CheckedTurn, work: Work<R>): Promise<TurnResult<R>> {
    const { requestId, channelId, lane, whenBusy } = turn
    this.#lanes.assertLane(lane)
    turn.signal?.throwIfAborted()
    const name = requestId === undefined ? undefined : JSON.stringify([key, requestId])
    const serving = name === undefined ? undefined : this.#serving.get(name)
    if (serving) return join(serving as Promise<TurnResult<R>>, turn.signal)
    if (whenBusy === 'queue' || whenBusy === 'interrupt') this.#assertOutside(key)
    const request = { requestId: requestId ?? this.#tools.freshId(), given: requestId !== undefined, channelId, lane, whenBusy }
    const served = new Visit(key, { ...turn, request }, work, this.#tools).serve()
    this.#visits.add(served)
    if (name !== undefined) this.#serving.set(name, served)
    try {
      return await served
    } finally {
      this.#visits.delete(served)
      if (name !== undefined) this.#serving.delete(name)
    }
  }

  list(options: TurnsOptions): Promise<TurnStatus[]> {
    return this.#port.list(options)
  }

  async interrupt(key: string): Promise<boolean> {
    const here = this.#active.get(key)
    here?.interrupt('a call of interrupt')
    return here !== undefined || this.#port.interrupt(key, 'a call of interrupt')
  }

  /** Refuses new ones and those in line, waits for the active ones; then aborts them, and waits for them to settle.
   *  @throws TURN_BUSY  naming those that still run. */
  async close(waitMs: number): Promise<void> {
    await this.#lanes.close(waitMs)
    if (this.#active.size > 0) {
      const reason = new StoreError('STORE_CLOSED', 'the store is being closed.', { hint: 'What the turn has appended stands.' })
      for (const turn of this.#active.values()) turn.abort(reason)
      await this.#lanes.close(settleMs)
    }
    const running = [...this.#active.values()].map(({ about }) => about)
    if (running.length > 0)
      throw new StoreError(
        'TURN_BUSY',
        `close has waited ${waitMs} ms; ${running.map(({ turn, key }) => `turn ${turn} of ${JSON.stringify(key)}`).join(', ')} still run.`,
        {
          details: { running, waitMs },
          hint: 'New calls are refused. Let their functions heed turn.signal, then close again.',
        },
      )
    await Promise.all([...this.#background, ...this.#visits].map((work) => work.then(nothing, nothing)))
  }

  /** A turn that waits for a turn of its own key waits for itself (F5, F38). */
  #assertOutside(key: string): void {
    for (let turn = this.#inside.getStore(); turn; turn = turn.outer) {
      if (turn.key !== key || turn.isOver) continue
      throw new StoreError(
        'TURN_BUSY',
        `runTurn was called from inside turn ${turn.turn} of the same key ${JSON.stringify(key)}, and would wait for itself.`,
        {
          retryable: false,
          details: { key, turn: turn.turn, requestId: turn.requestId },
          hint: "Nothing was written. Use the turn that is there (turn.append), or leave the message for it with whenBusy 'coalesce'.",
        },
      )
    }
  }
}

/** The same request, once more, while the first one is served: its result, or its error. */
async function join<R>(serving: Promise<TurnResult<R>>, signal: AbortSignal | undefined): Promise<TurnResult<R>> {
  if (!signal) return asDuplicate(await serving)
  let stop = nothing
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    stop = () => signal.removeEventListener('abort', onAbort)
  })
  try {
    return asDuplicate(await Promise.race([serving, aborted]))
  } finally {
    stop()
  }
}

function asDuplicate<R>(result: TurnResult<R>): TurnResult<R> {
  return result.outcome === 'completed' ? { ...result, outcome: 'duplicate' } : result
}

function nothing(): void {}

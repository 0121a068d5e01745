/** The turns of one store in this process: who runs, who joins whom, and how they come to an end when the store is closed. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import type { EncodedRecord, TurnPort } from '../backend.js'
import { type Clock, systemClock } from '../clock.js'
import { StoreError } from '../errors.js'
import type { AppendOptions, TailOptions, TranscriptRecord, TurnResult, TurnStatus, TurnsOptions, WhenBusy } from '../types.js'
import type { ActiveTurn } from './active-turn.js'
import { Lanes } from './lanes.js'
import type { VisitTools, Work } from './round.js'
import { Visit } from './visit.js'

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
  checkTail(count: unknown, options: TailOptions | undefined): TailOptions
}

const turnChannel = channel('holdfast:turn')
/** How long an aborted turn may take to settle when the store is closed. */
const settleMs = 5_000

export class Turns {
  #port: TurnPort
  #tools: VisitTools
  #lanes: Lanes
  /** Requests that the caller has named, while they are served here: whoever comes with the same one joins. */
  #serving = new Map<string, Served>()
  #visits = new Map<Visit<unknown>, Promise<unknown>>()
  #active = new Map<string, ActiveTurn>()
  #background = new Set<Promise<void>>()
  #inside = new AsyncLocalStorage<ActiveTurn>()
  #stopping = false

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
      stopping: () => this.#stopping,
      interrupt: (key, by) => this.#interrupt(key, by),
      background: (work) => {
        this.#background.add(work)
        void work.finally(() => this.#background.delete(work))
      },
    }
  }

  async run<R>(key: string, turn: CheckedTurn, work: Work<R>): Promise<TurnResult<R>> {
    const { requestId, channelId, lane, whenBusy, signal } = turn
    this.#lanes.assertLane(lane)
    signal?.throwIfAborted()
    const name = requestId === undefined ? undefined : JSON.stringify([key, requestId])
    const inside = this.#inside.getStore()
    if (whenBusy === 'queue' || whenBusy === 'interrupt' || this.#serving.has(name ?? '')) assertOutside(inside, key)
    for (let serving = this.#serving.get(name ?? ''); serving; serving = this.#serving.get(name ?? '')) {
      const joined = await this.#join(key, serving, turn)
      if (joined) return joined as TurnResult<R>
    }
    const request = { requestId: requestId ?? this.#tools.freshId(), given: requestId !== undefined, channelId, lane, whenBusy }
    const mayWait = (forWhat: 'key' | 'lane') =>
      forWhat === 'key' ? assertOutside(inside, key) : assertRoom(inside, lane, this.#lanes.slotsOf(lane))
    const visit = new Visit(key, { ...turn, request, mayWait }, work, this.#tools)
    const served = visit.serve()
    this.#visits.set(visit, served)
    if (name !== undefined) this.#serving.set(name, { served, signal })
    try {
      return await served
    } finally {
      this.#visits.delete(visit)
      if (name !== undefined) this.#serving.delete(name)
    }
  }

  /** The same request, once more, while the first one is served: its result, or its error; undefined when its caller has given up, and this
   *  one has to see to it himself. */
  async #join(key: string, { served, signal }: Served, turn: CheckedTurn): Promise<TurnResult<unknown> | undefined> {
    const over = new AbortController()
    const { promise: stop, end } = stopping(turn.signal)
    let gaveUp = false
    const first = served.catch((error: unknown) => {
      gaveUp = signal?.aborted === true
      throw error
    })
    const late = this.#tools.clock.sleep(turn.waitMs, over.signal).then((): never | undefined => {
      if (over.signal.aborted) return undefined
      throw waitedInVain(key, turn)
    })
    late.catch(nothing)
    try {
      return asDuplicate((await Promise.race([first, stop, late])) as TurnResult<unknown>)
    } catch (error) {
      if (gaveUp && !turn.signal?.aborted) return undefined
      throw error
    } finally {
      over.abort(null)
      end()
    }
  }

  list(options: TurnsOptions): Promise<TurnStatus[]> {
    return this.#port.list(options)
  }

  interrupt(key: string): Promise<boolean> {
    return this.#interrupt(key, 'a call of interrupt')
  }

  /** One of ours that has been told to stop may have been overtaken, and the one that is active may be another's. */
  async #interrupt(key: string, by: string): Promise<boolean> {
    const here = this.#active.get(key)
    if (!here?.hears) return this.#port.interrupt(key, by)
    here.interrupt(by)
    return true
  }

  /** Refuses new ones and all that wait, waits for the active ones; then aborts them, and waits for them to settle.
   *  @throws TURN_BUSY  naming those that still run. */
  async close(waitMs: number): Promise<void> {
    for (const visit of this.#visits.keys()) visit.refuse(closedError())
    const inside = await this.#lanes.close(waitMs)
    if (inside.length > 0) {
      const reason = new StoreError('STORE_CLOSED', 'the store is being closed.', { hint: 'What the turn has appended stands.' })
      this.#stopping = true
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
    await Promise.all([...this.#background, ...this.#visits.values()].map((work) => work.then(nothing, nothing)))
  }
}

interface Served {
  readonly served: Promise<TurnResult<unknown>>
  /** Of its caller. */
  readonly signal: AbortSignal | undefined
}

/** A turn that waits for a turn of its own key waits for itself (F5, F38). */
function assertOutside(inside: ActiveTurn | undefined, key: string): void {
  for (let turn = inside; turn; turn = turn.outer) {
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

/** One that waits for a slot, inside turns that hold every slot there is, waits for itself, too. */
function assertRoom(inside: ActiveTurn | undefined, lane: string, slots: number): void {
  let held = 0
  for (let turn = inside; turn; turn = turn.outer) if (turn.lane === lane && !turn.isOver) held++
  if (held < slots) return
  throw new StoreError(
    'LANE_FULL',
    `runTurn was called from inside ${held} turns of the lane ${lane}, which has ${slots} slots, and would wait for itself.`,
    {
      retryable: false,
      details: { lane, slots },
      hint: "Its function was not run. Give turns that run inside others a lane of their own (the option `lane`, the store's option `lanes`).",
    },
  )
}

function closedError(): StoreError {
  return new StoreError('STORE_CLOSED', 'the store has been closed.', { hint: 'Its function was not run. Open the store again.' })
}

function waitedInVain(key: string, { requestId, waitMs }: CheckedTurn): StoreError {
  return new StoreError('TURN_BUSY', `waited ${waitMs} ms for request ${requestId} of ${JSON.stringify(key)}, which is being served.`, {
    details: { key, requestId, waitMs },
    hint: 'Its function was not run for this call. Ask again with the same requestId, or wait longer.',
  })
}

/** Rejects with the signal's reason; `end` stops listening. */
function stopping(signal: AbortSignal | undefined): { promise: Promise<never>; end(): void } {
  let end = nothing
  const promise = new Promise<never>((_, reject) => {
    const onAbort = () => reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    end = () => signal?.removeEventListener('abort', onAbort)
  })
  promise.catch(nothing)
  return { promise, end: () => end() }
}

function asDuplicate<R>(result: TurnResult<R>): TurnResult<R> {
  return result.outcome === 'completed' ? { ...result, outcome: 'duplicate' } : result
}

function nothing(): void {}

/** A request's place in the line of its key among all processes, and the way from there to the lease. */
import type { LeaseEvents, LeaseHolder, Place, RequestFacts, TurnLease } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'
import type { Host } from '../host.js'
import type { Leases } from '../lock/lease.js'
import { type Board, type Card, leaseNameOf } from './board.js'
import { KeyLease, type LeaseTools } from './turn-lease.js'

const sleepMsMin = 1
const sleepMsMax = 50

export class KeyPlace implements Place {
  #host: Host
  #leases: Leases
  #board: Board
  #card: Card
  #request: RequestFacts
  #name: string
  #tools: LeaseTools

  constructor(host: Host, leases: Leases, board: Board, card: Card, request: RequestFacts, tools: LeaseTools) {
    this.#host = host
    this.#leases = leases
    this.#board = board
    this.#card = card
    this.#request = request
    this.#name = leaseNameOf(card.key)
    this.#tools = tools
  }

  async tryLease(maxTurnMs: number, events: LeaseEvents): Promise<TurnLease | undefined> {
    return this.#board.ahead(this.#card) > 0 ? undefined : this.#take(maxTurnMs, events)
  }

  async #take(maxTurnMs: number, events: LeaseEvents): Promise<TurnLease | undefined> {
    const { requestId, channelId } = this.#request
    const { key } = this.#card
    const { lease } = await this.#leases.tryAcquire(this.#name, {
      maxHoldMs: maxTurnMs,
      does: 'turn',
      about: { key, requestId, channelId },
      onLost: (reason) => events.onLost(lostTurn(key, requestId, reason)),
      onExpired: () => events.onExpired(),
    })
    if (!lease) return undefined
    return new KeyLease(this.#tools, lease, this.#card, this.#board, events)
  }

  async lease(maxTurnMs: number, events: LeaseEvents, { signal, waitMs }: WaitOptions & { waitMs: number }): Promise<TurnLease> {
    const { clock } = this.#host
    const deadlineMs = clock.monotonicMs() + waitMs
    let freeSinceMs: number | undefined
    let wake = new AbortController()
    const onWake = () => wake.abort(null)
    const stopWatching = this.#board.watchCard(this.#card, onWake)
    signal?.addEventListener('abort', onWake, { once: true })
    try {
      for (let sleepMs = sleepMsMin; ; sleepMs = Math.min(sleepMsMax, sleepMs * 2)) {
        signal?.throwIfAborted()
        const nowMs = clock.monotonicMs()
        freeSinceMs = this.holder() ? undefined : (freeSinceMs ?? nowMs)
        if (freeSinceMs !== undefined) {
          const lease = this.#board.mayTry(this.#card, nowMs - freeSinceMs) ? await this.#take(maxTurnMs, events) : undefined
          if (lease) return lease
        }
        if (nowMs >= deadlineMs) throw this.#late(waitMs)
        await clock.sleep(Math.min(sleepMs, deadlineMs - nowMs), wake.signal)
        if (wake.signal.aborted) {
          wake = new AbortController()
          sleepMs = sleepMsMin
        }
      }
    } finally {
      stopWatching()
      signal?.removeEventListener('abort', onWake)
    }
  }

  holder(): LeaseHolder | undefined {
    const holder = this.#leases.look(this.#name)
    if (holder === 'free' || holder.verdict === 'dead' || holder.verdict === 'expired') return undefined
    const active = this.#board.list(this.#card.key).find((card) => card.state === 'active' && card.holder?.pid === holder.pid)
    const { pid, host, verdict, why, heldMs, maxHoldMs, token } = holder
    return { pid, host, verdict, why, heldMs, maxHoldMs, token, requestId: active?.requestId, turn: active?.turn }
  }

  isElsewhere(): boolean {
    const { requestId } = this.#request
    return this.#board.list(this.#card.key).filter((card) => card.requestId === requestId && card.state !== 'interrupted').length > 1
  }

  othersWait(): boolean {
    return this.#board
      .list(this.#card.key)
      .some(({ state, requestId, holder }) => state === 'queued' && requestId !== this.#request.requestId && holder?.verdict !== 'dead')
  }

  leave(): void {
    this.#card.remove()
  }

  #late(waitMs: number): StoreError {
    const { key } = this.#card
    const holder = this.holder()
    const who = holder
      ? `held by pid ${holder.pid} (${holder.verdict})${holder.heldMs === undefined ? '' : `, without progress for ${Math.round(holder.heldMs)} ms of ${holder.maxHoldMs}`}`
      : `${this.#board.ahead(this.#card)} are ahead`
    const request = holder?.requestId === undefined ? '' : `, turn ${holder.turn}, request ${holder.requestId}`
    const retryAfterMs = 1_000
    return new StoreError('TURN_BUSY', `waited ${Math.round(waitMs)} ms for the conversation ${JSON.stringify(key)}; ${who}${request}.`, {
      details: { key, waitMs, holder, retryAfterMs },
      hint: 'Its function was not run. Try again, wait longer, or interrupt the turn; `holdfast turns` shows who is active.',
    })
  }
}

function lostTurn(key: string, requestId: string, reason: StoreError): StoreError {
  return new StoreError('TURN_LOST', `the turn of request ${requestId} on ${JSON.stringify(key)} has lost its lease.`, {
    details: { ...reason.details, key, requestId },
    cause: reason,
    hint: 'What it has appended stands, and nothing more will be added. Stop working on it.',
  })
}

/** A request's place in the line of its key among all processes, and the way from there to the lease. */
import type { LeaseEvents, LeaseHolder, Place, RequestFacts, TurnLease } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'
import type { Host } from '../host.js'
import type { LeaseOptions, Leases } from '../lock/lease.js'
import { type Board, type Card, leaseNameOf } from './board.js'
import { KeyLease, type LeaseTools } from './turn-lease.js'
import { leaseInTurn } from './waiting.js'

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
    if (!this.#board.mayTry(this.#card, 0)) return undefined
    const { lease } = await this.#leases.tryAcquire(this.#name, this.#leaseOptions(maxTurnMs, events))
    return lease && new KeyLease(this.#tools, lease, this.#card, this.#board, events)
  }

  async lease(maxTurnMs: number, events: LeaseEvents, patience: WaitOptions & { waitMs: number }): Promise<TurnLease> {
    this.show()
    const line = { clock: this.#host.clock, board: this.#board, leases: this.#leases }
    const { lease } = await leaseInTurn(line, this.#card, this.#leaseOptions(maxTurnMs, events), patience)
    return new KeyLease(this.#tools, lease, this.#card, this.#board, events)
  }

  #leaseOptions(maxTurnMs: number, events: LeaseEvents): LeaseOptions {
    const { requestId, channelId } = this.#request
    const { key } = this.#card
    return {
      maxHoldMs: maxTurnMs,
      does: 'turn',
      about: { key, requestId, channelId },
      onLost: (reason) => events.onLost(lostTurn(key, requestId, reason)),
      onExpired: () => events.onExpired(),
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
    const cards = this.#board.list(this.#card.key).filter((card) => card.requestId === requestId && card.state !== 'interrupted')
    return cards.length > (this.#card.path ? 1 : 0)
  }

  othersWait(): boolean {
    return this.#board
      .list(this.#card.key)
      .some(({ state, requestId, holder }) => state === 'queued' && requestId !== this.#request.requestId && holder?.verdict !== 'dead')
  }

  show(): void {
    this.#card.show()
  }

  leave(): void {
    this.#card.remove()
  }
}

function lostTurn(key: string, requestId: string, reason: StoreError): StoreError {
  return new StoreError('TURN_LOST', `the turn of request ${requestId} on ${JSON.stringify(key)} has lost its lease.`, {
    details: { ...reason.details, key, requestId },
    cause: reason,
    hint: 'What it has appended stands, and nothing more will be added. Stop working on it.',
  })
}

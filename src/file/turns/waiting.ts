/** Waiting for a key's lease, in the order of the board: look, try if it is this card's turn, sleep until something may have changed.
 *
 *  A holder that died, or makes no progress for its time, counts as gone at the first look. What wakes a waiter is a hint; behind it stands
 *  the board's timer, so a hint that is lost costs 50 ms. */
import type { Clock } from '../../clock.js'
import { StoreError } from '../../errors.js'
import type { Acquired, LeaseHolder, LeaseOptions, Leases } from '../lock/lease.js'
import { type Board, type Card, leaseNameOf } from './board.js'

export interface InLine {
  readonly clock: Clock
  readonly board: Board
  readonly leases: Leases
}

export interface Patience {
  /** 0: now or not at all, whoever else waits. */
  readonly waitMs: number
  readonly signal?: AbortSignal | undefined
}

/** How soon one that may not try yet looks again at a lease that is free. */
const politeMs = 10

/** Resolves with the lease. The card stands until its owner removes it, also after a refusal.
 *  @throws TURN_BUSY  effect none: not to be had for `waitMs`; details name the holder · the signal's reason */
export async function leaseInTurn(
  { clock, board, leases }: InLine,
  card: Card,
  options: LeaseOptions,
  patience: Patience,
): Promise<Acquired> {
  const { waitMs, signal } = patience
  const name = leaseNameOf(card.key)
  const deadlineMs = clock.monotonicMs() + waitMs
  let wake = new AbortController()
  // A reason of our own: without one, every wake-up makes an exception with its stack.
  const onWake = () => wake.abort(null)
  let unwatch: (() => void) | undefined
  signal?.addEventListener('abort', onWake, { once: true })
  let freeSinceMs: number | undefined
  try {
    for (;;) {
      if (signal?.aborted) throw signal.reason
      const nowMs = clock.monotonicMs()
      let holder = leases.look(name)
      freeSinceMs = isGone(holder) ? (freeSinceMs ?? nowMs) : undefined
      if (freeSinceMs !== undefined && (waitMs <= 0 || board.mayTry(card, nowMs - freeSinceMs))) {
        const result = await leases.tryAcquire(name, options)
        if (result.lease && !signal?.aborted) return result
        await result.lease?.release()
        if (signal?.aborted) throw signal.reason
        // Somebody was faster; who stands in line is asked anew.
        freeSinceMs = undefined
        holder = leases.look(name)
      }
      const leftMs = deadlineMs - clock.monotonicMs()
      if (leftMs <= 0) throw busy(card, holder, waitMs, board)
      if (!unwatch) {
        // What happened between the first look and the watch is seen at once, by another look.
        unwatch = board.watchCard(card, onWake)
        continue
      }
      await clock.sleep(freeSinceMs === undefined ? leftMs : Math.min(leftMs, politeMs), wake.signal)
      if (wake.signal.aborted) wake = new AbortController()
    }
  } finally {
    unwatch?.()
    signal?.removeEventListener('abort', onWake)
  }
}

function isGone(holder: 'free' | LeaseHolder): boolean {
  return holder === 'free' || holder.verdict === 'dead' || holder.verdict === 'expired'
}

const retryMsMin = 250
const retryMsMax = 60_000

function busy(card: Card, holder: 'free' | LeaseHolder, waitMs: number, board: Board): StoreError {
  const { key } = card
  const waitingBefore = board.ahead(card)
  const active = board.list(key).find(({ state }) => state === 'active')
  const heldMs = holder === 'free' ? undefined : holder.heldMs
  const retryAfterMs = Math.min(retryMsMax, Math.max(retryMsMin, heldMs ?? 0))
  const who =
    holder === 'free'
      ? 'it changed hands all the time'
      : `pid ${holder.pid} on ${holder.host} has it (${holder.verdict}: ${holder.why}), last progress ${heldMs === undefined ? 'unknown' : `${Math.round(heldMs)} ms ago`}${active ? `, turn ${active.turn}, request ${active.requestId}` : ''}`
  return new StoreError(
    'TURN_BUSY',
    `waited ${Math.round(waitMs)} ms for the turn of ${JSON.stringify(key)}; ${who}; ${waitingBefore} wait before this one.`,
    {
      details: {
        key,
        waitMs,
        holder: holder === 'free' ? undefined : holder,
        turn: active?.turn,
        requestId: active?.requestId,
        waitingBefore,
        retryAfterMs,
      },
      hint: `Its function was not run. Try again in ${retryAfterMs} ms, wait longer, or interrupt the turn; \`holdfast turns\` shows who is active.`,
    },
  )
}

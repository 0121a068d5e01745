/** What people are told about who holds a lock. */
import { StoreError } from '../../errors.js'
import type { LockHolder } from '../../types.js'
import type { Host } from '../host.js'
import type { Holder, Verdict } from './staleness.js'

export function describeHolder(holder: Holder, verdict: Verdict, { clock, identity }: Host): LockHolder {
  const sameClock = holder.boot === identity.boot && holder.boot !== '0'
  return {
    pid: holder.pid,
    host: holder.host,
    does: holder.does,
    heldMs: sameClock ? Math.max(0, Math.round(clock.monotonicMs() - holder.acquiredAtMs)) : undefined,
    maxHoldMs: holder.maxHoldMs,
    verdict: verdict.kind,
    why: verdict.why,
  }
}

/** @param holder  undefined when somebody of this very process holds it. */
export function lockTimeout(label: string, waitMs: number, holder: LockHolder | undefined): StoreError {
  const who = holder
    ? `held by pid ${holder.pid} on ${holder.host} (${holder.verdict}: ${holder.why})${holder.heldMs === undefined ? '' : ` for ${holder.heldMs} ms`}, doing: ${holder.does}`
    : 'held within this process'
  return new StoreError('LOCK_TIMEOUT', `waited ${waitMs} ms for ${label}; ${who}.`, {
    details: { lock: label, waitMs, holder },
    hint: 'Nothing was written. Try again, or run `holdfast locks` to look at the holder.',
  })
}

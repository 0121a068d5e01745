/** What people are told about who holds a lock. */
import { StoreError } from '../../errors.js'
import type { LockHolder, LockStatus } from '../../types.js'
import type { Host } from '../host.js'
import { channels } from '../stats.js'
import { parseEntry } from './holder.js'
import type { HeldEntry } from './observer.js'
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

/** @param names  what stands in the lock's directory; undefined where there is none */
export function lockStatus(
  lock: string,
  names: readonly string[] | undefined,
  waiting: number,
  judge: (entry: HeldEntry) => Verdict,
  host: Host,
): LockStatus {
  const base = { lock, waiting, entry: names?.[0], fencingToken: undefined, holder: undefined }
  if (!names || names.length === 0) return { ...base, state: 'absent' }
  const entry = parseEntry(names[0]!)
  if (!entry || names.length > 1) return { ...base, state: 'foreign' }
  if (entry.state === 'free') return { ...base, state: 'free', fencingToken: entry.n }
  return { ...base, state: 'held', fencingToken: entry.n, holder: describeHolder(entry.holder, judge(entry), host) }
}

export function publishTakeover(lock: string, from: LockHolder, token: number, about: object | undefined): void {
  if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'takeover', lock, from, token, ...about })
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

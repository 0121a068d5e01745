/** Is the holder of a lock still there? A pure function of the holder, the observer and the clocks. A wrong verdict costs somebody a
 *  retry, never data (P3): the log, not the lock, decides what is committed. */

/** Who somebody is, as far as another process can check it. */
export interface Identity {
  /** Of this boot of the kernel; `0` where the system has none. */
  readonly boot: string
  /** Of the machine across boots; `0` where unknown. */
  readonly machine: string
  /** Of the pid namespace; pids of another one must never be probed. */
  readonly pidNamespace: string
  readonly pid: number
  /** When the process started, in the system's own unit; `0` where unknown. */
  readonly startTime: string
  readonly host: string
}

/** What an entry name says about its holder. */
export interface Holder extends Identity {
  /** Monotonic clock of the holder's boot, ms. */
  readonly acquiredAtMs: number
  readonly maxHoldMs: number
  /** What it is doing, one word. */
  readonly does: string
  readonly nonce: string
}

/** `state` is the kernel's letter for the process; a zombie is as dead as one that is gone. */
export type ProcessProbe =
  | { readonly exists: false }
  | { readonly exists: true; readonly startTime: string | undefined; readonly zombie: boolean }

export interface Observation {
  readonly observer: Identity
  readonly nowMs: number
  /** Since when this observer has itself seen this very entry name; its own monotonic clock. */
  readonly firstSeenAtMs: number
  /** Only asked when the pid may be probed. */
  readonly probe: (pid: number) => ProcessProbe
}

export type Verdict =
  | { readonly kind: 'alive'; readonly why: string }
  | { readonly kind: 'unknown'; readonly why: string }
  | { readonly kind: 'dead'; readonly why: string }
  | { readonly kind: 'expired'; readonly why: string }

export function judge(holder: Holder, seen: Observation): Verdict {
  const { observer, nowMs } = seen
  const watchedMs = nowMs - seen.firstSeenAtMs
  if (holder.boot !== observer.boot || holder.boot === '0') {
    if (holder.boot !== observer.boot && holder.machine === observer.machine && holder.machine !== '0')
      return { kind: 'dead', why: 'the machine has been started anew since' }
    return watched(holder, watchedMs, 'another machine')
  }
  if (holder.pidNamespace !== observer.pidNamespace) return watched(holder, watchedMs, 'another pid namespace')

  const probe = seen.probe(holder.pid)
  if (!probe.exists) return { kind: 'dead', why: `no process ${holder.pid}` }
  if (probe.zombie) return { kind: 'dead', why: `process ${holder.pid} has ended and waits to be reaped` }
  if (probe.startTime !== undefined && holder.startTime !== '0' && probe.startTime !== holder.startTime)
    return { kind: 'dead', why: `pid ${holder.pid} now belongs to another process` }
  const heldMs = nowMs - holder.acquiredAtMs
  if (heldMs > holder.maxHoldMs)
    return { kind: 'expired', why: `held for ${Math.round(heldMs)} ms, longer than its maxHoldMs ${holder.maxHoldMs}` }
  return { kind: 'alive', why: `process ${holder.pid} exists` }
}

/** Of a holder whose pid means nothing here, only our own watching tells. */
function watched(holder: Holder, watchedMs: number, where: string): Verdict {
  if (watchedMs > holder.maxHoldMs)
    return {
      kind: 'expired',
      why: `on ${where}; unchanged for ${Math.round(watchedMs)} ms here, longer than its maxHoldMs ${holder.maxHoldMs}`,
    }
  return { kind: 'unknown', why: `on ${where}; its pid cannot be probed from here` }
}

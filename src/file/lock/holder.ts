/** The name of a lock's one entry is the lock's state. This is the only file that writes or reads such names.
 *
 *      free.<n>
 *      held.<n>.<boot>.<machine>.<pid namespace>.<pid>.<start time>.<acquired ms>.<maxHoldMs>.<does>.<host>.<nonce>
 *
 *      new-<boot>.<machine>.<pid namespace>.<pid>.<start time>.<nonce>      beside it: in the making
 *
 *  n, the fencing token, grows by one with every change of hands. Names are compared whole, never by n alone. */
import type { Holder, Identity } from './staleness.js'

export type Entry =
  | { readonly state: 'free'; readonly name: string; readonly n: number }
  | { readonly state: 'held'; readonly name: string; readonly n: number; readonly holder: Holder }

const heldPattern =
  /^held\.(\d{1,16})\.([0-9a-f]+)\.([0-9a-f]+)\.(\d+)\.(\d+)\.([0-9a-f]+)\.(\d+)\.(\d+)\.([a-z-]+)\.([A-Za-z0-9-]+)\.([0-9a-f]+)$/
const freePattern = /^free\.(\d{1,16})$/

export function freeName(n: number): string {
  return `free.${n}`
}

/** The part of a held name that stays the same for all acquisitions of one handle. */
export function holderPrefix(identity: Identity): string {
  return `${identity.boot}.${identity.machine}.${identity.pidNamespace}.${identity.pid}.${identity.startTime}`
}

export function heldName(
  n: number,
  prefix: string,
  acquiredAtMs: number,
  maxHoldMs: number,
  does: string,
  host: string,
  nonce: string,
): string {
  return `held.${n}.${prefix}.${Math.floor(acquiredAtMs)}.${maxHoldMs}.${does}.${host}.${nonce}`
}

/** What is just being made is named after its maker, so that others can tell when it will never be finished. */
export function makerName(identity: Identity, nonce: string): string {
  return `new-${holderPrefix(identity)}.${nonce}`
}

export function parseMaker(name: string): Holder | undefined {
  const parts = /^new-(.+)\.([0-9a-f]+)$/.exec(name)
  const entry = parts && parseEntry(`held.0.${parts[1]}.0.0.new.unknown.${parts[2]}`)
  return entry?.state === 'held' ? entry.holder : undefined
}

/** undefined for a name that no version of this library writes. */
export function parseEntry(name: string): Entry | undefined {
  const free = freePattern.exec(name)
  if (free) return { state: 'free', name, n: Number(free[1]) }
  const held = heldPattern.exec(name)
  if (!held) return undefined
  return {
    state: 'held',
    name,
    n: Number(held[1]),
    holder: {
      boot: held[2]!,
      machine: held[3]!,
      pidNamespace: held[4]!,
      pid: Number(held[5]),
      startTime: held[6]!,
      acquiredAtMs: Number(held[7]),
      maxHoldMs: Number(held[8]),
      does: held[9]!,
      host: held[10]!,
      nonce: held[11]!,
    },
  }
}

/** A machine for tests that need one from start to end: a simulated (or real, or failing) disk, a clock that stands still unless somebody
 *  sleeps, and processes that are alive until the test says otherwise. */
import { createHash } from 'node:crypto'
import type { Clock } from '../../src/clock.js'
import type { Disk } from '../../src/file/durable.js'
import type { Host } from '../../src/file/host.js'
import type { Identity } from '../../src/file/lock/staleness.js'

export function simulatedIdentity(pid: number, boot = 'b0000001'): Identity {
  return { boot, machine: 'a0000001', pidNamespace: '1', pid, startTime: String(pid), host: 'simulated' }
}

/** Digits that look random, and are the same for the same process and count. */
export function simulatedNonce(pid: number, count: number, digits: number, boot = 'b0000001'): string {
  return createHash('sha512').update(`${boot} ${pid} ${count}`).digest('hex').slice(0, digits)
}

export function simulatedMint(pid: number, count: number, boot = 'b0000001'): string {
  const random = simulatedNonce(pid, count, 15, `id ${boot}`)
  return `018bcfe5-6800-7${random.slice(0, 3)}-8${random.slice(3, 6)}-${String(pid).padStart(6, '0').slice(-6)}${random.slice(9, 15)}`
}

export interface HostSettings {
  readonly pid?: number
  readonly boot?: string
  readonly alive?: (pid: number) => boolean
}

export function simulatedHost(disk: Disk, { pid = 1, boot = 'b0000001', alive = () => false }: HostSettings = {}): Host {
  let count = 0
  return {
    disk,
    clock: simulatedClock(),
    identity: simulatedIdentity(pid, boot),
    probe: (other) => (other === pid || alive(other) ? { exists: true, startTime: String(other), zombie: false } : { exists: false }),
    nonce: (digits) => simulatedNonce(pid, count++, digits, boot),
    mintId: () => simulatedMint(pid, count++, boot),
    watch: () => () => {},
  }
}

/** How many turns of the event loop nobody must ask for the time before everybody counts as asleep. */
const idleTurns = 40

/** Time passes only while everybody sleeps, and then at once to the moment when the first one wakes. */
export function simulatedClock(startMs = 1_000_000): Clock {
  let nowMs = startMs
  let asked = 0
  let passing = false
  const sleepers: { untilMs: number; wake: () => void }[] = []
  const time = () => {
    asked++
    return nowMs
  }
  const pass = async () => {
    passing = true
    while (sleepers.length > 0) {
      for (let turn = 0, before = asked; turn < idleTurns; turn++) {
        await new Promise((resolve) => setImmediate(resolve))
        if (asked !== before) turn = 0
        before = asked
      }
      const next = sleepers.sort((a, b) => a.untilMs - b.untilMs).shift()
      nowMs = Math.max(nowMs, next?.untilMs ?? 0)
      next?.wake()
    }
    passing = false
  }
  return {
    monotonicMs: time,
    wallMs: () => 1_700_000_000_000 + time(),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) return resolve()
        const sleeper = { untilMs: time() + ms, wake: resolve }
        sleepers.push(sleeper)
        signal?.addEventListener('abort', () => {
          const at = sleepers.indexOf(sleeper)
          if (at >= 0) sleepers.splice(at, 1)
          resolve()
        })
        if (!passing) void pass()
      }),
    nap(ms) {
      nowMs += ms
    },
  }
}

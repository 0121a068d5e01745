/** What the embedded backend needs from the machine, in one place, so that a test can be the machine. */
import { randomFillSync } from 'node:crypto'
import fs from 'node:fs'
import { uuidv7 } from 'uuidv7'
import { type Clock, systemClock } from '../clock.js'
import { type Disk, nodeDisk } from './durable.js'
import { probeProcess, readIdentity } from './lock/identity.js'
import type { Identity, ProcessProbe } from './lock/staleness.js'

export interface Host {
  readonly disk: Disk
  readonly clock: Clock
  readonly identity: Identity
  /** What can be learned about a process of this pid namespace. */
  probe(pid: number): ProcessProbe
  /** Fresh random hex digits. */
  nonce(digits: number): string
  /** Room for bytes that are written at once and not kept: the next call gets the same. undefined for more than is worth keeping. */
  scratch?(bytes: number): Buffer | undefined
  /** The event loop has not turned for some milliseconds: timers and sockets wait. */
  overdue?(): boolean
  /** A fresh session id (UUIDv7). */
  mintId(): string
  /** Calls back when something in the directory may have changed; a hint, often late, sometimes never. Returns the way to stop it. */
  watch(directory: string, changed: () => void): () => void
  /** Does work after `ms` if the process still lives then; it is not kept alive for it. Returns the way to call it off. */
  later?(ms: number, work: () => void): () => void
}

const scratchBytesMax = 1 << 20
const turnMsMax = 8

export function systemHost(): Host {
  const pool = Buffer.alloc(4096)
  let used = pool.length
  let scratch = Buffer.alloc(0)
  let turningSinceMs = 0
  return {
    disk: nodeDisk,
    clock: systemClock,
    identity: readIdentity(),
    probe: probeProcess,
    nonce(digits) {
      const bytes = (digits + 1) >> 1
      if (used + bytes > pool.length) {
        randomFillSync(pool)
        used = 0
      }
      used += bytes
      return pool.toString('hex', used - bytes, used).slice(0, digits)
    },
    scratch(bytes) {
      if (bytes > scratchBytesMax) return undefined
      if (bytes > scratch.length) scratch = Buffer.alloc(Math.min(scratchBytesMax, Math.max(16_384, bytes * 2)))
      return scratch
    },
    overdue() {
      const nowMs = performance.now()
      if (turningSinceMs > 0) return nowMs - turningSinceMs > turnMsMax
      turningSinceMs = nowMs
      setImmediate(() => {
        turningSinceMs = 0
      })
      return false
    },
    mintId: uuidv7,
    later(ms, work) {
      const timer = setTimeout(work, ms)
      timer.unref()
      return () => clearTimeout(timer)
    },
    watch(directory, changed) {
      try {
        const watcher = fs.watch(directory, { persistent: false }, changed)
        watcher.on('error', () => watcher.close())
        return () => watcher.close()
      } catch {
        return () => {} // No watching here (too many watchers, no inotify): the timer behind it does the work.
      }
    },
  }
}

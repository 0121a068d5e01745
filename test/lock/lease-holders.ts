/** A directory of leases on the real disk, and as many who want one as a test needs. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'
import type { StoreError } from '../../src/errors.js'
import { type Host, systemHost } from '../../src/file/host.js'
import { heldName, holderPrefix, parseEntry } from '../../src/file/lock/holder.js'
import { type Lease, type LeaseOptions, Leases } from '../../src/file/lock/lease.js'
import type { Holder } from '../../src/file/lock/staleness.js'
import { type Counters, newCounters } from '../../src/file/stats.js'

export interface Told {
  readonly lost: StoreError[]
  readonly expired: StoreError[]
}

export class Wanting {
  readonly leases: Leases
  readonly counters: Counters = newCounters()
  readonly host: Host

  /** @param idleMs  0: its locks are removed as soon as they are free */
  constructor(directory: string, changes: Partial<Host> = {}, idleMs = 0) {
    this.host = { ...systemHost(), ...changes }
    this.leases = new Leases(this.host, directory, { counters: this.counters, label: 'turns', idleMs })
  }

  async try(name = 'k', options: Partial<LeaseOptions> = {}) {
    const told: Told = { lost: [], expired: [] }
    const onLost = (reason: StoreError) => void told.lost.push(reason)
    const onExpired = (reason: StoreError) => void told.expired.push(reason)
    const result = await this.leases.tryAcquire(name, { maxHoldMs: 15_000, does: 'turn', onLost, onExpired, ...options })
    const { lease } = result
    if (lease) onTestFinished(() => lease.release().catch(() => {}))
    return { ...result, told }
  }

  /** For when it must succeed. */
  async take(name?: string, options?: Partial<LeaseOptions>): Promise<Lease & { readonly told: Told }> {
    const { lease, told } = await this.try(name, options)
    if (!lease) throw new Error('the lease is not to be had')
    return Object.assign(lease, { told })
  }
}

export class LeaseDirectory {
  readonly path: string

  constructor() {
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-lease-'))
    this.path = path.join(root, 'turns')
    onTestFinished(() => fs.rmSync(root, { recursive: true, force: true }))
  }

  wanting(changes: Partial<Host> = {}, idleMs = 0): Wanting {
    return new Wanting(this.path, changes, idleMs)
  }

  /** Everything but the floor. */
  left(): string[] {
    return fs.existsSync(this.path) ? fs.readdirSync(this.path).filter((name) => name !== '.floor') : []
  }

  entries(name = 'k'): string[] {
    const lock = path.join(this.path, name)
    return fs.existsSync(lock) ? fs.readdirSync(lock) : []
  }

  /** The one entry that there must be. */
  entry(name = 'k') {
    const [entry, ...more] = this.entries(name).map(parseEntry)
    if (!entry || more.length > 0) throw new Error(`not one entry, but ${this.entries(name).join(', ') || 'none'}`)
    return entry
  }

  holder(name = 'k'): Holder {
    const entry = this.entry(name)
    if (entry.state !== 'held') throw new Error(`not held, but ${entry.name}`)
    return entry.holder
  }

  /** Puts the lease into the hands of somebody made up. */
  heldBy(who: Partial<Holder>, n = 5, name = 'k'): void {
    const { identity, clock } = systemHost()
    const holder = { ...identity, acquiredAtMs: clock.monotonicMs(), maxHoldMs: 15_000, does: 'turn', nonce: 'abcdef', ...who }
    const entry = heldName(n, holderPrefix(holder), holder.acquiredAtMs, holder.maxHoldMs, holder.does, holder.host, holder.nonce)
    fs.rmSync(path.join(this.path, name), { recursive: true, force: true })
    fs.mkdirSync(path.join(this.path, name, entry), { recursive: true })
  }
}

/** A monotonic clock that a test can put forward. */
export function shiftedClock(host: Host = systemHost()) {
  let shiftMs = 0
  return {
    clock: { ...host.clock, monotonicMs: () => host.clock.monotonicMs() + shiftMs },
    pass(ms: number) {
      shiftMs += ms
    },
  }
}

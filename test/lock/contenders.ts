/** A lock directory on the real disk, and as many contenders for it as a test wants. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'
import { nodeDisk } from '../../src/file/durable.js'
import { type Host, systemHost } from '../../src/file/host.js'
import { Baton } from '../../src/file/lock/baton.js'
import { heldName, holderPrefix, parseEntry } from '../../src/file/lock/holder.js'
import type { Holder, Identity } from '../../src/file/lock/staleness.js'
import { type Counters, newCounters } from '../../src/file/stats.js'

export interface Contender {
  readonly baton: Baton
  readonly counters: Counters
  readonly host: Host
}

export class LockDirectory {
  readonly path: string
  readonly #root: string

  constructor() {
    this.#root = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-lock-'))
    this.path = path.join(this.#root, 'lock')
    onTestFinished(() => fs.rmSync(this.#root, { recursive: true, force: true }))
  }

  contender(changes: Partial<Host> = {}, maxHoldMs = 15_000): Contender {
    const counters = newCounters()
    const host = { ...systemHost(), ...changes }
    return { host, counters, baton: new Baton(host, this.path, { maxHoldMs, counters, label: 'the lock' }) }
  }

  entries(): string[] {
    return fs.existsSync(this.path) ? fs.readdirSync(this.path) : []
  }

  /** The one entry that there must be. */
  get entry(): string {
    const names = this.entries()
    if (names.length !== 1) throw new Error(`the lock has ${names.length} entries: ${names.join(', ')}`)
    return names[0]!
  }

  get holder(): Holder | undefined {
    const entry = parseEntry(this.entry)
    return entry?.state === 'held' ? entry.holder : undefined
  }

  /** Puts the lock into the hands of somebody made up. */
  heldBy(who: Partial<Holder>, n = 5): string {
    const name = nameOf(n, who)
    fs.rmSync(this.path, { recursive: true, force: true })
    fs.mkdirSync(path.join(this.path, name), { recursive: true })
    return path.join(this.path, name)
  }

  /** Leaves a ticket in the queue, as a waiter does that never gets to take it back. */
  async ticket(who: Partial<Identity> = {}): Promise<string> {
    const stuck = (name: string, remove: (name: string) => void) => {
      if (!name.includes('.queue/')) remove(name)
    }
    const disk = {
      ...nodeDisk,
      unlink: (name: string) => stuck(name, nodeDisk.unlink),
      rmdir: (name: string) => stuck(name, nodeDisk.rmdir),
    }
    const before = this.tickets()
    await acquireSoon(this.contender({ disk, identity: identityWith(who) }), 5).catch(() => {})
    const [ticket] = this.tickets().filter((name) => !before.includes(name))
    if (!ticket) throw new Error('no ticket was drawn')
    return ticket
  }

  tickets(): string[] {
    return fs.existsSync(`${this.path}.queue`) ? fs.readdirSync(`${this.path}.queue`) : []
  }
}

function nameOf(n: number, who: Partial<Holder>): string {
  const { identity, clock } = systemHost()
  const holder = { ...identity, acquiredAtMs: clock.monotonicMs(), maxHoldMs: 15_000, does: 'commit', nonce: 'abcdef', ...who }
  return heldName(n, holderPrefix(holder), holder.acquiredAtMs, holder.maxHoldMs, holder.does, holder.host, holder.nonce)
}

/** A pid that no process has. */
export const deadPid = 4_194_999

export function identityWith(changes: Partial<Identity>): Identity {
  return { ...systemHost().identity, ...changes }
}

/** A disk that calls back before each rename of a lock's entry. */
export function beforeRename(callback: (from: string) => void): Host['disk'] {
  return {
    ...nodeDisk,
    rename(from, to) {
      callback(from)
      nodeDisk.rename(from, to)
    },
  }
}

export function acquireSoon(contender: Contender, waitMs = 5_000, signal?: AbortSignal) {
  return contender.baton.acquire({ does: 'commit', waitMs, deadlineMs: contender.host.clock.monotonicMs() + waitMs, signal })
}

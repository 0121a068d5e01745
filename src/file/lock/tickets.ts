/** Who waits for a lock, oldest first. A ticket is an empty file beside the lock, named like a holder. Tickets are a courtesy: without
 *  one a waiter only loses its place in line, and nothing that is promised depends on them. */
import { errnoOf } from '../../errors.js'
import { makeDirectories } from '../durable.js'
import type { Host } from '../host.js'
import { heldName, holderPrefix, parseEntry } from './holder.js'
import { type Holder, judge } from './staleness.js'

/** Tickets are given back; one that outlives its process goes when its process is found dead. */
const ticketMs = 3_600_000
/** An offer to one who has died since lapses by itself. */
const probeEveryMs = 20

export class Tickets {
  #host: Host
  #path: string
  #nonce: string
  /** Of whom it is known since when that he lives. */
  #alive = { name: '', atMs: 0 }

  constructor(host: Host, lockPath: string, nonce: string) {
    this.#host = host
    this.#path = `${lockPath}.queue`
    this.#nonce = nonce
  }

  /** The new ticket's path; undefined where none can be made. */
  draw(does: string): string | undefined {
    const { clock, identity } = this.#host
    const nowMs = clock.monotonicMs()
    const name = heldName(Math.floor(nowMs * 1000), holderPrefix(identity), nowMs, ticketMs, does, identity.host, this.#nonce)
    return this.#put(`${this.#path}/${name}`)
  }

  /** An offer that was overslept has cost the ticket, not the place in line. */
  keep(ticket: string): void {
    if (!this.#host.disk.stat(ticket)) this.#put(ticket)
  }

  remove(ticket: string): void {
    const { disk } = this.#host
    try {
      if (disk.stat(ticket)) disk.unlink(ticket)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
  }

  /** Whoever of the others has waited longest and still lives. */
  oldest(nowMs: number): { ticket: string; holder: Holder } | undefined {
    const { identity, probe } = this.#host
    const waiting = this.#names().flatMap((name) => parseEntry(name) ?? [])
    waiting.sort((a, b) => a.n - b.n)
    for (const entry of waiting) {
      if (entry.state !== 'held' || entry.holder.nonce === this.#nonce) continue
      const ticket = `${this.#path}/${entry.name}`
      if (entry.name === this.#alive.name && nowMs - this.#alive.atMs < probeEveryMs) return { ticket, holder: entry.holder }
      const verdict = judge(entry.holder, { observer: identity, nowMs, firstSeenAtMs: nowMs, probe })
      if (verdict.kind !== 'dead') {
        this.#alive = { name: entry.name, atMs: nowMs }
        return { ticket, holder: entry.holder }
      }
      this.remove(ticket)
    }
    return undefined
  }

  get count(): number {
    return this.#names().length
  }

  #names(): string[] {
    const { disk } = this.#host
    try {
      // Asked first: the exception of a listing that fails takes longer than most commits.
      return disk.stat(this.#path) ? disk.readdir(this.#path) : []
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return []
    }
  }

  #put(ticket: string): string | undefined {
    const { disk } = this.#host
    try {
      if (!disk.stat(this.#path)) makeDirectories(disk, this.#path)
      disk.close(disk.open(ticket, 'create'))
      return ticket
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return undefined
    }
  }
}

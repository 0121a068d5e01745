/** The locks that guard transcripts: a fixed number, chosen by session id. A lock is a directory and costs 4 KB on ext4, so there is not one
 *  for each session; it is held for microseconds, so sharing costs nothing. */
import { crc32 } from 'node:zlib'
import type { Host } from '../host.js'
import { Baton } from '../lock/baton.js'
import type { Counters } from '../stats.js'

const slots = 64

export class Slots {
  #host: Host
  #locks: string
  #maxHoldMs: number
  #counters: Counters
  #batons = new Map<number, Baton>()

  constructor(host: Host, locks: string, maxHoldMs: number, counters: Counters) {
    this.#host = host
    this.#locks = locks
    this.#maxHoldMs = maxHoldMs
    this.#counters = counters
  }

  of(sessionId: string): Baton {
    return this.baton(crc32(sessionId) % slots)
  }

  baton(slot: number): Baton {
    let baton = this.#batons.get(slot)
    if (!baton) {
      const label = `transcripts/${String(slot).padStart(2, '0')}`
      baton = new Baton(this.#host, `${this.#locks}/${label}`, { maxHoldMs: this.#maxHoldMs, counters: this.#counters, label })
      this.#batons.set(slot, baton)
    }
    return baton
  }
}

/** What is removed when nobody has used it for a while: making it anew for each use would cost more than leaving it. Removing must be safe at
 *  any moment, and not necessary: whoever ends before it comes to that leaves something behind that others can remove. */
import { errnoOf, isStoreError } from '../errors.js'
import type { Host } from './host.js'

/** Each is a few system calls: no more than that many in one go. */
const atOnceMax = 32
const betweenMs = 5

export class Idle {
  #host: Host
  #afterMs: number
  #remove: (name: string) => void
  /** Since when; in this order. */
  #since = new Map<string, number>()
  #disarm: (() => void) | undefined

  /** @param afterMs  0: at once, as where there is no timer that keeps nobody from ending */
  constructor(host: Host, afterMs: number, remove: (name: string) => void) {
    this.#host = host
    this.#afterMs = host.later ? afterMs : 0
    this.#remove = remove
  }

  /** It has just been used, and is not in use now as far as we know. */
  add(name: string): void {
    if (this.#afterMs <= 0) return this.#try(name)
    this.#since.delete(name)
    this.#since.set(name, this.#host.clock.monotonicMs())
    this.#arm(this.#afterMs)
  }

  /** All of them, now. */
  removeAll(): void {
    this.#disarm?.()
    this.#disarm = undefined
    for (const name of this.#since.keys()) this.#try(name)
    this.#since.clear()
  }

  #arm(ms: number): void {
    this.#disarm ??= this.#host.later?.(Math.ceil(ms), () => this.#removeIdle())
  }

  #removeIdle(): void {
    this.#disarm = undefined
    const nowMs = this.#host.clock.monotonicMs()
    let count = 0
    for (const [name, sinceMs] of this.#since) {
      const leftMs = sinceMs + this.#afterMs - nowMs
      if (leftMs > 0 || count++ >= atOnceMax) return this.#arm(Math.max(leftMs, betweenMs))
      this.#since.delete(name)
      this.#try(name)
    }
  }

  #try(name: string): void {
    try {
      this.#remove(name)
    } catch (error) {
      if (errnoOf(error) === undefined && !isStoreError(error)) throw error
    }
  }
}

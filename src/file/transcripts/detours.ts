/** Calls made one after another on one handle land in that order, whether awaited or not. When one of them has to mint an identity first, or
 *  to bring a closed session to its end, it makes a line for that key, and everybody behind it stands in it. */
import type { Clock } from '../../clock.js'
import { StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'
import { Turnstile } from '../lock/turnstile.js'

export class Detours {
  #clock: Clock
  #waitMs: number
  #lines = new Map<string, Turnstile>()

  constructor(clock: Clock, waitMs: number) {
    this.#clock = clock
    this.#waitMs = waitMs
  }

  /** Whether there is a line to stand in. */
  has(key: string): boolean {
    return this.#lines.size > 0 && this.#lines.has(key)
  }

  /** Resolves when it is our turn; then `leave` must follow. @throws LOCK_TIMEOUT, the signal's reason: then we are out of the line. */
  async enter(key: string, { signal, waitMs = this.#waitMs }: WaitOptions): Promise<void> {
    signal?.throwIfAborted()
    let line = this.#lines.get(key)
    if (!line) {
      line = new Turnstile(this.#clock)
      this.#lines.set(key, line)
    }
    if (line.enter()) return
    await line.wait({ deadlineMs: this.#clock.monotonicMs() + waitMs, signal }, () => late(waitMs))
  }

  leave(key: string): void {
    const line = this.#lines.get(key)
    line?.leave()
    if (line?.idle) this.#lines.delete(key)
  }
}

function late(waitMs: number): StoreError {
  return new StoreError('LOCK_TIMEOUT', `waited ${waitMs} ms for another call of this process that makes or closes the session.`, {
    details: { waitMs },
    hint: 'Nothing was written. Try again, or run `holdfast locks` to look at the holder.',
  })
}

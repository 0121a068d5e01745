/** Calls made one after another on one handle land in that order, whether awaited or not. When one of them has to mint an identity or to
 *  bring a closed session to its end first, that is a detour: those behind it wait, and go on in the order in which they came. */
import type { Clock } from '../../clock.js'
import { StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'

export interface Detour {
  readonly settled: Promise<void>
  done: boolean
  waiting: number
}

const nothing = () => {}

export class Detours {
  #clock: Clock
  #waitMs: number
  #byKey = new Map<string, Detour>()

  constructor(clock: Clock, waitMs: number) {
    this.#clock = clock
    this.#waitMs = waitMs
  }

  get any(): boolean {
    return this.#byKey.size > 0
  }

  has(key: string): boolean {
    return this.#byKey.has(key)
  }

  /** Work on a key that every later call waits for. */
  async run(key: string, work: () => Promise<unknown>): Promise<Detour> {
    const running = work()
    // Whose failure it is, is told; those behind try for themselves.
    const detour: Detour = { settled: running.then(nothing, nothing), done: false, waiting: 0 }
    this.#byKey.set(key, detour)
    try {
      await running
      return detour
    } finally {
      detour.done = true
      this.#leave(key, detour)
    }
  }

  /** Waits behind the detours of a key, but for one's `own`. A detour stays in the way until the last of those who waited for it has gone
   *  on: nobody overtakes them. @throws LOCK_TIMEOUT, the signal's reason. */
  async pass(key: string, options: WaitOptions, own: Detour | undefined): Promise<Detour | undefined> {
    let passed = own
    for (let detour = this.#byKey.get(key); detour && detour !== passed; detour = this.#byKey.get(key)) {
      detour.waiting++
      try {
        await this.#wait(detour.settled, options)
      } finally {
        detour.waiting--
        this.#leave(key, detour)
      }
      passed = detour
    }
    return passed
  }

  #leave(key: string, detour: Detour): void {
    if (detour.done && detour.waiting === 0 && this.#byKey.get(key) === detour) this.#byKey.delete(key)
  }

  async #wait(detour: Promise<void>, { signal, waitMs = this.#waitMs }: WaitOptions): Promise<void> {
    signal?.throwIfAborted()
    const leave = new AbortController()
    const onAbort = () => leave.abort()
    signal?.addEventListener('abort', onAbort, { once: true })
    const late = this.#clock.sleep(waitMs, leave.signal).then(() => 'late' as const)
    try {
      const first = await Promise.race([detour, late])
      signal?.throwIfAborted()
      if (first === 'late')
        throw new StoreError('LOCK_TIMEOUT', `waited ${waitMs} ms for another call of this process that makes or closes the session.`, {
          details: { waitMs },
          hint: 'Nothing was written. Try again, or run `holdfast locks` to look at the holder.',
        })
    } finally {
      leave.abort()
      signal?.removeEventListener('abort', onAbort)
    }
  }
}

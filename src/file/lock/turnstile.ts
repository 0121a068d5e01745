/** The line within one process: first come, first served, so that one contender per handle touches the disk. */
import type { Clock } from '../../clock.js'
import type { StoreError } from '../../errors.js'

export interface Patience {
  /** On the monotonic clock. */
  readonly deadlineMs: number
  readonly signal?: AbortSignal | undefined
}

export class Turnstile {
  #clock: Clock
  #busy = false
  #line: (() => void)[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get idle(): boolean {
    return !this.#busy
  }

  /** True when nobody was inside; now somebody is. */
  enter(): boolean {
    if (this.#busy) return false
    this.#busy = true
    return true
  }

  /** Lets the next one in. */
  leave(): void {
    const next = this.#line.shift()
    if (next) next()
    else this.#busy = false
  }

  /** Resolves when it is our turn. Rejects with what `late` makes at the deadline, or with the signal's reason; then we are out of the line. */
  wait({ deadlineMs, signal }: Patience, late: () => StoreError): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = new AbortController()
      const goAway = () => {
        const at = this.#line.indexOf(letIn)
        if (at >= 0) this.#line.splice(at, 1)
        stop.abort(null)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = () => {
        goAway()
        reject(signal?.reason)
      }
      const letIn = () => {
        goAway()
        resolve()
      }
      this.#line.push(letIn)
      signal?.addEventListener('abort', onAbort, { once: true })
      void this.#clock.sleep(Math.max(0, deadlineMs - this.#clock.monotonicMs()), stop.signal).then(() => {
        if (stop.signal.aborted) return
        goAway()
        reject(late())
      })
    })
  }
}

/** A clock that stands still until a test moves it. */
import type { Clock } from '../../src/clock.js'

export class HeldClock implements Clock {
  #nowMs = 1_000
  #sleepers = new Map<() => void, number>()

  monotonicMs(): number {
    return this.#nowMs
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs
  }

  nap(): void {}

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve()
      const done = () => {
        this.#sleepers.delete(done)
        resolve()
      }
      this.#sleepers.set(done, this.#nowMs + ms)
      signal?.addEventListener('abort', done, { once: true })
    })
  }

  get sleeping(): number {
    return this.#sleepers.size
  }

  /** Lets time pass, waking whoever is due in order, and everything that follows from it happen. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    await settled()
    for (;;) {
      const [due] = [...this.#sleepers].filter(([, atMs]) => atMs <= untilMs).sort((a, b) => a[1] - b[1])
      if (!due) break
      this.#nowMs = Math.max(this.#nowMs, due[1])
      due[0]()
      await settled()
    }
    this.#nowMs = untilMs
  }
}

/** Every promise that can be settled is. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

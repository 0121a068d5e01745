/** How much of the machine maintenance takes: it works for a while, then leaves the disk and the event loop to others. */
import type { Clock } from '../clock.js'

export interface PaceOptions {
  /** How long it works between two pauses. */
  readonly budgetMs: number
  readonly pauseMs: number
  readonly signal?: AbortSignal | undefined
  /** Waits; sooner when the signal aborts. Default: the clock's. */
  readonly rest?: ((ms: number, signal: AbortSignal | undefined) => Promise<void>) | undefined
  /** Called with every breath. */
  readonly onBreath?: (() => void) | undefined
}

/** How long the event loop may stand still, at most, if nothing that is done at once takes longer. */
const sliceMs = 4

export class Pace {
  #clock: Clock
  #options: PaceOptions
  #sliceSinceMs: number
  #workSinceMs: number

  constructor(clock: Clock, options: PaceOptions = { budgetMs: Number.POSITIVE_INFINITY, pauseMs: 0 }) {
    this.#clock = clock
    this.#options = options
    this.#sliceSinceMs = clock.monotonicMs()
    this.#workSinceMs = this.#sliceSinceMs
  }

  get signal(): AbortSignal | undefined {
    return this.#options.signal
  }

  get stopped(): boolean {
    return this.#options.signal?.aborted ?? false
  }

  /** A sign of life, from within something that breathes by itself. */
  beat(): void {
    this.#options.onBreath?.()
  }

  /** To be called between any two small pieces of work; hardly costs anything when it is not time yet. */
  breathe(): Promise<void> | undefined {
    return this.#clock.monotonicMs() - this.#sliceSinceMs < sliceMs ? undefined : this.#breathe()
  }

  async #breathe(): Promise<void> {
    const { budgetMs, pauseMs, signal, rest, onBreath } = this.#options
    onBreath?.()
    if (pauseMs > 0 && this.#clock.monotonicMs() - this.#workSinceMs >= budgetMs) {
      await (rest ? rest(pauseMs, signal) : this.#clock.sleep(pauseMs, signal))
      this.#workSinceMs = this.#clock.monotonicMs()
    } else await new Promise((resume) => setImmediate(resume))
    this.#sliceSinceMs = this.#clock.monotonicMs()
  }

  /** Takes the steps of something that halts now and then. */
  async through<R>(halting: Generator<void, R>): Promise<R> {
    for (;;) {
      const step = halting.next()
      if (step.done) return step.value
      await this.breathe()
    }
  }
}

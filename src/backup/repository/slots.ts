/** A bounded number of things under way at once, first come, first served. */
export class Slots {
  readonly #most: number
  #used = 0
  readonly #waiting: (() => void)[] = []

  constructor(most: number) {
    this.#most = most
  }

  async take(): Promise<void> {
    if (this.#used < this.#most) this.#used++
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  give(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#used--
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    await this.take()
    try {
      return await work()
    } finally {
      this.give()
    }
  }
}

/** Does the work on each, at most so many at once; the first error ends it, once what is under way has settled. */
export async function forEachAtOnce<T>(items: readonly T[], most: number, work: (item: T, index: number) => Promise<void>): Promise<void> {
  let next = 0
  let failed = false
  const workers = Array.from({ length: Math.min(most, items.length) }, async () => {
    while (next < items.length && !failed) {
      const index = next++
      try {
        await work(items[index]!, index)
      } catch (error) {
        failed = true
        throw error
      }
    }
  })
  for (const outcome of await Promise.allSettled(workers)) if (outcome.status === 'rejected') throw outcome.reason
}

/** Waits for what somebody else may be waiting for, too: it goes on when this caller does not want it any more. */
export async function awaited<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  signal.throwIfAborted()
  let stop = () => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

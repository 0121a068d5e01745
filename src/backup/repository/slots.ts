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

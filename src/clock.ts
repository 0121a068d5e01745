/** Time, where a test can hold it. Nothing that decides about locks may use the wall clock: it jumps. */
export interface Clock {
  /** Milliseconds, with fractions, on a clock that never jumps, is shared by all processes of one boot, and stands still in suspend. */
  monotonicMs(): number
  /** Epoch milliseconds; for people only. */
  wallMs(): number
  /** Resolves after about `ms`; at once when the signal aborts (it does not reject). */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Blocks this thread for about `ms`; at most a fraction of a millisecond. */
  nap(ms: number): void
}

// hrtime is CLOCK_MONOTONIC itself, but makes a bigint each time; performance.now() is the same clock, counted from the start of this process.
const bootMs = measuredBootMs()
const cell = new Int32Array(new SharedArrayBuffer(4))

/** The two are read one after the other. Whoever is interrupted in between would be late by that for good: seen with 12 ms, where eight
 *  processes started at once. So the quickest of several tries counts. */
function measuredBootMs(): number {
  let [quickestMs, measuredMs] = [Number.POSITIVE_INFINITY, 0]
  for (let tries = 0; tries < 5; tries++) {
    const beforeMs = performance.now()
    const systemMs = Number(process.hrtime.bigint()) / 1e6
    const afterMs = performance.now()
    if (afterMs - beforeMs >= quickestMs) continue
    quickestMs = afterMs - beforeMs
    measuredMs = systemMs - (beforeMs + afterMs) / 2
  }
  return measuredMs
}

export const systemClock: Clock = {
  monotonicMs: () => bootMs + performance.now(),
  wallMs: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve()
      const done = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      signal?.addEventListener('abort', done, { once: true })
    }),
  nap: (ms) => void Atomics.wait(cell, 0, 0, ms),
}

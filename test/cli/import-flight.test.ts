import { describe, expect, test } from 'vitest'
import { Flight } from '../../src/cli/import/flight.js'
import type { AppendReceipt } from '../../src/index.js'

const receipt = (seq: number): AppendReceipt => ({ sessionId: 's', seq, seqs: [seq], duplicate: false })

interface Trip {
  readonly begun: number[]
  readonly landed: number[]
  readonly gap: number | undefined
  readonly error: unknown
}

/** Sends lines 1 to `count` through `append`. */
async function fly(
  count: number,
  append: (line: number, signal: AbortSignal) => Promise<AppendReceipt>,
  options: { bytes?: number; signal?: AbortSignal; refused?: (line: number, error: unknown) => boolean } = {},
): Promise<Trip> {
  const flight = new Flight(options.signal ?? new AbortController().signal)
  const begun: number[] = []
  const landed: number[] = []
  let error: unknown
  for (let line = 1; line <= count && !flight.stopped; line++) {
    await flight.send({
      bytes: options.bytes ?? 10,
      line,
      append(signal) {
        begun.push(line)
        return append(line, signal)
      },
      landed: () => void landed.push(line),
      refused: (reason) => options.refused?.(line, reason) ?? false,
    })
  }
  await flight.land().catch((reason: unknown) => {
    error = reason
  })
  return { begun, landed, gap: flight.gap, error }
}

describe('appends under way', () => {
  test('are begun in order, many without a pause between them, and never more than a few groups at once', async () => {
    let underWay = 0
    let most = 0
    const trip = await fly(5_000, async (line) => {
      most = Math.max(most, ++underWay)
      await new Promise((resolve) => setImmediate(resolve))
      underWay--
      return receipt(line)
    })
    expect(trip.begun).toEqual(Array.from({ length: 5_000 }, (_, at) => at + 1))
    expect(trip).toMatchObject({ gap: undefined, error: undefined })
    expect(most).toBeGreaterThan(100)
    expect(most).toBeLessThanOrEqual(1_024)
  })

  test('are bounded in bytes too', async () => {
    let underWay = 0
    let most = 0
    await fly(
      50,
      async (line) => {
        most = Math.max(most, ++underWay)
        await new Promise((resolve) => setImmediate(resolve))
        underWay--
        return receipt(line)
      },
      { bytes: 1 << 20 },
    )
    expect(most).toBeLessThanOrEqual(4)
  })

  test('a failure stops what has not begun, and is thrown once all have landed', async () => {
    const full = new Error('full')
    const trip = await fly(10_000, async (line) => {
      if (line === 700) throw full
      return receipt(line)
    })
    expect(trip.error).toBe(full)
    expect(trip.begun.length).toBeLessThan(10_000)
    expect(trip.landed).not.toContain(700)
  })

  test('a line that is missing in front of one that is in is named', async () => {
    const failing = (missing: (line: number) => boolean) =>
      fly(20, async (line) => (missing(line) ? Promise.reject(new Error('no')) : receipt(line)))
    expect((await failing((line) => line === 7 || line === 9)).gap).toBe(7)
    expect((await failing((line) => line >= 7)).gap).toBeUndefined()
  })

  test('a record that is refused for itself stops nothing', async () => {
    const trip = await fly(
      20,
      async (line) => {
        if (line === 7) throw new Error('too large')
        return receipt(line)
      },
      { refused: (line) => line === 7 },
    )
    expect(trip).toMatchObject({ gap: undefined, error: undefined })
    expect(trip.landed).toHaveLength(19)
  })

  test('when somebody asks to stop, what waits is given up without an error', async () => {
    const stop = new AbortController()
    const trip = await fly(
      10_000,
      (line, signal) => {
        if (line === 600) queueMicrotask(() => stop.abort())
        if (line < 600) return Promise.resolve(receipt(line))
        return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
      },
      { signal: stop.signal },
    )
    expect(trip).toMatchObject({ gap: undefined, error: undefined })
    expect(trip.landed).toHaveLength(599)
  })
})

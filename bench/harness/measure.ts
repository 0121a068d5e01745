/** Contestants take turns in short slices, so that a slow minute of the machine falls on all of them. Ratios are taken round by round,
 *  between slices that lie next to each other, and only then is the median taken. */
import { performance } from 'node:perf_hooks'
import type { Row } from './workload.js'

export interface Slice {
  readonly ops: number
  readonly elapsedMs: number
}

export interface Contestant {
  readonly name: string
  readonly remark?: string
  /** Takes part in every so many rounds only: an operation of seconds needs no nine medians. Default 1. */
  readonly every?: number
  /** Works for about `sliceMs`, at least one operation. */
  slice(sliceMs: number): Slice | Promise<Slice>
}

export interface Measured {
  readonly name: string
  readonly remark: string | undefined
  /** Microseconds per operation, one for each round that it took part in. */
  readonly rounds: readonly number[]
}

/** V8 takes some thousand calls to compile what is called often; a gateway runs for weeks. */
const warmUpSlices = 5

export async function alternate(contestants: readonly Contestant[], rounds: number, sliceMs: number): Promise<Measured[]> {
  const samples = contestants.map(() => [] as number[])
  for (const one of contestants) for (let slice = 0; slice < ((one.every ?? 1) === 1 ? warmUpSlices : 1); slice++) await one.slice(sliceMs)
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const at = (turn + round) % contestants.length
      if (round % (contestants[at]!.every ?? 1) !== 0) continue
      const { ops, elapsedMs } = await contestants[at]!.slice(sliceMs)
      samples[at]!.push((elapsedMs * 1000) / ops)
    }
  }
  return contestants.map(({ name, remark }, at) => ({ name, remark, rounds: samples[at]! }))
}

/** Runs a synchronous operation for about `sliceMs`, looking at the clock once in `burst` operations. */
export function sliceSync(operation: () => void, sliceMs: number, burst = 1): Slice {
  const startedMs = performance.now()
  for (let ops = 0; ; ) {
    for (let i = 0; i < burst; i++) operation()
    ops += burst
    const elapsedMs = performance.now() - startedMs
    if (elapsedMs >= sliceMs) return { ops, elapsedMs }
  }
}

/** The same for one that is awaited. A synchronous peer is not made to wait for a microtask. */
export async function sliceAsync(operation: () => unknown, sliceMs: number, burst = 1): Promise<Slice> {
  const startedMs = performance.now()
  for (let ops = 0; ; ) {
    for (let i = 0; i < burst; i++) {
      const result = operation()
      if (result instanceof Promise) await result
    }
    ops += burst
    const elapsedMs = performance.now() - startedMs
    if (elapsedMs >= sliceMs) return { ops, elapsedMs }
  }
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) return Number.NaN
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * share
  const below = sorted[Math.floor(at)]!
  return below + (sorted[Math.ceil(at)]! - below) * (at - Math.floor(at))
}

/** The median over the rounds of a's time divided by b's; both took part in all of them. */
export function ratio(a: Measured, b: Measured): number {
  return median(a.rounds.map((time, round) => time / b.rounds[round]!))
}

export function named(all: readonly Measured[], name: string): Measured | undefined {
  return all.find((one) => one.name === name)
}

export function rowOf(one: Measured, unit: 'us' | 'ms' = 'us', opsPerUnit = 1): Row {
  const scale = unit === 'ms' ? 1000 : 1
  const middle = median(one.rounds)
  return {
    contestant: one.name,
    median: middle / scale,
    low: Math.min(...one.rounds) / scale,
    high: Math.max(...one.rounds) / scale,
    unit,
    perSecond: (1e6 / middle) * opsPerUnit,
    remark: one.remark,
  }
}

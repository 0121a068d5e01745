/** Chance that can be had again: the same seed gives the same numbers on every machine. */
import { crc32 } from 'node:zlib'

export interface Random {
  /** From 0 up to, not including, 1. */
  next(): number
  /** A whole number from 0 up to, not including, n. */
  below(n: number): number
  between(min: number, max: number): number
  pick<T>(items: readonly T[]): T
}

/** mulberry32 (Tommy Ettinger, public domain): 32 bits of state are plenty for a schedule. */
export function seededRandom(seed: string): Random {
  let state = crc32(seed)
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    next,
    below: (n) => Math.floor(next() * n),
    between: (min, max) => min + next() * (max - min),
    pick(items) {
      const item = items[Math.floor(next() * items.length)]
      if (item === undefined) throw new RangeError('nothing to pick from')
      return item
    },
  }
}

/** Durations and sizes as people write them: a number and its unit, nothing guessed. */
import { InvalidArgumentError } from 'commander'

const msOf: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }
const bytesOf: Record<string, number> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

/** `30d`, `1.5h`, `90min`. */
export function duration(text: string): number {
  return quantity(text, msOf, 'a duration such as 30d, 12h, 90min, 45s or 500ms')
}

/** `500MB`, `2GiB`, `1000000B`. */
export function size(text: string): number {
  return Math.floor(quantity(text, bytesOf, 'a size such as 500MB, 2GiB or 1000000B'))
}

function quantity(text: string, units: Record<string, number>, what: string): number {
  const [, digits, unit] = /^(\d{1,15}(?:\.\d{1,6})?)\s?([A-Za-z]{1,3})$/.exec(text.trim()) ?? []
  const factor = unit === undefined || !Object.hasOwn(units, unit) ? undefined : units[unit]
  if (digits === undefined || factor === undefined) throw new InvalidArgumentError(`It must be ${what}.`)
  const value = Number(digits) * factor
  if (value <= Number.MAX_SAFE_INTEGER) return value
  throw new InvalidArgumentError('That is too much.')
}

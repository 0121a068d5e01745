/** Sorts in place, and yields now and then: 100,000 in one go would hold up the event loop for 100 ms. */

const runLength = 2_048
const yieldEvery = 4_096

export function* sortInSlices<T>(items: T[], compare: (a: T, b: T) => number): Generator<void> {
  let [from, into] = [items, new Array<T>(items.length)]
  for (let at = 0; at < items.length; at += runLength) {
    const run = items.slice(at, at + runLength).sort(compare)
    for (const [offset, item] of run.entries()) items[at + offset] = item
    yield
  }
  for (let length = runLength; length < items.length; length *= 2) {
    for (let at = 0; at < items.length; at += 2 * length)
      yield* merge(from, into, at, Math.min(at + length, items.length), Math.min(at + 2 * length, items.length), compare)
    ;[from, into] = [into, from]
  }
  if (from === items) return
  for (const [at, item] of from.entries()) {
    items[at] = item
    if (at % yieldEvery === 0) yield
  }
}

/** Of two sorted runs next to each other makes one. */
function* merge<T>(
  from: readonly T[],
  into: T[],
  start: number,
  middle: number,
  end: number,
  compare: (a: T, b: T) => number,
): Generator<void> {
  let [left, right] = [start, middle]
  for (let at = start; at < end; at++) {
    if (at % yieldEvery === 0) yield
    const first = right >= end || (left < middle && compare(from[left] as T, from[right] as T) <= 0)
    into[at] = from[first ? left++ : right++] as T
  }
}

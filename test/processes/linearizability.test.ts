// The judge is judged first: known histories, good and bad, and the definition itself applied to small ones.
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../src/cli/stress/random.js'
import { type RegisterOperation, type Value, whereNotLinearizable } from './linearizability.js'

const never = Number.POSITIVE_INFINITY

function swap(name: string, found: Value, invokedAt: number, respondedAt: number): RegisterOperation {
  return { name, puts: name, found: [found], invokedAt, respondedAt }
}

function read(found: Value, invokedAt: number, respondedAt: number): RegisterOperation {
  return { name: `read ${found}`, puts: undefined, found: [found], invokedAt, respondedAt }
}

describe('a history is accepted', () => {
  const good: Record<string, RegisterOperation[]> = {
    'without any operation': [],
    'one after the other': [swap('a', null, 0, 1), swap('b', 'a', 2, 3), read('b', 4, 5)],
    'of two at once, in either order': [swap('a', 'b', 0, 10), swap('b', null, 1, 9), read('a', 11, 12)],
    'with a read of the old value beside a write': [swap('a', null, 0, 1), swap('b', 'a', 2, 10), read('a', 3, 9), read('b', 4, 9)],
    'with a write that never came back, and took effect': [swap('a', null, 0, never), read('a', 5, 6)],
    'with a write that never came back, and took effect late': [swap('a', null, 0, never), read(null, 5, 6), read('a', 7, 8)],
    'with a write that never came back, and never happened': [swap('a', null, 0, never), read(null, 5, 6), swap('b', null, 7, 8)],
    'that touches in one moment': [swap('a', null, 0, 5), swap('b', 'a', 5, 6)],
  }
  test.each(Object.entries(good))('%s', (_, history) => {
    expect(whereNotLinearizable(history)).toBeUndefined()
  })
})

describe('a history is refused', () => {
  const bad: Record<string, RegisterOperation[]> = {
    'with a lost update': [swap('a', null, 0, 5), swap('b', null, 1, 6)],
    'with a stale read': [swap('a', null, 0, 1), swap('b', 'a', 2, 3), read('a', 4, 5)],
    'with a read of what comes later': [read('a', 0, 1), swap('a', null, 2, 3)],
    'with reads that go back': [swap('a', null, 0, 20), read('a', 1, 2), read(null, 3, 4)],
    'with a read of what nobody wrote': [read('x', 0, 1)],
    'with an acknowledged write that nobody finds': [swap('a', null, 0, 1), swap('b', null, 2, 3)],
    'with a write that was found by two': [swap('a', null, 0, 1), swap('b', 'a', 2, 9), swap('c', 'a', 3, 9)],
    'with a dead write that came and went': [swap('a', null, 0, never), read('a', 2, 3), read(null, 4, 5)],
  }
  test.each(Object.entries(bad))('%s', (_, history) => {
    expect(whereNotLinearizable(history)).toBeTypeOf('string')
  })
})

test('the verdict is that of the definition: some order, true to time, explains every answer', () => {
  const random = seededRandom('definition')
  let refused = 0
  for (let round = 0; round < 3_000; round++) {
    const history = Array.from({ length: 1 + random.below(5) }, (_, n): RegisterOperation => {
      const invokedAt = random.below(10)
      const respondedAt = random.next() < 0.2 ? never : invokedAt + random.below(8)
      const found = random.pick<Value>([null, null, 'o0', 'o1', 'o2'])
      return { name: `o${n}`, puts: random.next() < 0.7 ? `o${n}` : undefined, found: [found], invokedAt, respondedAt }
    })
    const verdict = whereNotLinearizable(history) === undefined
    expect(verdict, JSON.stringify(history)).toBe(byDefinition(history, [], null))
    if (!verdict) refused++
  }
  expect(refused).toBeGreaterThan(300)
})

/** Every order there is. */
function byDefinition(left: readonly RegisterOperation[], done: readonly RegisterOperation[], value: Value): boolean {
  if (left.every(({ respondedAt }) => respondedAt === never)) return true
  return left.some((next) => {
    if (!next.found.includes(value) || left.some(({ respondedAt }) => respondedAt < next.invokedAt)) return false
    return byDefinition(
      left.filter((other) => other !== next),
      [...done, next],
      next.puts ?? value,
    )
  })
}

test('thousands of operations of sixteen clients are judged, and one wrong answer among them is found', () => {
  const history = simulated(4_000, 16)
  expect(whereNotLinearizable(history)).toBeUndefined()
  const victim = history.findIndex(({ puts, found }, n) => n > 3_600 && puts === undefined && found[0] !== null)
  const wrong = history.with(victim, { ...history[victim]!, found: [null] })
  expect(whereNotLinearizable(wrong)).toBeTypeOf('string')
})

/** Clients that each do one thing after another; each takes effect at a moment between its call and its return; some die over it. */
function simulated(count: number, clients: number): RegisterOperation[] {
  const random = seededRandom('simulated')
  const free = Array.from({ length: clients }, () => random.next())
  const planned = Array.from({ length: count }, (_, n) => {
    const client = free.indexOf(Math.min(...free))
    const invokedAt = free[client]!
    const effectAt = invokedAt + random.next()
    free[client] = effectAt + random.next()
    return { name: `o${n}`, write: random.next() < 0.6, dead: random.next() < 0.005, invokedAt, effectAt, respondedAt: free[client]! }
  })
  let value: Value = null
  const inOrder = planned
    .toSorted((a, b) => a.effectAt - b.effectAt)
    .map((operation) => ({ ...operation, found: value, done: put(operation) }))
  function put({ name, write }: { name: string; write: boolean }): void {
    if (write) value = name
  }
  return inOrder
    .map(({ name, write, dead, invokedAt, respondedAt, found }) => ({
      name,
      puts: write ? name : undefined,
      found: [found],
      invokedAt,
      respondedAt: dead && write ? never : respondedAt,
    }))
    .sort((a, b) => a.invokedAt - b.invokedAt)
}

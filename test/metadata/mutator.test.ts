/** User code that runs under the lock is synchronous, and what it leaves half-done leaves nothing (P8, P2). */
import { describe, expect, test } from 'vitest'
import type { SessionsView } from '../../src/types.js'
import { dataIn, entriesOf, opened, refusal, storeDirectory } from './store-directory.js'

type View = SessionsView<Record<string, unknown>>

async function stocked() {
  const directory = storeDirectory()
  const store = await opened(directory)
  await store.update('k', () => ({ n: 1, deep: { list: [{ n: 1 }] } }))
  const before = dataIn(directory)
  const assertUntouched = () => expect(dataIn(directory)).toEqual(before)
  return { directory, store, assertUntouched }
}

describe('ASYNC_MUTATOR', () => {
  const later: [string, () => unknown][] = [
    ['a promise', () => Promise.resolve(1)],
    ['a promise that is rejected', () => Promise.reject(new Error('nobody listens'))],
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tried.
    ['a thenable', () => ({ then: (done?: (value: number) => void) => done?.(1) })],
  ]
  test.each(later)('%s is refused, by withStoreLock and by update, and nothing is written', async (_, make) => {
    // P8, F12
    const { store, assertUntouched } = await stocked()
    const calls = [
      () =>
        store.withStoreLock((sessions) => {
          sessions.set('l', {})
          return make()
        }),
      () => store.update('k', () => make() as Record<string, unknown>),
      () => store.update('new', () => make() as Record<string, unknown>),
    ]
    for (const call of calls) expect(await refusal(call)).toMatchObject({ code: 'ASYNC_MUTATOR', kind: 'misuse', effect: 'none' })
    await new Promise((resolve) => setImmediate(resolve))
    assertUntouched()
  })

  // The core calls `then(undefined, …)` to silence a rejection: a thenable that is no promise is thereby set going, under the lock, and one
  // that calls its first argument makes the call fail with its TypeError. Only a real promise needs silencing.
  test('a thenable of nobody’s promise library is refused without being set going', async () => {
    // P8
    const { store } = await stocked()
    let begun = 0
    const lazy = {
      // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tried.
      then(done: (value: number) => void) {
        begun++
        done(1)
      },
    }
    const error = await store.withStoreLock(() => [lazy][0]).catch((reason: unknown) => reason)
    expect({ begun, error }).toMatchObject({ begun: 0, error: { code: 'ASYNC_MUTATOR' } })
  })

  test('an async function that goes on after its first await finds its view closed', async () => {
    // P8
    const { store, assertUntouched } = await stocked()
    let late: Promise<unknown> | undefined
    const mutator = (sessions: View) => {
      sessions.set('l', {})
      late = (async () => {
        await null
        sessions.set('m', {})
      })()
      return late
    }
    expect(await refusal(() => store.withStoreLock(mutator))).toMatchObject({ code: 'ASYNC_MUTATOR' })
    expect(await refusal(() => late)).toMatchObject({ code: 'ASYNC_MUTATOR', effect: 'none' })
    assertUntouched()
  })

  test('a view that was carried out of its mutator refuses every use', async () => {
    // F17
    const { directory, store } = await stocked()
    const view = await store.withStoreLock((sessions) => [sessions] as const)
    const iterator = await store.withStoreLock((sessions) => [sessions.keys(), sessions.entries()] as const)
    const before = dataIn(directory)
    const uses: (() => unknown)[] = [
      () => view[0].get('k'),
      () => view[0].has('k'),
      () => view[0].set('k', {}),
      () => view[0].patch('k', {}),
      () => view[0].delete('k'),
      () => view[0].size,
      () => [...view[0].keys()],
      () => [...view[0].entries()],
      () => [...iterator[0]],
      () => [...iterator[1]],
    ]
    for (const use of uses) expect(await refusal(use), String(use)).toMatchObject({ code: 'ASYNC_MUTATOR', effect: 'none' })
    expect(dataIn(directory)).toEqual(before)
  })
})

test('a call of the store from inside a mutator is refused at once, not after a timeout; the outer commit stands', async () => {
  // F5, P7
  const { store } = await stocked()
  const nested: Promise<unknown>[] = []
  const startedMs = performance.now()
  await store.withStoreLock((sessions) => {
    const calls: (() => Promise<unknown>)[] = [
      () => store.withStoreLock((inner) => void inner.delete('k')),
      () => store.update('k', () => ({ n: 9 })),
      () => store.delete('k'),
      () => store.session('k').append({ n: 9 }),
      () => store.session('k').rotate(),
      () => store.checkpoint(),
    ]
    nested.push(...calls.map((call) => refusal(call)))
    sessions.patch('k', { n: 2 })
  })
  for (const error of await Promise.all(nested)) {
    expect(error).toMatchObject({ code: 'ASYNC_MUTATOR', effect: 'none' })
    expect((error as Error).message).toContain('wait for itself')
  }
  expect(performance.now() - startedMs).toBeLessThan(2_000)
  expect(await store.get('k')).toMatchObject({ n: 2, revision: 2 })
  expect(await store.session('k').tail(9)).toEqual([])
})

test('a mutator that throws half-way leaves nothing, neither on disk nor in this or another handle’s memory', async () => {
  // F17
  const { directory, store, assertUntouched } = await stocked()
  const other = await opened(directory)
  const reason = { not: 'even an error' }
  const attempt = store.withStoreLock((sessions) => {
    sessions.patch('k', { n: 2 })
    sessions.set('l', {})
    sessions.delete('k')
    throw reason
  })
  await expect(attempt).rejects.toBe(reason)
  assertUntouched()
  for (const handle of [store, other]) {
    expect(await handle.get('k')).toMatchObject({ n: 1, revision: 1 })
    expect((await entriesOf(handle.entries())).map(([key]) => key)).toEqual(['k'])
  }
  await store.update('m', () => ({}))
  expect((await entriesOf(other.entries())).map(([key]) => key)).toEqual(['k', 'm'])
})

test('what a read or a mutator hands out cannot be edited in place, and an attempt to says so', async () => {
  // F18
  const { directory, store } = await stocked()
  type Deep = { n: number; deep: { list: { n: number }[] } }
  const handed = [
    await store.get('k'),
    (await entriesOf(store.entries()))[0]?.[1],
    await store.update('k', (before) => {
      expect(() => Object.assign(before!, { n: 3 })).toThrow(TypeError)
      return { ...before }
    }),
    await store.withStoreLock((sessions) => sessions.set('k', { n: 1, deep: { list: [{ n: 1 }] } })),
    await store.withStoreLock((sessions) => [...sessions.entries()][0]?.[1]),
    await (await opened(directory)).get('k'),
  ] as unknown as Deep[]
  for (const entry of handed) {
    expect(() => Object.assign(entry, { n: 2 })).toThrow(TypeError)
    expect(() => entry.deep.list.push({ n: 2 })).toThrow(TypeError)
    expect(() => Object.assign(entry.deep.list[0]!, { n: 2 })).toThrow(TypeError)
  }
  expect(await store.get('k')).toMatchObject({ n: 1, deep: { list: [{ n: 1 }] } })
})

/** The same request, once more: answered ones are not run again, whatever has happened meanwhile. */
import { describe, expect, test } from 'vitest'
import type { SessionStore } from '../../src/store.js'
import { opened } from '../metadata/store-directory.js'
import { answering, eventsOf, eventually, freshStore, inLog, said, staying, textsOf } from './conversation.js'

const never = () => expect.fail('it ran')
const request = (requestId = 'r-1', text = 'hi') => ({ requestId, input: said(text) })

describe('a request that was answered', () => {
  const meanwhile: [string, (store: SessionStore, directory: string) => Promise<SessionStore>][] = [
    ['nothing else has happened', async (store) => store],
    [
      'other turns have run',
      async (store) => {
        for (let n = 0; n < 5; n++) await store.runTurn('k', request(`other-${n}`, 'other'), answering())
        return store
      },
    ],
    ['another handle is asked', (_store, directory) => opened(directory)],
    [
      'the store was opened anew',
      async (store, directory) => {
        await store.close()
        return opened(directory)
      },
    ],
    [
      'the session was rotated',
      async (store) => {
        await store.session('k').rotate()
        return store
      },
    ],
    [
      'the session was rotated twice, and the store opened anew',
      async (store, directory) => {
        await store.session('k').rotate()
        await store.runTurn('k', request('between', 'other'), answering())
        await store.session('k').rotate()
        await store.close()
        return opened(directory)
      },
    ],
    [
      'thousands of records lie between',
      async (store, directory) => {
        for (let n = 0; n < 4; n++) await store.session('k').append(Array.from({ length: 1_000 }, (_, at) => said(`${n} ${at}`)))
        await store.close()
        return opened(directory)
      },
    ],
  ]

  test.each(meanwhile)('is not run again, its result is returned: %s', async (_, then) => {
    // F35
    const { directory, store } = await freshStore()
    const value = { text: 'answer', list: [1, null, 'é🙂'], __proto__: undefined, nested: { $: 1, $$: 2 } }
    const first = await store.runTurn('k', request(), async (turn) => {
      await turn.append(said('re: hi'))
      return value
    })
    const later = await then(store, directory)
    for (const whenBusy of ['queue', 'reject', 'coalesce', 'interrupt'] as const) {
      const again = await later.runTurn('k', { ...request(), whenBusy }, never)
      expect(again).toMatchObject({ outcome: 'duplicate', turn: 1, attempt: 1, sessionId: first.sessionId, requestId: 'r-1' })
      expect(again.value).toEqual(value)
    }
    const all: unknown[] = []
    for await (const { record } of later.session('k').read()) all.push(record.text)
    expect(all.filter((text) => text === 'hi').length).toBeLessThanOrEqual(1)
  })

  test('asked for many times at once, on several handles, runs once; all have its result', async () => {
    const { directory, store } = await freshStore()
    const handles = [store, await opened(directory), await opened(directory)]
    let runs = 0
    const work = async () => {
      runs++
      await new Promise((resolve) => setTimeout(resolve, 20))
      return 'once'
    }
    const results = await Promise.all(Array.from({ length: 24 }, (_, at) => handles[at % 3]!.runTurn('k', request(), work)))
    expect(runs).toBe(1)
    expect(results.map(({ value }) => value)).toEqual(Array(24).fill('once'))
    expect(results.filter(({ outcome }) => outcome === 'completed')).toHaveLength(1)
    expect(results.filter(({ outcome }) => outcome === 'duplicate')).toHaveLength(23)
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi'])
  })

  test('returns of its value what JSON keeps: nothing of what JSON cannot say, or what is longer than a log should keep', async () => {
    const { store } = await freshStore()
    const circular: Record<string, unknown> = {}
    circular.self = circular
    const values: [unknown, unknown][] = [
      [undefined, undefined],
      [null, null],
      [0, 0],
      ['', ''],
      [new Date(0), '1970-01-01T00:00:00.000Z'],
      [{ a: undefined, b: () => {}, c: Symbol('c') }, {}],
      [10n, undefined],
      [circular, undefined],
      [() => {}, undefined],
      [
        {
          toJSON() {
            throw new Error('no')
          },
        },
        undefined,
      ],
      ['x'.repeat(1_000_000), 'x'.repeat(1_000_000)],
      ['x'.repeat(2_000_000), undefined],
    ]
    for (const [at, [value, kept]] of values.entries()) {
      expect((await store.runTurn('k', request(`v-${at}`), () => value)).value).toBe(value)
      const again = await store.runTurn('k', request(`v-${at}`), never)
      expect(again.outcome).toBe('duplicate')
      expect(again.value).toEqual(kept)
    }
    expect((await store.verify()).ok).toBe(true)
  })

  test('of another key is another request', async () => {
    const { store } = await freshStore()
    await store.runTurn('k', request(), () => 'one')
    expect(await store.runTurn('l', request(), () => 'two')).toMatchObject({ outcome: 'completed', value: 'two' })
  })
})

describe('a request that is active', () => {
  test('is joined: one runs, both have its result, or its error', async () => {
    const { store } = await freshStore()
    const first = await staying(store, 'k', request())
    const joined = store.runTurn('k', request(), never)
    first.go('done')
    expect(await first.result).toMatchObject({ outcome: 'completed', value: 'done' })
    expect(await joined).toMatchObject({ outcome: 'duplicate', value: 'done' })
    const second = await staying(store, 'k', request('r-2'))
    const other = store.runTurn('k', request('r-2'), never)
    const reason = new Error('broken')
    other.catch(() => {})
    second.fail(reason)
    await expect(other).rejects.toBe(reason)
    await expect(second.result).rejects.toBe(reason)
  })

  test('is waited for by another handle, and can be given up waiting for', async () => {
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k', request())
    const joined = other.runTurn('k', request(), never)
    for (const by of [store, other]) {
      const giving = new AbortController()
      const given = by.runTurn('k', { ...request(), signal: giving.signal }, never)
      given.catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, 20))
      giving.abort(new Error('gone'))
      // On the other handle it has joined the one that waits there.
      await expect(given).rejects.toThrow('gone')
    }
    expect(first.turn.signal.aborted).toBe(false)
    first.go('done')
    expect(await joined).toMatchObject({ outcome: 'duplicate', value: 'done', turn: 1 })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi'])
  })
})

describe('a request that came to nothing', () => {
  test.each([true, false])(
    'may run again, as its second attempt, with its input where it was, not twice (opened anew: %s)',
    async (anew) => {
      const { directory, store } = await freshStore()
      await expect(store.runTurn('k', request(), () => Promise.reject(new Error('broken')))).rejects.toThrow('broken')
      const by = anew ? await opened(directory) : store
      const interrupted = await staying(by, 'k', request())
      expect(interrupted.turn).toMatchObject({ attempt: 2, turn: 2 })
      expect(textsOf(interrupted.turn.inputs)).toEqual(['hi'])
      await by.interrupt('k')
      interrupted.go('nevertheless')
      expect(await interrupted.result).toMatchObject({ outcome: 'interrupted', attempt: 2, value: 'nevertheless' })
      const third = await (anew ? store : by).runTurn('k', request(), async (turn) => [textsOf(turn.inputs), textsOf(await turn.tail(9))])
      expect(third).toMatchObject({ outcome: 'completed', attempt: 3, turn: 3, value: [['hi'], ['hi']] })
      expect(textsOf(await store.session('k').tail(9))).toEqual(['hi'])
      expect(eventsOf(directory, third.sessionId).filter(({ event }) => event === 'start')).toMatchObject([
        { attempt: 1, request: 'r-1' },
        { attempt: 2, request: 'r-1' },
        { attempt: 3, request: 'r-1' },
      ])
    },
  )

  test('and whose session was rotated since runs again with its input in the new one', async () => {
    const { store } = await freshStore()
    await expect(store.runTurn('k', request(), () => Promise.reject(new Error('broken')))).rejects.toThrow('broken')
    await store.session('k').rotate()
    const again = await store.runTurn('k', request(), async (turn) => [textsOf(turn.inputs), textsOf(await turn.tail(9))])
    expect(again).toMatchObject({ outcome: 'completed', attempt: 2, value: [['hi'], ['hi']] })
  })

  test('and whose session was rotated since has its input in the new one also when it has to wait', async () => {
    // F35: that it is known is no reason to take its input for granted.
    const { store } = await freshStore()
    await expect(store.runTurn('k', request(), () => Promise.reject(new Error('broken')))).rejects.toThrow('broken')
    await store.session('k').rotate()
    const first = await staying(store, 'k')
    const again = store.runTurn('k', request(), async (turn) => [textsOf(turn.inputs), textsOf(await turn.tail(9))])
    await eventually(() => inLog(store, 'k', 'hi'))
    first.go()
    expect(await again).toMatchObject({ outcome: 'completed', attempt: 2, value: [['hi'], ['hi']] })
  })

  test('when it was left for a turn that failed, runs by itself, with its input where it was', async () => {
    const { store } = await freshStore()
    const first = await staying(store, 'k')
    await store.runTurn('k', { ...request(), whenBusy: 'coalesce' }, never)
    await first.turn.pending()
    first.fail(new Error('broken'))
    await expect(first.result).rejects.toThrow('broken')
    const again = await store.runTurn('k', { ...request(), whenBusy: 'coalesce' }, async (turn) => textsOf(turn.inputs))
    expect(again).toMatchObject({ outcome: 'completed', value: ['hi'] })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi'])
  })
})

describe('a request that was left for a turn', () => {
  test.each([false, true])('that has answered it, is not run again (rotated since: %s)', async (rotated) => {
    const { directory, store } = await freshStore()
    const first = await staying(store, 'k')
    await store.runTurn('k', { ...request(), whenBusy: 'coalesce' }, never)
    expect(textsOf(await first.turn.pending())).toEqual(['hi'])
    first.go()
    await first.result
    if (rotated) await store.session('k').rotate()
    for (const by of [store, await opened(directory)]) {
      const again = await by.runTurn('k', { ...request(), whenBusy: 'coalesce' }, never)
      expect(again.outcome).toMatch(/^(coalesced|duplicate)$/)
      expect(again.turn).toBe(1)
    }
  })
})

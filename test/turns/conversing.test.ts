/** What a turn sees of the conversation, and what remains of one through rotation. */
import { describe, expect, test } from 'vitest'
import type { Turn } from '../../src/types.js'
import { opened } from '../metadata/store-directory.js'
import { answering, eventually, freshStore, inLog, said, staying, textsOf } from './conversation.js'

const never = () => expect.fail('it ran')
const seen = async (turn: Turn) => textsOf(await turn.tail(100))

describe('turn.tail', () => {
  test('has every input where a turn took it, not where it was left; those of requests in line are left out', async () => {
    const { store } = await freshStore()
    await store.session('k').append(said('before'))
    const first = await staying(store, 'k', { input: said('a') })
    const second = store.runTurn('k', { input: [said('b'), said('b2')] }, async (turn) => {
      const before = await seen(turn)
      await turn.append(said('re: b'))
      return before
    })
    await eventually(() => inLog(store, 'k', 'b2'))
    const third = store.runTurn('k', { input: said('c') }, seen)
    await eventually(() => inLog(store, 'k', 'c'))
    await first.turn.append(said('re: a'))
    expect(await seen(first.turn)).toEqual(['before', 'a', 're: a'])
    first.go()
    expect((await second).value).toEqual(['before', 'a', 're: a', 'b', 'b2'])
    expect((await third).value).toEqual(['before', 'a', 're: a', 'b', 'b2', 're: b', 'c'])
    expect(textsOf(await store.session('k').tail(100))).toEqual(['before', 'a', 'b', 'b2', 'c', 're: a', 're: b'])
  })

  test('costs the records asked for, and finds an input that was left far before it was taken', async () => {
    const { directory, store } = await freshStore()
    const first = await staying(store, 'k')
    const waiting = store.runTurn('k', { input: said('waits') }, async (turn) => textsOf(await turn.tail(3)))
    await eventually(() => inLog(store, 'k', 'waits'))
    for (let n = 0; n < 3; n++) await first.turn.append(Array.from({ length: 900 }, (_, at) => said(`${n} ${at}`)))
    first.go()
    expect((await waiting).value).toEqual(['2 898', '2 899', 'waits'])
    const other = await opened(directory)
    expect((await other.runTurn('k', { input: said('last') }, async (turn) => textsOf(await turn.tail(2)))).value).toEqual([
      'waits',
      'last',
    ])
  })

  test('of 0 records is empty; of a count that is none, refused', async () => {
    const { store } = await freshStore()
    await store.runTurn('k', { input: said('a') }, async (turn) => {
      expect(await turn.tail(0)).toEqual([])
      await expect(turn.tail(-1)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    })
  })
})

describe('turn.pending', () => {
  test('asked for twice at once hands each input out once', async () => {
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    // One that waited when the turn began, and one that came since.
    const first = await staying(store, 'k')
    await other.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, never)
    let second: Turn | undefined
    const next = store.runTurn('k', { whenBusy: 'interrupt' }, async (turn) => {
      second = turn
      await other.runTurn('k', { whenBusy: 'coalesce', input: said('c') }, never)
      return (await Promise.all([turn.pending(), turn.pending(), turn.pending()])).flatMap(textsOf)
    })
    await eventually(() => first.turn.signal.aborted)
    first.go()
    expect((await next).value).toEqual(['b', 'c'])
    expect(second!.turn).toBe(2)
  })
})

describe('a session that is rotated', () => {
  test('takes along what waits: requests in line run in the new session, each with its input, once', async () => {
    const { store } = await freshStore()
    const first = await staying(store, 'k', { input: said('a') })
    const order: string[] = []
    const runs = ['b', 'c'].map((text) => store.runTurn('k', { input: [said(text), said(`${text}2`)] }, answering(order)))
    await eventually(() => inLog(store, 'k', 'c2'))
    const { sessionId, previousSessionId } = await store.session('k').rotate()
    expect(previousSessionId).toBe(first.turn.sessionId)
    expect(textsOf(await store.session('k').tail(9))).toEqual(['b', 'b2', 'c', 'c2'])
    first.go()
    await expect(first.result).rejects.toMatchObject({ code: 'TURN_LOST' })
    const results = await Promise.all(runs)
    expect(results.map((result) => [result.sessionId, result.turn])).toEqual([
      [sessionId, 2],
      [sessionId, 3],
    ])
    expect(order).toEqual(['b+b2', 'c+c2'])
    expect(textsOf(await store.session('k').tail(9))).toEqual(['b', 'b2', 'c', 'c2', 're: b+b2', 're: c+c2'])
  })

  test('takes along messages that were left for its turn, and they are answered there', async () => {
    // F34
    const { store } = await freshStore()
    const answered: unknown[] = []
    let calls = 0
    const first = store.runTurn('k', { input: said('a') }, async (turn) => {
      answered.push(...textsOf(await turn.pending()))
      if (++calls > 1) return
      await store.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, never)
      await store.session('k').rotate()
    })
    await expect(first).rejects.toMatchObject({ code: 'TURN_LOST' })
    await eventually(() => calls === 2)
    expect(answered).toEqual(['b'])
  })

  test('counts its turns on', async () => {
    const { store } = await freshStore()
    await store.runTurn('k', {}, () => {})
    await store.session('k').rotate()
    expect((await store.runTurn('k', {}, () => {})).turn).toBe(2)
  })
})

test('a key that is deleted while a request waits: the request runs in a new session, with its input', async () => {
  const { store } = await freshStore()
  const first = await staying(store, 'k', { input: said('a') })
  const waiting = store.runTurn('k', { input: said('b') }, async (turn) => [textsOf(turn.inputs), await seen(turn)])
  await eventually(() => inLog(store, 'k', 'b'))
  await store.delete('k')
  first.go()
  await expect(first.result).rejects.toMatchObject({ code: 'TURN_LOST' })
  const { value, sessionId } = await waiting
  expect(value).toEqual([['b'], ['b']])
  expect(sessionId).not.toBe(first.turn.sessionId)
})

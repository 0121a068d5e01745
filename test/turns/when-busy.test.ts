/** What a request does when the conversation is busy: it is refused, left for the active turn, or ends that one. */
import { describe, expect, test } from 'vitest'
import type { SessionStore } from '../../src/store.js'
import type { Turn, TurnOptions } from '../../src/types.js'
import { dataIn, opened, refusal } from '../metadata/store-directory.js'
import {
  answering,
  eventually,
  factsOf,
  freshStore,
  inLog,
  leftBehind,
  said,
  staying,
  storyOf,
  textsOf,
  transcriptOf,
} from './conversation.js'

const never = () => expect.fail('it ran')
const coalesce = (text: string, more: TurnOptions = {}): TurnOptions => ({ whenBusy: 'coalesce', input: said(text), ...more })

/** The same handle, and another one: as in another process, as far as the store can tell. */
const ways = ['the same handle', 'another handle'] as const

async function another(way: (typeof ways)[number], directory: string, store: SessionStore): Promise<SessionStore> {
  return way === 'the same handle' ? store : opened(directory, { durability: 'process' })
}

describe.each(ways)('reject, on %s', (way) => {
  test('runs at once when nobody is inside; otherwise says who is, since when, when to try again, and writes nothing', async () => {
    // F40
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    expect(await other.runTurn('k', { whenBusy: 'reject', input: said('a') }, answering())).toMatchObject({ outcome: 'completed' })
    const first = await staying(store, 'k', { requestId: 'long' })
    const before = dataIn(directory)
    for (const requestId of [undefined, 'r-1']) {
      const error = await refusal(() => other.runTurn('k', { whenBusy: 'reject', input: said('b'), requestId }, never))
      expect(error).toMatchObject({ code: 'TURN_BUSY', kind: 'busy', effect: 'none', retryable: true })
      expect(error.details).toMatchObject({ key: 'k', requestId: 'long', turn: 2, retryAfterMs: expect.any(Number) })
      expect(error.details.holder).toMatchObject({ pid: process.pid, heldMs: expect.any(Number) })
      expect(error.message).toContain(`held by pid ${process.pid}`)
    }
    expect(dataIn(directory)).toEqual(before)
    first.go()
    await first.result
    expect(await other.runTurn('k', { whenBusy: 'reject', input: said('b'), requestId: 'r-1' }, answering())).toMatchObject({ attempt: 1 })
    expect(leftBehind(directory)).toEqual([])
  })

  test('is refused, too, while others are in line, though nobody is inside', async () => {
    const { directory, store } = await freshStore({ lanes: { cron: 1 } })
    const other = await another(way, directory, store)
    const lane = await staying(store, 'elsewhere', { lane: 'cron' })
    const waiting = store.runTurn('k', { lane: 'cron', input: said('a') }, answering())
    await eventually(() => inLog(store, 'k', 'a'))
    expect(await refusal(() => other.runTurn('k', { whenBusy: 'reject', input: said('b') }, never))).toMatchObject({ code: 'TURN_BUSY' })
    lane.go()
    await waiting
    expect(textsOf(await store.session('k').tail(9))).toEqual(['a', 're: a'])
  })

  test('of a request that is active waits for it instead', async () => {
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    const first = await staying(store, 'k', { requestId: 'r-1', input: said('a') })
    const again = other.runTurn('k', { whenBusy: 'reject', requestId: 'r-1', input: said('a') }, never)
    first.go('done')
    expect(await again).toMatchObject({ outcome: 'duplicate', turn: 1, value: 'done' })
  })
})

test('reject does not wait for a slot of the lane either, and writes nothing', async () => {
  // F40
  const { directory, store } = await freshStore({ lanes: { cron: 1 } })
  const first = await staying(store, 'a', { lane: 'cron' })
  const before = dataIn(directory)
  const error = await refusal(() => store.runTurn('b', { whenBusy: 'reject', lane: 'cron', input: said('x') }, never))
  expect(error).toMatchObject({ code: 'LANE_FULL', effect: 'none', details: { retryAfterMs: expect.any(Number) } })
  expect(dataIn(directory)).toEqual(before)
  first.go()
  await first.result
})

describe.each(ways)('coalesce, on %s', (way) => {
  test('leaves its input on the disk for the active turn before the call returns; pending() hands it out once, and says so in the log', async () => {
    // F37, F35
    const { directory, store } = await freshStore({ durability: 'power' })
    const other = await another(way, directory, store)
    const first = await staying(store, 'k', { input: said('a') })
    const results = [await other.runTurn('k', coalesce('b'), never), await other.runTurn('k', coalesce('c'), never)]
    for (const [at, text] of ['b', 'c'].entries()) {
      const { seqs, ...result } = results[at]!
      expect(result).toMatchObject({ outcome: 'coalesced', turn: 1, sessionId: first.turn.sessionId, value: undefined })
      const fact = factsOf(transcriptOf(directory, first.turn.sessionId)).find(({ seq }) => seq === seqs[0])
      expect(fact?.record).toEqual(said(text))
    }
    expect(textsOf(await first.turn.tail(9))).toEqual(['a'])
    const pending = await first.turn.pending()
    expect(textsOf(pending)).toEqual(['b', 'c'])
    expect(pending.map(({ request }) => request)).toEqual(results.map(({ requestId }) => requestId))
    expect(await first.turn.pending()).toEqual([])
    expect(textsOf(await first.turn.tail(9))).toEqual(['a', 'b', 'c'])
    first.go()
    await first.result
    expect(storyOf(directory, first.turn.sessionId)).toEqual(['start 1', 'take 1', 'end 1 completed'])
  })

  test('runs by itself when nobody is inside', async () => {
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    expect(await other.runTurn('k', coalesce('a'), answering())).toMatchObject({ outcome: 'completed', value: 'answered a' })
  })

  test('after the last pending() and before the end is answered by a turn of its own, before anybody else goes', async () => {
    // F34
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    const order: string[] = []
    const work = async (turn: Turn) => {
      order.push(`turn ${turn.turn}: ${textsOf(await turn.pending()).join(' ')}`)
      if (turn.turn === 1) for (const text of ['b', 'c']) await other.runTurn('k', coalesce(text), never)
    }
    const results = await Promise.all([
      store.runTurn('k', { input: said('a') }, work),
      store.runTurn('k', { input: said('queued') }, () => void order.push('queued')),
    ])
    expect(order).toEqual(['turn 1: ', 'turn 2: b c', 'queued'])
    expect(results.map(({ turn }) => turn)).toEqual([1, 3])
    expect(leftBehind(directory)).toEqual([])
  })

  test('for a turn that fails is answered by the next turn all the same', async () => {
    // F34
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    const seen: string[][] = []
    let calls = 0
    const failing = store.runTurn('k', { input: said('a') }, async (turn) => {
      seen.push(textsOf(await turn.pending()) as string[])
      if (++calls > 1) return
      await other.runTurn('k', coalesce('b'), never)
      throw new Error('broken')
    })
    await expect(failing).rejects.toThrow('broken')
    await eventually(() => calls === 2)
    expect(seen).toEqual([[], ['b']])
  })
})

test('many messages left for one turn, at once and from several handles, are each handed out exactly once', async () => {
  // F34, F35
  const { directory, store } = await freshStore()
  const handles = [store, await opened(directory, { durability: 'process' }), await opened(directory, { durability: 'process' })]
  const seen: string[] = []
  const work = async (turn: Turn) => {
    for (let empty = 0; empty < 3; empty++) {
      const pending = textsOf(await turn.pending()) as string[]
      seen.push(...pending)
      if (pending.length > 0) empty = 0
    }
  }
  const first = await staying(store, 'k')
  const messages = Array.from({ length: 60 }, (_, at) => `m${at}`)
  const answers = messages.map((text, at) => handles[at % 3]!.runTurn('k', coalesce(text), work))
  await eventually(() => inLog(store, 'k', 'm59'))
  seen.push(...(textsOf(await first.turn.pending()) as string[]))
  first.go()
  await Promise.all(answers)
  await eventually(() => leftBehind(directory).length === 0)
  expect(seen.sort()).toEqual(messages.sort())
})

test('a request that waits in line is not taken by another turn; one that is left by somebody who has died is taken by the next', async () => {
  // F34
  const { store } = await freshStore()
  const first = await staying(store, 'k')
  const queued = store.runTurn('k', { input: said('b') }, async (turn) => textsOf(await turn.tail(9)))
  await eventually(() => inLog(store, 'k', 'b'))
  expect(await first.turn.pending()).toEqual([])
  first.go()
  expect((await queued).value).toEqual(['b'])
})

describe.each(ways)('interrupt, on %s', (way) => {
  test('aborts the active turn, waits until it has settled, and then runs', async () => {
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    const order: string[] = []
    const first = store.runTurn('k', { input: said('a') }, async (turn) => {
      await turn.append(said('half of an ans'))
      await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
      expect(turn.signal.reason).toMatchObject({ code: 'TURN_LOST', details: { interruptedBy: 'request r-2' } })
      await new Promise((resolve) => setTimeout(resolve, 30))
      await turn.append(said('[stopped]'))
      order.push('first has settled')
    })
    await eventually(() => inLog(store, 'k', 'half of an ans'))
    const second = await other.runTurn('k', { whenBusy: 'interrupt', requestId: 'r-2', input: said('b') }, (turn) => {
      order.push('second runs')
      return turn.tail(9)
    })
    expect(order).toEqual(['first has settled', 'second runs'])
    expect(textsOf(second.value!)).toEqual(['a', 'half of an ans', '[stopped]', 'b'])
    expect(await first).toMatchObject({ outcome: 'interrupted', turn: 1 })
    expect(storyOf(directory, second.sessionId)).toEqual(['start 1', 'end 1 interrupted', 'start 2', 'end 2 completed'])
  })

  test('of a turn that ignores its signal waits for it: slot and key stay its own until it settles', async () => {
    // F33
    const { directory, store } = await freshStore({ lanes: { cron: 1 } })
    const other = await another(way, directory, store)
    const deaf = await staying(store, 'k', { lane: 'cron' })
    const ran: string[] = []
    const next = other.runTurn('k', { whenBusy: 'interrupt' }, () => void ran.push('next'))
    const sameLane = store.runTurn('l', { lane: 'cron' }, () => void ran.push('lane'))
    await eventually(() => deaf.turn.signal.aborted)
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(ran).toEqual([])
    await deaf.turn.append(said('still here'))
    deaf.go()
    await Promise.all([next, sameLane])
    expect(await deaf.result).toMatchObject({ outcome: 'interrupted' })
    expect(ran.sort()).toEqual(['lane', 'next'])
  })

  test('what was left for the turn that is interrupted goes to the one that comes', async () => {
    // F34
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    const first = await staying(store, 'k')
    await other.runTurn('k', coalesce('b'), never)
    const next = other.runTurn('k', { whenBusy: 'interrupt', input: said('c') }, async (turn) => ({
      pending: textsOf(await turn.pending()),
      tail: textsOf(await turn.tail(9)),
    }))
    await eventually(() => first.turn.signal.aborted)
    first.go()
    expect((await next).value).toEqual({ pending: ['b'], tail: ['b', 'c'] })
  })

  test('by a call aborts the active turn, and says whether there was one', async () => {
    const { directory, store } = await freshStore()
    const other = await another(way, directory, store)
    expect(await other.interrupt('k')).toBe(false)
    const first = await staying(store, 'k', { input: said('a') })
    expect(await other.interrupt('k')).toBe(true)
    await eventually(() => first.turn.signal.aborted)
    first.fail(first.turn.signal.reason)
    await expect(first.result).rejects.toMatchObject({ code: 'TURN_LOST', details: { interruptedBy: 'a call of interrupt' } })
    expect(await other.interrupt('k')).toBe(false)
    expect(await store.turns({ key: 'k' })).toMatchObject([{ state: 'interrupted', turn: 1 }])
    expect(leftBehind(directory)).toEqual([])
  })
})

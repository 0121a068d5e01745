/** A turn that is not its own any more: its time is over, somebody has taken over, its session has gone. It adds nothing. */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { SessionStore } from '../../src/store.js'
import type { Turn } from '../../src/types.js'
import { opened, refusal } from '../metadata/store-directory.js'
import { eventsOf, eventually, freshStore, inLog, leftBehind, said, staying, storyOf, textsOf } from './conversation.js'

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

describe('maxTurnMs', () => {
  test('without progress aborts the signal, saying so; appending and heartbeat begin it anew', async () => {
    const { store } = await freshStore()
    const { turn, go, result } = await staying(store, 'k', { maxTurnMs: 200 })
    for (let n = 0; n < 6; n++) {
      await pause(70)
      if (n % 2) turn.heartbeat()
      else await turn.append(said(`${n}`))
      expect(turn.signal.aborted).toBe(false)
    }
    const quietSince = performance.now()
    await eventually(() => turn.signal.aborted)
    expect(performance.now() - quietSince).toBeGreaterThan(150)
    expect(turn.signal.reason).toMatchObject({ code: 'TURN_LOST' })
    expect(String(turn.signal.reason)).toContain('no progress')
    go()
    await result
  })

  test('once over, lets another process go on; the first one adds nothing more, and finds out', async () => {
    // F1
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const slow = await staying(store, 'k', { maxTurnMs: 100, input: said('a'), requestId: 'r-1' })
    await slow.turn.append(said('in time'))
    const next = await staying(other, 'k', { input: said('b') })
    expect(next.turn.turn).toBe(2)
    for (const call of [() => slow.turn.append(said('late')), () => slow.turn.pending()])
      expect(await refusal(call)).toMatchObject({ code: 'TURN_LOST', effect: 'none', details: { key: 'k', turn: 1 } })
    expect(slow.turn.signal.aborted).toBe(true)
    slow.go('late result')
    // Its start and its input are there.
    await expect(slow.result).rejects.toMatchObject({ code: 'TURN_LOST', effect: 'unknown' })
    await next.turn.append(said('re: b'))
    next.go()
    const { sessionId } = await next.result
    expect(textsOf(await store.session('k').tail(9))).toEqual(['a', 'in time', 'b', 're: b'])
    expect(storyOf(directory, sessionId)).toEqual(['start 1', 'start 2', 'end 2 completed'])
    expect(eventsOf(directory, sessionId)[1]).toMatchObject({ interrupted: 1 })
    expect((await store.turns({ key: 'k' })).map(({ turn, state }) => [turn, state])).toEqual([
      [2, 'completed'],
      [1, 'interrupted'],
    ])
    expect(await store.runTurn('k', { requestId: 'r-1', input: said('a') }, (turn) => turn.attempt)).toMatchObject({ attempt: 2 })
    expect(leftBehind(directory)).toEqual([])
  })
})

describe('a turn whose lease was removed', () => {
  test('adds nothing; its signal is aborted, its caller is told, and the next one runs', async () => {
    const { directory, store } = await freshStore()
    const { turn, go, result } = await staying(store, 'k', { input: said('a') })
    const turns = join(directory, 'locks', 'turns')
    for (const name of readdirSync(turns)) if (/^[0-9a-f]{32}$/.test(name)) rmSync(join(turns, name), { recursive: true })
    expect(await refusal(() => turn.append(said('b')))).toMatchObject({ code: 'TURN_LOST', effect: 'none' })
    expect(turn.signal.aborted).toBe(true)
    go()
    await expect(result).rejects.toMatchObject({ code: 'TURN_LOST' })
    expect(await store.runTurn('k', {}, () => 'next')).toMatchObject({ turn: 2, value: 'next' })
    expect(await inLog(store, 'k', 'b')).toBe(false)
  })
})

describe('a turn whose session goes', () => {
  const ways: [string, (store: SessionStore) => Promise<unknown>][] = [
    ['is rotated', (store) => store.session('k').rotate()],
    ['is deleted', (store) => store.delete('k')],
    ['is deleted by a mutator', (store) => store.withStoreLock((sessions) => sessions.delete('k'))],
  ]

  test.each(ways)('(%s) adds nothing to any session, and is told so', async (way, close) => {
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    for (const by of [store, other]) {
      const { turn, go, result } = await staying(store, 'k', { input: said('a') })
      await close(by)
      for (const call of [() => turn.append(said('b')), () => turn.pending()])
        expect(await refusal(call)).toMatchObject({ code: 'TURN_LOST', effect: 'none' })
      go()
      await expect(result).rejects.toMatchObject({ code: 'TURN_LOST', effect: 'unknown' })
      // Nor does it bring back what was deleted.
      expect((await store.get('k')) !== undefined).toBe(way === 'is rotated')
      expect(textsOf(await store.session('k').tail(9))).toEqual([])
      expect(leftBehind(directory)).toEqual([])
    }
    expect(await store.runTurn('k', { input: said('c') }, () => 'on')).toMatchObject({ value: 'on' })
    expect((await store.verify()).ok).toBe(true)
  })

  test('a request that gives up after the key was deleted does not bring it back', async () => {
    // F41
    const { store } = await freshStore()
    const first = await staying(store, 'k')
    const giving = new AbortController()
    const waiting = store.runTurn('k', { input: said('b'), signal: giving.signal }, () => expect.fail('it ran'))
    waiting.catch(() => {})
    await eventually(() => inLog(store, 'k', 'b'))
    await store.delete('k')
    giving.abort(new Error('gone'))
    await expect(waiting).rejects.toThrow('gone')
    first.go()
    await first.result.catch(() => {})
    expect(await store.get('k')).toBeUndefined()
  })
})

describe('a turn that is over', () => {
  test('adds nothing more: what its function has left running is refused, the next turn is undisturbed', async () => {
    const { store } = await freshStore()
    const { turn, go, result } = await staying(store, 'k', { input: said('a') })
    go()
    await result
    expect(await refusal(() => turn.append(said('late')))).toMatchObject({ code: 'TURN_LOST', effect: 'none' })
    const next = await staying(store, 'k', { input: said('b') })
    expect(await refusal(() => turn.append(said('late')))).toMatchObject({ code: 'TURN_LOST' })
    expect(await refusal(() => turn.pending())).toMatchObject({ code: 'TURN_LOST' })
    turn.heartbeat()
    expect(textsOf(await turn.tail(9))).toEqual(['a', 'b'])
    next.go()
    await next.result
    expect(await inLog(store, 'k', 'late')).toBe(false)
  })

  test('adds nothing to the turn that follows it under the same lease either', async () => {
    // The lease stands; only the log can tell.
    const { store } = await freshStore()
    const turns: Turn[] = []
    const late: unknown[] = []
    await store.runTurn('k', {}, async (turn) => {
      turns.push(turn)
      if (turn.turn === 1) await store.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, () => expect.fail('it ran'))
      else for (const call of [() => turns[0]!.append(said('late')), () => turns[0]!.pending()]) late.push((await refusal(call)).code)
    })
    await eventually(() => late.length === 2)
    expect(late).toEqual(['TURN_LOST', 'TURN_LOST'])
    expect(await inLog(store, 'k', 'late')).toBe(false)
  })

  test('what it appended without waiting for it stands before its end', async () => {
    const { directory, store } = await freshStore()
    let appended: Promise<{ seq: number }> | undefined
    const { sessionId } = await store.runTurn('k', {}, (turn) => {
      appended = turn.append(said('not awaited'))
    })
    await appended
    expect(storyOf(directory, sessionId)).toEqual(['start 1', 'end 1 completed'])
    expect(textsOf(await store.session('k').tail(9))).toEqual(['not awaited'])
  })
})

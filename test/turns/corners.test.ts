/** Where turns have been seen to go wrong: moments between two steps, and callers who do several things at once. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { readdirSync, rmSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Turn } from '../../src/types.js'
import { opened, refusal } from '../metadata/store-directory.js'
import { eventsOf, eventually, freshStore, inLog, leftBehind, said, staying, storyOf, textsOf, transcriptOf } from './conversation.js'

const never = () => expect.fail('it ran')
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const soon = <T>(work: Promise<T>, ms = 3_000) => Promise.race([work, pause(ms).then(() => expect.fail('it waits'))])

describe('an input', () => {
  test('is not lost, and not doubled, when its transcript has been opened anew meanwhile, and only the end of it was read', async () => {
    // F35
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k')
    const waiting = other.runTurn('k', { input: said('b') }, async (turn) => [textsOf(turn.inputs), textsOf(await turn.tail(1))])
    await eventually(() => inLog(store, 'k', 'b'))
    // Long enough that the input is not in what is read at first.
    await first.turn.append(Array.from({ length: 20 }, (_, at) => said(`${at}${'x'.repeat(10_000)}`)))
    await other.session('k').append(said('seen'))
    utimesSync(transcriptOf(directory, first.turn.sessionId), new Date(), new Date())
    await other.session('k').append(said('opened anew'))
    first.go()
    expect((await waiting).value).toEqual([['b'], ['b']])
    expect(textsOf(await store.session('k').tail(99)).filter((text) => text === 'b')).toHaveLength(1)
    expect(eventsOf(directory, first.turn.sessionId).at(-2)).toMatchObject({
      event: 'start',
      n: 2,
      takes: [[expect.any(String), expect.any(Number), 1]],
    })
  })

  test('of a request that waits on two handles stays when one of them gives up', async () => {
    // F41, F35
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k')
    const giving = new AbortController()
    const request = { requestId: 'r', input: said('b') }
    const one = store.runTurn('k', { ...request, signal: giving.signal }, never)
    one.catch(() => {})
    await eventually(() => inLog(store, 'k', 'b'))
    const two = other.runTurn('k', request, (turn) => textsOf(turn.inputs))
    await eventually(async () => (await store.turns()).length === 3)
    giving.abort(new Error('gone'))
    await expect(one).rejects.toThrow('gone')
    first.go()
    expect(await two).toMatchObject({ outcome: 'completed', value: ['b'] })
    expect(await store.runTurn('k', {}, async (turn) => textsOf(await turn.tail(9)))).toMatchObject({ value: ['b'] })
  })

  test('that somebody else may still take back, is nobody’s receipt', async () => {
    // F35, F41: the same request, left once more while its first call waits, and that one is given up.
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k')
    const giving = new AbortController()
    const request = { requestId: 'r', input: said('b') }
    const waits = store.runTurn('k', { ...request, signal: giving.signal }, never)
    waits.catch(() => {})
    await eventually(() => inLog(store, 'k', 'b'))
    const left = other.runTurn('k', { ...request, whenBusy: 'coalesce' }, (turn) => textsOf(turn.inputs))
    await eventually(async () => (await store.turns()).length === 3)
    giving.abort(new Error('gone'))
    await expect(waits).rejects.toThrow('gone')
    first.go()
    expect(await left).toMatchObject({ outcome: 'completed', value: ['b'] })
  })

  test('that was taken by a turn whose holder was overtaken is answered by its own request, which was in line', async () => {
    // F34: that it was taken does not mean that it was answered.
    const { directory, store } = await freshStore({ lanes: { cron: 1 } })
    const other = await opened(directory, { durability: 'process' })
    const lane = await staying(store, 'elsewhere', { lane: 'cron' })
    // Has the lease, and no turn yet: what is left now is not for a turn that is active.
    const taker = store.runTurn('k', { lane: 'cron', maxTurnMs: 100, input: said('a') }, async (turn) => {
      await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
      await pause(300)
    })
    taker.catch(() => {})
    await eventually(() => inLog(store, 'k', 'a'))
    const left = other.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, (turn) => textsOf(turn.inputs))
    await eventually(() => inLog(store, 'k', 'b'))
    lane.go()
    expect(await left).toMatchObject({ outcome: 'completed', turn: 2, value: ['b'] })
    await expect(taker).rejects.toMatchObject({ code: 'TURN_LOST' })
    expect(storyOf(directory, (await left).sessionId)).toEqual(['start 1', 'start 2', 'end 2 completed'])
  })
})

describe('a request that joins another', () => {
  test('is not aborted with it: it goes on by itself', async () => {
    // F41: a client that has lost its connection asks again, while its first request is just being given up.
    const { store } = await freshStore()
    const giving = new AbortController()
    const request = { requestId: 'r', input: said('hi') }
    const first = store.runTurn('k', { ...request, signal: giving.signal }, async (turn) => {
      await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
      throw turn.signal.reason
    })
    first.catch(() => {})
    await eventually(() => inLog(store, 'k', 'hi'))
    const again = store.runTurn('k', request, (turn) => turn.attempt)
    giving.abort(new Error('gone'))
    await expect(first).rejects.toThrow('gone')
    expect(await soon(again)).toMatchObject({ outcome: 'completed', value: 2 })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi'])
  })

  test('is not aborted with it while both wait in line', async () => {
    const { store } = await freshStore()
    const holder = await staying(store, 'k')
    const giving = new AbortController()
    const request = { requestId: 'r', input: said('hi') }
    const first = store.runTurn('k', { ...request, signal: giving.signal }, never)
    first.catch(() => {})
    await eventually(() => inLog(store, 'k', 'hi'))
    const again = store.runTurn('k', request, (turn) => textsOf(turn.inputs))
    giving.abort(new Error('gone'))
    await expect(first).rejects.toThrow('gone')
    holder.go()
    expect(await soon(again)).toMatchObject({ outcome: 'completed', value: ['hi'] })
  })

  test('waits no longer than it said', async () => {
    // F10
    const { store } = await freshStore()
    const first = await staying(store, 'k', { requestId: 'r' })
    expect(await refusal(() => soon(store.runTurn('k', { requestId: 'r', waitMs: 50 }, never)))).toMatchObject({
      code: 'TURN_BUSY',
      effect: 'none',
      details: { key: 'k', requestId: 'r' },
    })
    first.go()
    await first.result
  })

  test('from inside that very request is refused at once: it would wait for itself', async () => {
    // F5
    const { store } = await freshStore()
    await store.runTurn('k', { requestId: 'r' }, async () => {
      for (const whenBusy of ['queue', 'reject', 'coalesce', 'interrupt'] as const)
        expect(await refusal(() => soon(store.runTurn('k', { requestId: 'r', whenBusy, input: said('x') }, never)))).toMatchObject({
          code: 'TURN_BUSY',
          effect: 'none',
          retryable: false,
        })
    })
    expect(await inLog(store, 'k', 'x')).toBe(false)
  })
})

describe('a turn that asks for another inside it', () => {
  test('by leaving a message for itself is never made to wait for itself, even when its time is over', async () => {
    // F5
    const { store } = await freshStore()
    await store.runTurn('k', { maxTurnMs: 100 }, async (turn) => {
      expect(await soon(store.runTurn('k', { whenBusy: 'coalesce', input: said('in time') }, never))).toMatchObject({
        outcome: 'coalesced',
      })
      await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
      const late = await soon(store.runTurn('k', { whenBusy: 'coalesce', input: said('late') }, never)).catch((error: unknown) => error)
      expect(late).toMatchObject({ code: 'TURN_BUSY', retryable: false })
    })
  })

  test('in a lane whose every slot is held by those it runs inside, is refused at once', async () => {
    // F5
    const { store } = await freshStore({ lanes: { cron: 1, pair: 2 } })
    await store.runTurn('a', { lane: 'cron' }, async () => {
      expect(await refusal(() => soon(store.runTurn('b', { lane: 'cron', input: said('x') }, never)))).toMatchObject({
        code: 'LANE_FULL',
        effect: 'none',
        retryable: false,
      })
      await store.runTurn('b', { lane: 'pair' }, async () => {
        await store.runTurn('c', { lane: 'pair' }, async () => {
          expect(await refusal(() => soon(store.runTurn('d', { lane: 'pair' }, never)))).toMatchObject({
            code: 'LANE_FULL',
            retryable: false,
          })
        })
      })
    })
    expect(await inLog(store, 'b', 'x')).toBe(false)
  })
})

describe('interrupt', () => {
  test.each(['the same handle', 'another handle'])('of a turn that is about to begin reaches it when it has begun, on %s', async (way) => {
    const { directory, store } = await freshStore({ lanes: { cron: 1 } })
    const other = way === 'the same handle' ? store : await opened(directory, { durability: 'process' })
    const lane = await staying(store, 'elsewhere', { lane: 'cron' })
    const first = store.runTurn(
      'k',
      { lane: 'cron', input: said('a') },
      (turn) => new Promise((resolve) => turn.signal.addEventListener('abort', resolve)),
    )
    await eventually(() => inLog(store, 'k', 'a'))
    const next = other.runTurn('k', { whenBusy: 'interrupt', input: said('b') }, () => 'next')
    await eventually(() => inLog(store, 'k', 'b'))
    lane.go()
    expect(await soon(next)).toMatchObject({ outcome: 'completed', value: 'next' })
    expect(await first).toMatchObject({ outcome: 'interrupted' })
  })

  test('from another handle stops that turn, and not the one that answers afterwards what was left', async () => {
    // F34
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const seen: unknown[] = []
    const running = store.runTurn('k', {}, async (turn) => {
      if (turn.turn === 1) await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
      else {
        await pause(200)
        seen.push(textsOf(await turn.pending()), turn.signal.aborted)
      }
    })
    await eventually(async () => (await store.turns()).length === 1)
    await other.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, never)
    expect(await other.interrupt('k')).toBe(true)
    expect(await running).toMatchObject({ outcome: 'interrupted' })
    await eventually(() => seen.length === 2)
    expect(seen).toEqual([['b'], false])
  })

  test('reaches the turn that is active also when ours, that was overtaken, has not been told yet', async () => {
    // F33: its lease is gone, and nobody has looked.
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const overtaken = await staying(store, 'k')
    const turns = join(directory, 'locks', 'turns')
    for (const name of readdirSync(turns)) if (/^[0-9a-f]{32}$/.test(name)) rmSync(join(turns, name), { recursive: true })
    const active = await staying(other, 'k')
    expect(overtaken.turn.signal.aborted).toBe(false)
    expect(await store.interrupt('k')).toBe(true)
    await eventually(() => active.turn.signal.aborted)
    for (const each of [active, overtaken]) each.go()
    await Promise.allSettled([active.result, overtaken.result])
  })

  test('reaches the turn that is active, not one that was overtaken and has not noticed', async () => {
    // F33
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const overtaken = await staying(store, 'k', { maxTurnMs: 100 })
    const active = await staying(other, 'k')
    expect(await store.interrupt('k')).toBe(true)
    await eventually(() => active.turn.signal.aborted)
    expect(active.turn.signal.reason).toMatchObject({ details: { interruptedBy: 'a call of interrupt' } })
    for (const each of [active, overtaken]) each.go()
    await Promise.allSettled([active.result, overtaken.result])
  })
})

describe('a caller that aborts', () => {
  test('in the very moment in which its turn begins, does not have its function run', async () => {
    // F41
    const { directory, store } = await freshStore()
    await store.runTurn('k', {}, () => {})
    const giving = new AbortController()
    const reason = new Error('gone')
    const onCommit = (message: unknown) => {
      if ((message as { requestId?: string }).requestId === 'r') giving.abort(reason)
    }
    subscribe('holdfast:commit', onCommit)
    onTestFinished(() => void unsubscribe('holdfast:commit', onCommit))
    await expect(store.runTurn('k', { requestId: 'r', input: said('x'), signal: giving.signal }, never)).rejects.toBe(reason)
    const { sessionId } = await store.runTurn('k', {}, () => {})
    expect(storyOf(directory, sessionId).slice(2, 4)).toEqual(['start 2', 'end 2 interrupted'])
    expect(await store.runTurn('k', { requestId: 'r', input: said('x') }, (turn) => turn.attempt)).toMatchObject({ value: 2 })
  })
})

describe('the time of a turn', () => {
  test('begins when the turn does: waiting for a slot does not use it up, and nobody takes over meanwhile', async () => {
    // F33
    const { directory, store } = await freshStore({ lanes: { cron: 1 } })
    const other = await opened(directory, { durability: 'process' })
    const lane = await staying(store, 'elsewhere', { lane: 'cron' })
    const order: string[] = []
    const first = store.runTurn('k', { lane: 'cron', maxTurnMs: 150, input: said('a') }, async (turn) => {
      order.push('first')
      await pause(100)
      expect(turn.signal.aborted).toBe(false)
      await turn.append(said('re: a'))
      await eventually(() => turn.signal.aborted)
    })
    await eventually(() => inLog(store, 'k', 'a'))
    const second = other.runTurn('k', { input: said('b') }, () => void order.push('second'))
    await pause(500)
    expect(order).toEqual([])
    lane.go()
    await Promise.allSettled([first, second])
    expect(order).toEqual(['first', 'second'])
    expect(textsOf(await store.session('k').tail(9))).toEqual(['a', 'b', 're: a'])
  })
})

describe('a turn whose time was over', () => {
  test('and that nobody has overtaken, is followed by one with its full time for what was left', async () => {
    // F34
    const { store } = await freshStore()
    const seen: unknown[] = []
    const running = store.runTurn('k', { maxTurnMs: 200 }, async (turn) => {
      if (turn.turn === 1) await eventually(() => turn.signal.aborted)
      else {
        seen.push(textsOf(await turn.pending()), turn.signal.aborted)
        const sinceMs = performance.now()
        await eventually(() => turn.signal.aborted)
        seen.push(performance.now() - sinceMs > 150)
      }
    })
    await eventually(async () => (await store.turns()).length === 1)
    await store.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, never)
    await running
    await eventually(() => seen.length === 3)
    expect(seen).toEqual([['b'], false, true])
  })
})

describe('what a function throws', () => {
  test('may be anything: the turn has ended, and it comes through as it is', async () => {
    const { directory, store } = await freshStore()
    const hostile = {
      toString() {
        throw new Error('no words')
      },
    }
    const named = new Error('x')
    Object.defineProperty(named, 'name', {
      get() {
        throw new Error('no name')
      },
    })
    const thrown = [undefined, null, 0, '', Symbol('s'), Object.create(null), hostile, named, () => {}, `${'x'.repeat(1_999)}🙂`]
    for (const what of thrown)
      expect(await store.runTurn('k', {}, () => Promise.reject(what)).then(never, (error: unknown) => ({ error }))).toEqual({ error: what })
    const { sessionId } = await store.runTurn('k', {}, () => {})
    const outcomes = eventsOf(directory, sessionId).flatMap((event) => (event.event === 'end' ? event.outcome : []))
    expect(outcomes).toEqual([...thrown.map(() => 'failed'), 'completed'])
    expect(leftBehind(directory)).toEqual([])
    expect((await store.verify()).ok).toBe(true)
  })
})

describe('close', () => {
  test('that has aborted the active turns begins no other ones: what was left stays pending for the next opening', async () => {
    // F34
    const { directory, store } = await freshStore({ closeMs: 30 })
    let calls = 0
    const untilAborted = async (turn: Turn) => {
      calls++
      await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
    }
    const running = store.runTurn('k', {}, untilAborted)
    await eventually(() => calls === 1)
    await store.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, never)
    await soon(store.close())
    await running
    expect(calls).toBe(1)
    const next = await opened(directory)
    expect((await next.runTurn('k', {}, async (turn) => textsOf(await turn.pending()))).value).toEqual(['b'])
  })
})

describe('a long line', () => {
  test('is known to whoever reads only the end of the transcript, though not every turn lists who waits', async () => {
    // F34, F35
    const { directory, store } = await freshStore()
    const first = await staying(store, 'k')
    const order: string[] = []
    const names = Array.from({ length: 60 }, (_, at) => `m${at}`)
    const filler = said('x'.repeat(20_000))
    const waiting = names.map((name) =>
      store.runTurn('k', { input: said(name) }, async (turn) => {
        order.push(...(textsOf(turn.inputs) as string[]))
        await turn.append(filler)
      }),
    )
    await eventually(() => inLog(store, 'k', 'm59'))
    first.go()
    await Promise.all(waiting.slice(0, 20))
    // It comes late, reads the end, and must neither take what others wait to run nor forget it.
    const late = await opened(directory, { durability: 'process' })
    const last = late.runTurn('k', { input: said('late') }, async (turn) => [textsOf(turn.inputs), textsOf(await turn.pending())])
    await Promise.all(waiting)
    expect((await last).value).toEqual([['late'], []])
    expect(order).toEqual(names)
    const lists = eventsOf(directory, first.turn.sessionId).filter((event) => 'pending' in event && Array.isArray(event.pending))
    expect(lists.length).toBeLessThan(60)
  })

  test('costs each turn the same: hundreds wait, and none of the locks is held for longer than that takes', async () => {
    // F12, F4
    const { store } = await freshStore()
    const first = await staying(store, 'k')
    const waiting = Array.from({ length: 300 }, (_, at) => store.runTurn('k', { input: said(`m${at}`) }, () => {}))
    await eventually(async () => (await store.turns()).length === 301 && (await inLog(store, 'k', 'm299')), 20_000)
    let longest = 0
    let last = performance.now()
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
    }, 1)
    first.go()
    await Promise.all(waiting)
    clearInterval(timer)
    console.log(`longest stop of the event loop: ${Math.round(longest)} ms`)
    expect(longest).toBeLessThan(150)
  })
})

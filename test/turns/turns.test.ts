/** One conversation, one turn at a time: who goes when, what is on the disk before anything is waited for, and who does not run at all. */
import { describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import type { StoredRecord } from '../../src/types.js'
import { filesIn, opened, refusal, storeDirectory } from '../metadata/store-directory.js'
import { answering, eventsOf, eventually, freshStore, inLog, leftBehind, said, staying, storyOf, textsOf } from './conversation.js'

describe('a turn', () => {
  test('has its input in the transcript, its own records behind it, and its start and end around them', async () => {
    const { directory, store } = await freshStore({ durability: 'power' })
    const result = await store.runTurn('k', { input: said('hello'), channelId: 'c-1', lane: 'subagent' }, async (turn) => {
      expect(turn).toMatchObject({ key: 'k', turn: 1, attempt: 1, channelId: 'c-1', lane: 'subagent' })
      expect(textsOf(turn.inputs)).toEqual(['hello'])
      expect(turn.inputs[0]).toMatchObject({ request: turn.requestId })
      expect(await turn.append([said('one'), said('two')])).toMatchObject({ sessionId: turn.sessionId, duplicate: false })
      return { done: true }
    })
    const records = await store.session('k').tail(9)
    expect(textsOf(records)).toEqual(['hello', 'one', 'two'])
    expect(records.map(({ turn }) => turn)).toEqual([undefined, 1, 1])
    expect(result).toMatchObject({ outcome: 'completed', turn: 1, attempt: 1, value: { done: true }, seqs: records.map(({ seq }) => seq) })
    expect(eventsOf(directory, result.sessionId)).toMatchObject([
      { event: 'start', n: 1, lane: 'subagent', channel: 'c-1', takes: [[result.requestId, records[0]!.seq, 1]] },
      { event: 'end', n: 1, outcome: 'completed', value: { done: true } },
    ])
    expect(leftBehind(directory)).toEqual([])
  })

  test('needs no input, and may have several records of it', async () => {
    const { store } = await freshStore()
    expect(await store.runTurn('k', {}, (turn) => turn.inputs.length)).toMatchObject({ outcome: 'completed', value: 0, seqs: [] })
    const input = [said('a'), said('b'), said('c')]
    expect((await store.runTurn('k', { input }, (turn) => textsOf(turn.inputs))).value).toEqual(['a', 'b', 'c'])
  })

  test('that throws is recorded as failed with what it threw; the error comes through as it is, and the next turn runs', async () => {
    const { directory, store } = await freshStore()
    const reason = new RangeError('no such tool')
    await expect(store.runTurn('k', { input: said('x') }, () => Promise.reject(reason))).rejects.toBe(reason)
    const { sessionId, turn } = await store.runTurn('k', {}, () => {})
    expect(turn).toBe(2)
    expect(eventsOf(directory, sessionId)[1]).toMatchObject({ event: 'end', n: 1, outcome: 'failed', error: 'RangeError: no such tool' })
  })

  test('may append to its own session outside the turn, and to others; nothing waits for itself', async () => {
    // F38, F5
    const { store } = await freshStore()
    const started = performance.now()
    await store.runTurn('k', { input: said('x') }, async (turn) => {
      await store.session('k').append(said('beside'))
      await store.update('k', (entry) => ({ ...entry, seen: true }))
      await store.runTurn('other', {}, () => store.session('k').append(said('from another')))
      await turn.append(said('within'))
    })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['x', 'beside', 'from another', 'within'])
    expect(performance.now() - started).toBeLessThan(2_000)
  })

  test('inside a turn of the same key is refused at once, and writes nothing; so it is from a turn of another key that runs inside it', async () => {
    // F5, F38
    const { store } = await freshStore()
    await store.runTurn('k', {}, async () => {
      for (const whenBusy of ['queue', 'interrupt'] as const) {
        const nested = () => store.runTurn('k', { whenBusy, input: said('never') }, () => {})
        const error = await refusal(nested)
        expect(error).toMatchObject({ code: 'TURN_BUSY', effect: 'none', retryable: false, details: { key: 'k', turn: 1 } })
        expect(error.message).toContain('wait for itself')
        await store.runTurn('other', {}, async () => expect(await refusal(nested)).toMatchObject({ code: 'TURN_BUSY', retryable: false }))
      }
    })
    expect(await inLog(store, 'k', 'never')).toBe(false)
    // What it has left running may ask again when it is over.
    const later = await store.runTurn('k', {}, () => ({ again: () => store.runTurn('k', {}, () => 'later') }))
    expect(await later.value!.again()).toMatchObject({ outcome: 'completed', value: 'later' })
  })
})

describe('requests for one key', () => {
  test('run one at a time, in the order in which they were made, with input or without', async () => {
    // P6; F31 within one process.
    const { store } = await freshStore()
    const order: string[] = []
    let inside = 0
    const first = await staying(store, 'k', { input: said('0') })
    const others = Array.from({ length: 20 }, (_, at) =>
      store.runTurn('k', at % 3 === 2 ? {} : { input: said(String(at + 1)) }, async (turn) => {
        expect(++inside).toBe(1)
        order.push(String(at + 1))
        await turn.append(said(`re: ${at + 1}`))
        inside--
      }),
    )
    first.go()
    const results = await Promise.all(others)
    expect(order).toEqual(Array.from({ length: 20 }, (_, at) => String(at + 1)))
    expect(results.map(({ turn }) => turn)).toEqual(Array.from({ length: 20 }, (_, at) => at + 2))
    expect(new Set(results.map(({ sessionId }) => sessionId)).size).toBe(1)
  })

  test('by two handles that do not know of each other run one at a time, too, in order', async () => {
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const order: string[] = []
    const first = await staying(store, 'k')
    const runs: Promise<unknown>[] = []
    for (const [at, by] of [store, other, other, store, other].entries()) {
      runs.push(by.runTurn('k', { input: said(String(at)) }, answering(order)))
      await eventually(() => inLog(store, 'k', String(at)))
    }
    first.go()
    await Promise.all(runs)
    expect(order).toEqual(['0', '1', '2', '3', '4'])
  })

  test('two first messages, at once, on two handles: one session, both messages in it', async () => {
    // F31
    const directory = storeDirectory()
    const [one, two] = [await opened(directory), await opened(directory)]
    const results = await Promise.all([one, two].map((by, at) => by.runTurn('k', { input: said(`m${at}`) }, answering())))
    expect(new Set(results.map(({ sessionId }) => sessionId)).size).toBe(1)
    expect(textsOf(await one.session('k').tail(9)).sort()).toEqual(['m0', 'm1', 're: m0', 're: m1'])
  })

  test('have their input on the disk before they wait: who dies in line has lost nothing', async () => {
    // F28, F35
    const { directory, store } = await freshStore({ durability: 'power' })
    const first = await staying(store, 'k')
    const waiting = store.runTurn('k', { input: said('hi'), requestId: 'r-1' }, answering())
    await eventually(() => inLog(store, 'k', 'hi'))
    // As another process sees it, while the first turn goes on.
    const observer = await opened(directory, { readOnly: true })
    expect(textsOf(await observer.session('k').tail(9))).toEqual(['hi'])
    expect((await observer.turns()).map(({ requestId, state, position }) => [requestId, state, position])).toEqual([
      [first.turn.requestId, 'active', 0],
      ['r-1', 'queued', 1],
    ])
    first.go()
    expect(await waiting).toMatchObject({ outcome: 'completed', value: 'answered hi' })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi', 're: hi'])
  })

  test('have their input on the disk also before they wait for a slot of the lane', async () => {
    // F28
    const { store } = await freshStore({ lanes: { cron: 1 } })
    const first = await staying(store, 'a', { lane: 'cron' })
    const waiting = store.runTurn('b', { lane: 'cron', input: said('hi') }, answering())
    await eventually(() => inLog(store, 'b', 'hi'))
    expect(await store.turns({ key: 'b' })).toMatchObject([{ state: 'queued', lane: 'cron' }])
    first.go()
    expect(await waiting).toMatchObject({ outcome: 'completed', turn: 1 })
  })
})

describe('a request that gives up', () => {
  test('while it waits, never runs later, keeps no place, and its input is withdrawn; asked again, it is appended anew', async () => {
    // F41
    const { directory, store } = await freshStore()
    const first = await staying(store, 'k', { input: said('first') })
    const giving = new AbortController()
    const reason = new Error('the client has gone')
    const ran: string[] = []
    const gone = store.runTurn('k', { input: said('hi'), requestId: 'r-1', signal: giving.signal }, answering(ran))
    gone.catch(() => {})
    await eventually(() => inLog(store, 'k', 'hi'))
    giving.abort(reason)
    await expect(gone).rejects.toBe(reason)
    expect(storyOf(directory, first.turn.sessionId)).toEqual(['start 1', 'withdraw'])
    expect(await first.turn.pending()).toEqual([])
    const again = store.runTurn('k', { input: said('hi'), requestId: 'r-1' }, async (turn) => {
      ran.push('again')
      return textsOf(await turn.tail(9))
    })
    first.go()
    expect(await again).toMatchObject({ outcome: 'completed', attempt: 1, turn: 2, value: ['first', 'hi'] })
    expect(ran).toEqual(['again'])
    expect(leftBehind(directory)).toEqual([])
  })

  test('because it was aborted before, does nothing at all', async () => {
    // F41
    const { directory, store } = await freshStore()
    await store.runTurn('k', {}, () => {})
    const before = filesIn(directory)
    await expect(store.runTurn('k', { input: said('x'), signal: AbortSignal.abort('no') }, () => {})).rejects.toBe('no')
    expect(filesIn(directory)).toEqual(before)
  })

  test('after its waitMs is told who is ahead, since when, and what to do; it never runs later', async () => {
    // F10, F41
    const { store } = await freshStore()
    const first = await staying(store, 'k', { requestId: 'long' })
    const error = await refusal(() => store.runTurn('k', { input: said('hi'), waitMs: 60 }, () => expect.fail('it ran')))
    expect(error).toMatchObject({ code: 'TURN_BUSY', kind: 'busy', effect: 'none', retryable: true })
    expect(error.message).toMatch(/waited \d+ ms .*request long/)
    expect(error.details.retryAfterMs).toBeGreaterThan(0)
    first.go()
    await first.result
    expect((await store.runTurn('k', {}, async (turn) => textsOf(await turn.tail(9)))).value).toEqual([])
  })

  test('on another handle, too, is told which process is ahead', async () => {
    // F10
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k', { requestId: 'long' })
    const error = await refusal(() => other.runTurn('k', { input: said('x'), waitMs: 60 }, () => expect.fail('it ran')))
    expect(error).toMatchObject({ code: 'TURN_BUSY', details: { holder: { pid: process.pid }, requestId: 'long', turn: 1 } })
    first.go()
    await first.result
  })

  test('for lack of room in the line is told so at once', async () => {
    const { store } = await freshStore({ lanes: { tight: 1 } })
    const first = await staying(store, 'k', { lane: 'tight' })
    const over = new AbortController()
    const waiting = Array.from({ length: 1_000 }, () => store.runTurn('k', { lane: 'tight', signal: over.signal }, () => {}))
    for (const one of waiting) one.catch(() => {})
    await eventually(async () => (await store.turns()).length === 1_001)
    expect(await refusal(() => store.runTurn('k', { lane: 'tight' }, () => {}))).toMatchObject({ code: 'LANE_FULL', effect: 'none' })
    over.abort(new Error('enough'))
    await Promise.allSettled(waiting)
    first.go()
    await first.result
  })
})

describe('slots', () => {
  test('of a lane bound how many turns run at once, whatever their keys; other lanes go on', async () => {
    const { store } = await freshStore({ lanes: { main: 2 } })
    const one = await staying(store, 'a')
    const two = await staying(store, 'b')
    let ran = false
    const third = store.runTurn('c', { input: said('x') }, () => {
      ran = true
    })
    await store.runTurn('d', { lane: 'subagent' }, () => {})
    await eventually(() => inLog(store, 'c', 'x'))
    expect(ran).toBe(false)
    two.go()
    await third
    one.go()
    await Promise.all([one.result, two.result])
  })

  test('and key are held until the function has settled, however long ago its time was over or its caller has gone', async () => {
    // F33
    const { store } = await freshStore({ lanes: { cron: 1 } })
    const caller = new AbortController()
    const deaf = await staying(store, 'k', { lane: 'cron', maxTurnMs: 100, signal: caller.signal })
    const aborted = new Promise((resolve) => deaf.turn.signal.addEventListener('abort', resolve))
    await aborted
    caller.abort(new Error('gone'))
    const ran: string[] = []
    const sameKey = store.runTurn('k', { lane: 'subagent' }, () => void ran.push('key'))
    const sameLane = store.runTurn('l', { lane: 'cron' }, () => void ran.push('lane'))
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(ran).toEqual([])
    deaf.go()
    await Promise.all([deaf.result, sameKey, sameLane])
    expect(ran.sort()).toEqual(['key', 'lane'])
  })
})

describe('what is handed in', () => {
  test('is checked before anything is done', async () => {
    const { directory, store } = await freshStore()
    const before = filesIn(directory)
    const work = () => expect.fail('it ran')
    const long = 'x'.repeat(257)
    const wrong: [object, string][] = [
      [{ requestId: '' }, 'INVALID_OPTION'],
      [{ requestId: long }, 'INVALID_OPTION'],
      [{ channelId: long }, 'INVALID_OPTION'],
      [{ lane: 'nowhere' }, 'INVALID_OPTION'],
      [{ whenBusy: 'maybe' }, 'INVALID_OPTION'],
      [{ maxTurnMs: 99 }, 'INVALID_OPTION'],
      [{ waitMs: -1 }, 'INVALID_OPTION'],
      [{ inputs: [] }, 'INVALID_OPTION'],
      [{ input: [] }, 'INVALID_RECORD'],
      [{ input: 'text' }, 'INVALID_RECORD'],
      [{ input: { $$: 1 } }, 'INVALID_RECORD'],
    ]
    for (const [options, code] of wrong)
      expect(await refusal(() => store.runTurn('k', options, work))).toMatchObject({ code, effect: 'none' })
    expect(await refusal(() => store.runTurn('', {}, work))).toMatchObject({ code: 'INVALID_KEY' })
    expect(await refusal(() => store.runTurn('k', {}, undefined as never))).toMatchObject({ code: 'INVALID_OPTION' })
    expect(await refusal(() => store.turns({ limit: -1 }))).toMatchObject({ code: 'INVALID_OPTION' })
    expect(filesIn(directory)).toEqual(before)
  })

  test('may be as hostile as it likes: keys, request ids and channel ids never become paths, and come back as they are', async () => {
    const { directory, store } = await freshStore()
    const names = ['__proto__', 'constructor', '../../up', 'a/b\\c', '.queue', 'é\u0301', '🙂'.repeat(100), '"},{"$$":{', '$', '*', ' ']
    for (const name of names) {
      const options = { requestId: name.slice(0, 256), channelId: name.slice(0, 256), input: said(name) }
      const { sessionId } = await store.runTurn(name, options, (turn) => turn.append(said(`re: ${name}`)))
      expect(await store.runTurn(name, options, () => expect.fail('it ran'))).toMatchObject({ outcome: 'duplicate', sessionId })
      expect(textsOf(await store.session(name).tail(9))).toEqual([name, `re: ${name}`])
      expect(await store.turns({ key: name })).toMatchObject([{ key: name, requestId: options.requestId, channelId: options.channelId }])
    }
    expect(leftBehind(directory)).toEqual([])
    expect([...filesIn(directory).keys()].filter((path) => !/^[\w./-]+$/.test(path))).toEqual([])
    expect((await store.verify()).ok).toBe(true)
  })

  test('a request id of 256 characters, and a channel id, are kept whole', async () => {
    const { store } = await freshStore()
    const id = `${'"\\é🙂'.repeat(51)}x`
    const first = await store.runTurn('k', { requestId: id, channelId: id, input: said('x') }, () => 7)
    expect(first.requestId).toBe(id)
    expect(await store.runTurn('k', { requestId: id }, () => 8)).toMatchObject({ outcome: 'duplicate', value: 7 })
  })

  test('on a read-only handle, or a closed one, is refused; looking is not', async () => {
    const { directory, store } = await freshStore()
    await store.runTurn('k', { requestId: 'r' }, () => {})
    const reader = await opened(directory, { readOnly: true })
    const before = filesIn(directory)
    expect(await refusal(() => reader.runTurn('k', {}, () => {}))).toMatchObject({ effect: 'none', kind: 'misuse' })
    expect(await refusal(() => reader.interrupt('k'))).toMatchObject({ effect: 'none' })
    expect(await reader.turns({ key: 'k' })).toMatchObject([{ requestId: 'r', state: 'completed' }])
    expect(filesIn(directory)).toEqual(before)
    const closed = await SessionStore.open(directory)
    await closed.close()
    const work = () => expect.fail('it ran')
    for (const call of [() => closed.runTurn('k', {}, work), () => closed.turns(), () => closed.interrupt('k')])
      expect(await refusal(call)).toMatchObject({ code: 'STORE_CLOSED', effect: 'none' })
  })

  test('reaches a turn as it was: the record is its own copy, at the place where it stands', async () => {
    const { store } = await freshStore()
    const input = { type: 'message', nested: { n: [1, 2] } }
    const seen: StoredRecord[] = []
    await store.runTurn('k', { input }, (turn) => void seen.push(...turn.inputs))
    input.nested.n.push(3)
    expect(seen[0]!.record).toEqual({ type: 'message', nested: { n: [1, 2] } })
  })
})

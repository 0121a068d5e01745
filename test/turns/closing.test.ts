/** The end of a store, what idle conversations cost, and what can be seen of turns. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { opened, refusal } from '../metadata/store-directory.js'
import { soaking } from '../processes/trials.js'
import { answering, eventually, freshStore, inLog, leftBehind, said, staying, storyOf, textsOf, transcriptOf } from './conversation.js'

/** With HOLDFAST_SOAK as many as the promise says; the rest is the same. */
const idle = soaking ? 10_000 : 2_000
const never = () => expect.fail('it ran')

describe('close', () => {
  test('waits for active turns, refuses new ones and those in line; what they had left is withdrawn', async () => {
    const { directory, store } = await freshStore()
    const first = await staying(store, 'k', { input: said('a') })
    const waiting = store.runTurn('k', { input: said('b') }, never)
    waiting.catch(() => {})
    await eventually(() => inLog(store, 'k', 'b'))
    const closing = store.close()
    expect(await refusal(() => waiting)).toMatchObject({ code: 'STORE_CLOSED', effect: 'none' })
    expect(await refusal(() => store.runTurn('k', {}, never))).toMatchObject({ code: 'STORE_CLOSED' })
    await first.turn.append(said('re: a'))
    first.go('done')
    expect(await first.result).toMatchObject({ outcome: 'completed', value: 'done' })
    await closing
    expect(storyOf(directory, first.turn.sessionId)).toEqual(['start 1', 'withdraw', 'end 1 completed'])
    expect(leftBehind(directory)).toEqual([])
  })

  test('refuses at once, too, whoever waits for a turn of another process; and what they had left is withdrawn before it returns', async () => {
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k')
    const waiting = [0, 1].map((at) => other.runTurn('k', { input: said(`b${at}`) }, never))
    for (const one of waiting) one.catch(() => {})
    await eventually(async () => (await inLog(store, 'k', 'b0')) && (await inLog(store, 'k', 'b1')))
    const started = performance.now()
    await other.close()
    expect(performance.now() - started).toBeLessThan(5_000)
    for (const one of waiting) expect(await refusal(() => one)).toMatchObject({ code: 'STORE_CLOSED', effect: 'none' })
    expect(storyOf(directory, first.turn.sessionId)).toEqual(['start 1', 'withdraw', 'withdraw'])
    first.go()
    await first.result
    expect(leftBehind(directory)).toEqual([])
  })

  test('after closeMs aborts what still runs, and waits for it to settle', async () => {
    const { directory, store } = await freshStore({ closeMs: 50 })
    const running = store.runTurn('k', {}, async (turn) => {
      await new Promise((resolve) => turn.signal.addEventListener('abort', resolve))
      await turn.append(said('stopped'))
      throw turn.signal.reason
    })
    running.catch(() => {})
    await eventually(async () => (await store.turns()).some(({ state }) => state === 'active'))
    await store.close()
    await expect(running).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    const later = await opened(directory)
    expect(await later.turns({ key: 'k' })).toMatchObject([{ state: 'interrupted' }])
    expect(textsOf(await later.session('k').tail(9))).toEqual(['stopped'])
  })

  test('names those that run nevertheless, leaves the store open for their appends, and can be called again', async () => {
    const { store } = await freshStore({ closeMs: 20 })
    const deaf = await staying(store, 'k', { requestId: 'r-1' })
    const error = await refusal(() => store.close())
    expect(error).toMatchObject({ code: 'TURN_BUSY', details: { running: [{ key: 'k', turn: 1, requestId: 'r-1' }] } })
    expect(deaf.turn.signal.aborted).toBe(true)
    await deaf.turn.append(said('still here'))
    expect(await refusal(() => store.runTurn('l', {}, never))).toMatchObject({ code: 'STORE_CLOSED' })
    deaf.go()
    await deaf.result
    await store.close()
  }, 20_000)

  test('answers what was left for a turn that ends meanwhile; what comes too late for that stays for the next opening', async () => {
    // F34
    const { directory, store } = await freshStore({ closeMs: 1_000 })
    const answered: unknown[] = []
    let calls = 0
    const running = store.runTurn('k', {}, async (turn) => {
      calls++
      answered.push(...textsOf(await turn.pending()))
      if (calls > 1) return
      await store.runTurn('k', { whenBusy: 'coalesce', input: said('b') }, never)
      void store.close()
    })
    await running
    await store.close()
    const next = await opened(directory)
    await next.runTurn('k', {}, async (turn) => void answered.push(...textsOf(await turn.pending())))
    expect(answered).toEqual(['b'])
    expect(leftBehind(directory)).toEqual([])
  })
})

describe('idle conversations', () => {
  test('thousands of them leave nothing beside their transcripts, on the disk or in memory', async () => {
    // F39
    const { directory, store } = await freshStore()
    let next = 0
    const some = async () => {
      while (next < idle) await store.runTurn(`k${next++}`, {}, () => {})
    }
    await Promise.all(Array.from({ length: 64 }, some))
    expect(leftBehind(directory)).toEqual([])
    expect(await store.turns()).toEqual([])
    await eventually(() => leftBehind(directory, 'anything').length === 0)
  })

  test('are forgotten beside their transcripts when the store is closed', async () => {
    // F39
    const { directory, store } = await freshStore()
    for (let n = 0; n < 50; n++) await store.runTurn(`k${n}`, { input: said('x') }, () => {})
    await store.close()
    expect(leftBehind(directory, 'anything')).toEqual([])
  })
})

describe('turns()', () => {
  test('shows who is active and who waits, of all keys and handles, in order, with what they are about', async () => {
    const { directory, store } = await freshStore()
    const other = await opened(directory, { durability: 'process' })
    const first = await staying(store, 'k', { requestId: 'r-1', channelId: 'c-1' })
    const waits = [store, other].map((by, at) =>
      by.runTurn('k', { requestId: `w-${at}`, lane: 'cron', input: said(`w${at}`) }, answering()),
    )
    const second = await staying(other, 'l')
    await eventually(async () => (await store.turns()).length === 4)
    const listed = await other.turns({ key: 'k' })
    expect(listed).toMatchObject([
      {
        key: 'k',
        state: 'active',
        position: 0,
        requestId: 'r-1',
        channelId: 'c-1',
        lane: 'main',
        turn: 1,
        sessionId: first.turn.sessionId,
      },
      { key: 'k', state: 'queued', position: 1, requestId: 'w-0', lane: 'cron', turn: undefined },
      { key: 'k', state: 'queued', position: 2, requestId: 'w-1', lane: 'cron', turn: undefined },
    ])
    for (const { ageMs, since, holder } of listed) {
      expect(ageMs).toBeGreaterThanOrEqual(0)
      expect(Math.abs(Date.now() - since)).toBeLessThan(10_000)
      expect(holder).toMatchObject({ pid: process.pid, verdict: 'alive' })
    }
    first.go()
    second.go()
    await Promise.all([...waits, first.result, second.result])
    expect(await store.turns()).toEqual([])
  })

  test('of one key shows those that are over, too, newest first, with what became of them', async () => {
    const { store } = await freshStore()
    await store.runTurn('k', { requestId: 'a' }, () => {})
    await store.runTurn('k', { requestId: 'b' }, () => Promise.reject(new Error('no'))).catch(() => {})
    const interrupted = await staying(store, 'k', { requestId: 'c' })
    await store.interrupt('k')
    interrupted.go()
    await interrupted.result
    const last = await staying(store, 'k', { requestId: 'd' })
    const of = async (limit?: number) => (await store.turns({ key: 'k', limit })).map(({ requestId, state }) => `${requestId} ${state}`)
    expect(await of()).toEqual(['d active', 'c interrupted', 'b failed', 'a completed'])
    expect(await of(2)).toEqual(['d active', 'c interrupted'])
    expect(await of(0)).toEqual(['d active'])
    last.go()
    await last.result
    expect(await of(1)).toEqual(['d completed'])
    expect(await store.turns({ key: 'nobody' })).toEqual([])
  })
})

describe('a damaged transcript', () => {
  test('refuses turns, and keeps its bytes; other conversations go on', async () => {
    // F21
    const { directory, store } = await freshStore()
    const { sessionId } = await store.runTurn('k', { input: said('a') }, answering())
    await store.close()
    const path = transcriptOf(directory, sessionId)
    const bytes = readFileSync(path)
    bytes[bytes.indexOf('re: a') + 1] = 0x58
    writeFileSync(path, bytes)
    const later = await opened(directory)
    for (const requestId of [undefined, 'r-1'])
      for (const whenBusy of ['queue', 'coalesce', 'reject', 'interrupt'] as const)
        expect(await refusal(() => later.runTurn('k', { input: said('b'), requestId, whenBusy }, never))).toMatchObject({
          code: 'LOG_CORRUPT',
          effect: 'none',
        })
    expect(readFileSync(path)).toEqual(bytes)
    expect(leftBehind(directory)).toEqual([])
    expect(await later.runTurn('l', { input: said('b') }, answering())).toMatchObject({ outcome: 'completed' })
  })

  test('while a turn is active tells the turn, which ends; nothing is held afterwards', async () => {
    const { directory, store } = await freshStore()
    const { turn, go, result } = await staying(store, 'k', { input: said('a') })
    appendFileSync(transcriptOf(directory, turn.sessionId), '{"type":"message","$":"9.0.9.abcdabcd.00000000.00000000"}\n')
    expect(await refusal(() => turn.append(said('b')))).toMatchObject({ code: 'LOG_CORRUPT' })
    go()
    await expect(result).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    expect(leftBehind(directory)).toEqual([])
    expect(await refusal(() => store.runTurn('k', {}, never))).toMatchObject({ code: 'LOG_CORRUPT' })
  })
})

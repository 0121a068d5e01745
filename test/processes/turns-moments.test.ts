/** Single moments between processes: who is there first, who is frozen, who is dead, and what becomes of what others have said meanwhile. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { opened } from '../metadata/store-directory.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { eventually, inLog, leftBehind, said, staying, storyOf, textsOf } from '../turns/conversation.js'
import { freshDirectory, freshSeed, longer } from './trials.js'
import { startTurnPuppet } from './turns-puppet.js'

const freshStore = () => join(freshDirectory(), 'store')
const at = async <T>(work: Promise<T>, ms: number): Promise<T> => {
  const sinceMs = performance.now()
  const result = await work
  expect(performance.now() - sinceMs).toBeLessThan(ms)
  return result
}

test('eight processes with a first message each for one key meet in one session, and every message is answered in it', async () => {
  // F31
  const dir = freshStore()
  const puppets = await Promise.all(Array.from({ length: 8 }, () => startTurnPuppet(dir)))
  const store = await opened(dir)
  for (let round = 0; round < 10 * longer; round++) {
    const key = `k${round}`
    const results = await Promise.all(puppets.map((puppet, n) => puppet.run(key, { input: said(`${n}`) })))
    expect(new Set(results.map(({ sessionId }) => sessionId))).toEqual(new Set([(await store.get(key))!.sessionId]))
    expect(results.map(({ turn }) => turn).sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    const texts = textsOf(await store.session(key).tail(99)) as string[]
    expect(texts.sort()).toEqual([...Array(8).keys()].flatMap((n) => [`${n}`, `re: ${n}`]).sort())
  }
  await eventually(() => leftBehind(dir).length === 0)
})

describe('a request whose process dies', () => {
  test('in line, has its input on the disk; asked again by another process, it is served once, with its input once', async () => {
    // F35
    const dir = freshStore()
    const [active, dying, again] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir), startTurnPuppet(dir)])
    const store = await opened(dir)
    const first = await active.stay('k')
    const request = { requestId: 'r', input: said('hi') }
    void dying.run('k', request).catch(() => {})
    await eventually(() => inLog(store, 'k', 'hi'))
    await dying.killed()
    const retried = again.run('k', request)
    await eventually(async () => (await store.turns()).length === 2)
    first.go()
    expect(await retried).toMatchObject({ outcome: 'completed', attempt: 1 })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi', 're: hi'])
    expect(await active.run('k', request)).toMatchObject({ outcome: 'duplicate' })
  })

  test('in line, and that is not asked again, is answered by whoever comes next', async () => {
    // F34
    const dir = freshStore()
    const [active, dying] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir)])
    const store = await opened(dir)
    const first = await active.stay('k')
    void dying.run('k', { input: said('hi') }).catch(() => {})
    await eventually(() => inLog(store, 'k', 'hi'))
    await dying.killed()
    expect(await first.pending()).toEqual(['hi'])
    first.go()
    expect(await first.result).toMatchObject({ outcome: 'completed' })
  })

  test('inside its turn, is taken over at once; the turn is interrupted, and asked again it is the second attempt', async () => {
    // F6, F35
    const dir = freshStore()
    const [dying, next] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir)])
    const store = await opened(dir)
    const request = { requestId: 'r', input: said('hi') }
    const turn = await dying.stay('k', request)
    await turn.append('half of')
    await dying.killed()
    expect(await store.turns({ key: 'k' })).toMatchObject([{ state: 'interrupted', turn: 1, requestId: 'r' }])
    expect(await at(next.run('k', request), 1_000)).toMatchObject({ outcome: 'completed', attempt: 2, turn: 2 })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['hi', 'half of', 're: hi'])
    expect(storyOf(dir, (await store.get('k'))!.sessionId)).toEqual(['start 1', 'start 2', 'end 2 completed'])
  })

  test('with a message left for it, has it answered by the next turn', async () => {
    // F34
    const dir = freshStore()
    const [dying, other, next] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir), startTurnPuppet(dir)])
    await dying.stay('k')
    expect(await other.run('k', { whenBusy: 'coalesce', input: said('b') })).toMatchObject({ outcome: 'coalesced', turn: 1 })
    await dying.killed()
    const turn = await at(next.stay('k'), 1_000)
    expect(await turn.pending()).toEqual(['b'])
  })

  test('is dead before somebody leaves a message for it: that one runs by itself', async () => {
    // F34
    const dir = freshStore()
    const [dying, other] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir)])
    await dying.stay('k')
    await dying.killed()
    expect(await at(other.run('k', { whenBusy: 'coalesce', input: said('b') }), 1_000)).toMatchObject({ outcome: 'completed', turn: 2 })
  })
})

test('a message is not left for a turn whose holder is dead, though somebody else has the lease, and then gives up', async () => {
  // F34
  const dir = freshStore()
  const [dying, other] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir)])
  const store = await opened(dir, { lanes: { cron: 1 } })
  await dying.stay('k')
  await dying.killed()
  const slot = await staying(store, 'elsewhere', { lane: 'cron' })
  const giving = new AbortController()
  const between = store.runTurn('k', { lane: 'cron', input: said('a'), signal: giving.signal }, () => expect.fail('it ran'))
  between.catch(() => {})
  await eventually(() => inLog(store, 'k', 'a'))
  const left = other.run('k', { whenBusy: 'coalesce', input: said('b') })
  await eventually(() => inLog(store, 'k', 'b'))
  giving.abort(new Error('gone'))
  expect(await left).toMatchObject({ outcome: 'completed', turn: 2 })
  slot.go()
  await Promise.allSettled([between, slot.result])
})

describe('a process that is frozen inside its turn', () => {
  test('keeps nobody from leaving a notice: it is on the disk at once, and the turn sees it when it wakes', async () => {
    // F37
    const dir = freshStore()
    const [frozen, other] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir)])
    const store = await opened(dir)
    const turn = await frozen.stay('k')
    frozen.signal('SIGSTOP')
    const left = await at(other.run('k', { whenBusy: 'coalesce', input: said('the child task is done') }), 1_000)
    expect(left).toMatchObject({ outcome: 'coalesced', turn: 1 })
    await at(store.session('k').append(said('a mirror')), 1_000)
    const found = (await store.session('k').tail(9)).find(({ seq }) => seq === left.seqs[0])
    expect(found?.record).toEqual(said('the child task is done'))
    frozen.signal('SIGCONT')
    expect(await turn.pending()).toEqual(['the child task is done'])
    turn.go()
    expect(await turn.result).toMatchObject({ outcome: 'completed' })
  })

  test('beyond its time is overtaken; when it wakes, it adds nothing, and its result is not the answer', async () => {
    // F1
    const dir = freshStore()
    const [frozen, next] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir)])
    const store = await opened(dir)
    const turn = await frozen.stay('k', { maxTurnMs: 200, requestId: 'r', input: said('a') })
    frozen.signal('SIGSTOP')
    const second = await at(next.stay('k', { input: said('b') }), 2_000)
    expect(second.turn).toBe(2)
    frozen.signal('SIGCONT')
    await expect(turn.append('late')).rejects.toMatchObject({ code: 'TURN_LOST', effect: 'none' })
    await second.append('re: b')
    turn.go()
    await expect(turn.result).rejects.toMatchObject({ code: 'TURN_LOST' })
    second.go()
    expect(await second.result).toMatchObject({ outcome: 'completed', turn: 2 })
    expect(textsOf(await store.session('k').tail(9))).toEqual(['a', 'b', 're: b'])
    expect(await next.run('k', { requestId: 'r', input: said('a') })).toMatchObject({ outcome: 'completed', attempt: 2 })
  })

  test('while it waits for a slot of its lane, is overtaken, and waits anew when it wakes: it is served all the same', async () => {
    // F33
    const dir = freshStore()
    const [frozen, next] = await Promise.all([startTurnPuppet(dir, { lanes: { cron: 1 } }), startTurnPuppet(dir)])
    const store = await opened(dir)
    const slot = await frozen.stay('elsewhere', { lane: 'cron' })
    const waiting = frozen.run('k', { lane: 'cron', maxTurnMs: 200, input: said('a') })
    await eventually(() => inLog(store, 'k', 'a'))
    frozen.signal('SIGSTOP')
    expect(await at(next.run('k', { input: said('b') }), 2_000)).toMatchObject({ outcome: 'completed', turn: 1 })
    frozen.signal('SIGCONT')
    slot.go()
    expect(await waiting).toMatchObject({ outcome: 'completed', turn: 2 })
  })
})

test('messages left at the very end of a turn, at random: each is answered once, by that turn or by one that follows, or runs by itself', async () => {
  // F34
  const seed = freshSeed()
  const random = seededRandom(Number.parseInt(seed, 16))
  const dir = freshStore()
  const [one, two, three] = await Promise.all([startTurnPuppet(dir), startTurnPuppet(dir), startTurnPuppet(dir)])
  const store = await opened(dir)
  const outcomes = new Map<string, number>()
  for (let round = 0; round < 60 * longer; round++) {
    const text = `${round} ${randomBytes(3).toString('hex')}`
    const turn = await one.stay('k', { whenBusy: 'queue' })
    const left = [two, three].map(async (puppet, n) => {
      await pause(random() * 4)
      return puppet.run('k', { whenBusy: 'coalesce', input: said(`${text} ${n}`) })
    })
    await pause(random() * 4)
    turn.go()
    for (const { outcome } of await Promise.all(left)) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    await eventually(() => leftBehind(dir).length === 0)
    const seen = textsOf((await store.runTurn('k', {}, (last) => last.tail(40))).value!)
    for (const n of [0, 1]) expect(seen.filter((each) => each === `${text} ${n}`)).toHaveLength(1)
  }
  console.log(`left at the end: seed ${seed}, ${JSON.stringify([...outcomes])}`)
  const { sessionId } = (await store.get('k'))!
  expect(storyOf(dir, sessionId).filter((event) => event.startsWith('start')).length).toBe(
    storyOf(dir, sessionId).filter((event) => event.endsWith('completed')).length,
  )
})

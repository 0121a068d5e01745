/** Lanes within one process: first come, first served; nobody is let in too many, none is forgotten, and nobody runs who has gone away. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/clock.js'
import { isStoreError, type StoreError } from '../../src/errors.js'
import { Lanes, type LanesOptions, type Leave } from '../../src/turns/lanes.js'
import type { About } from '../../src/turns/line.js'
import { HeldClock, settled } from './held-clock.js'

const numRuns = process.env.HOLDFAST_SOAK ? 5_000 : 150

function lanesWith(options: LanesOptions = {}, slots: Record<string, number> = {}) {
  const clock = new HeldClock()
  return { clock, lanes: new Lanes(clock, slots, options) }
}

const asking = (about: About = {}, waitMs = 60_000, signal?: AbortSignal) => ({ about, waitMs, signal })

async function refusal(work: Promise<unknown>): Promise<StoreError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!isStoreError(error)) throw new Error(`not refused, but: ${error}`)
  return error
}

describe('a key', () => {
  test('lets one in at a time, in the order in which they came', async () => {
    // F31: whoever asks, one conversation has one line.
    const { lanes } = lanesWith()
    const order: number[] = []
    let inside = 0
    await Promise.all(
      Array.from({ length: 20 }, async (_, at) => {
        const leave = await lanes.enterKey('k', asking())
        expect(++inside).toBe(1)
        order.push(at)
        for (let turns = at % 3; turns > 0; turns--) await settled()
        inside--
        leave()
      }),
    )
    expect(order).toEqual(Array.from({ length: 20 }, (_, at) => at))
  })

  test('does not stand in the way of another key, whatever its name', async () => {
    const { lanes } = lanesWith()
    const names = ['a', 'A', '__proto__', 'constructor', 'main', '']
    const leaves = await Promise.all(names.map((name) => lanes.enterKey(name, asking({}, 0))))
    expect(lanes.size).toBe(names.length)
    for (const leave of leaves) leave()
    expect(lanes.size).toBe(0)
  })

  test('is forgotten as soon as nobody is inside', async () => {
    // F39
    const { lanes } = lanesWith()
    for (let at = 0; at < 10_000; at++) (await lanes.enterKey(`key ${at}`, asking({ at })))()
    expect(lanes.size).toBe(0)
    const leave = await lanes.enterKey('k', asking())
    const stop = new AbortController()
    const gone = lanes.enterKey('k', asking({}, 1_000, stop.signal)).catch(() => {})
    stop.abort()
    await gone
    await refusal(lanes.enterKey('k', asking({}, 0)))
    expect(lanes.isBusy('k')).toBe(true)
    leave()
    expect(lanes.isBusy('k')).toBe(false)
    expect(lanes.size).toBe(0)
  })

  test('lets nobody in twice for one leave, however often it is called', async () => {
    const { lanes } = lanesWith()
    const first = await lanes.enterKey('k', asking())
    const letIn: string[] = []
    const second = lanes.enterKey('k', asking())
    void second.then(() => letIn.push('second'))
    void lanes.enterKey('k', asking()).then(() => letIn.push('third'))
    first()
    first()
    first()
    await settled()
    expect(letIn).toEqual(['second'])
    first()
    ;(await second)()
    await settled()
    expect(letIn).toEqual(['second', 'third'])
    // Nor is the third one forgotten for it.
    expect(await lanes.close(0)).toHaveLength(1)
    let closed = false
    void lanes.close(1_000).then(() => {
      closed = true
    })
    await settled()
    expect(closed).toBe(false)
  })
})

describe('a lane', () => {
  test('lets as many in as it has slots: main 4, subagent 8, cron 1, and any that the store names', async () => {
    const { lanes } = lanesWith({}, { main: 2, nightly: 3 })
    for (const [name, slots] of Object.entries({ main: 2, subagent: 8, cron: 1, nightly: 3 })) {
      for (let at = 0; at < slots; at++) await lanes.enterLane(name, asking({ at }, 0))
      expect(await refusal(lanes.enterLane(name, asking({}, 0)))).toMatchObject({ code: 'LANE_FULL' })
    }
    for (let at = 0; at < 4; at++) await lanesWith().lanes.enterLane('main', asking({}, 0))
  })

  test('that nobody has named is refused at once, with those that there are', async () => {
    const { lanes } = lanesWith({}, { nightly: 3 })
    for (const name of ['mian', '', '__proto__', 'constructor']) {
      expect(() => lanes.assertLane(name)).toThrow(/INVALID_OPTION/)
      const error = await refusal(lanes.enterLane(name, asking()))
      expect(error).toMatchObject({ code: 'INVALID_OPTION', details: { lane: name, lanes: ['main', 'subagent', 'cron', 'nightly'] } })
    }
    lanes.assertLane('nightly')
  })

  test('cannot be made without slots, with half of one, or without a name', () => {
    for (const slots of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 10_001])
      expect(() => lanesWith({}, { main: slots })).toThrow(/INVALID_OPTION/)
    for (const name of ['', 'a b', 'x'.repeat(65)]) expect(() => lanesWith({}, { [name]: 1 })).toThrow(/INVALID_OPTION/)
  })

  test('keeps a slot taken until the work has settled: not an hour, nor an abort of whoever is inside, frees it', async () => {
    // F33
    const { clock, lanes } = lanesWith()
    const stop = new AbortController()
    const leave = await lanes.enterLane('cron', asking({}, 1_000, stop.signal))
    stop.abort()
    let ran = false
    const next = lanes.enterLane('cron', asking({}, 7_200_000)).then((it) => {
      ran = true
      return it
    })
    await clock.pass(3_600_000)
    expect(ran).toBe(false)
    leave()
    ;(await next)()
    expect(ran).toBe(true)
  })
})

describe('who waits', () => {
  test('and is aborted leaves the line, never runs later, and is told the reason as it is', async () => {
    // F41
    const { clock, lanes } = lanesWith()
    const leave = await lanes.enterKey('k', asking())
    const stop = new AbortController()
    const ran: string[] = []
    const aborted = lanes.enterKey('k', asking({}, 1_000, stop.signal)).then(() => ran.push('aborted'))
    const behind = lanes.enterKey('k', asking()).then(() => ran.push('behind'))
    const reason = { the: 'user has gone' }
    stop.abort(reason)
    await expect(aborted).rejects.toBe(reason)
    leave()
    await behind
    await clock.pass(10_000)
    expect(ran).toEqual(['behind'])
    expect(clock.sleeping).toBe(0)
  })

  test('and is aborted in the moment in which it is let in does not run either, and the next one does', async () => {
    // F41
    const { lanes } = lanesWith()
    const leave = await lanes.enterKey('k', asking())
    const stop = new AbortController()
    const aborted = lanes.enterKey('k', asking({}, 1_000, stop.signal))
    const behind = lanes.enterKey('k', asking())
    leave()
    stop.abort('too late')
    await expect(aborted).rejects.toBe('too late')
    ;(await behind)()
    expect(lanes.size).toBe(0)
  })

  test('with a signal that is aborted already does not come in, even where nobody is', async () => {
    const { lanes } = lanesWith()
    await expect(lanes.enterKey('k', asking({}, 1_000, AbortSignal.abort('no')))).rejects.toBe('no')
    expect(lanes.size).toBe(0)
  })

  test('for a key learns in time who is ahead, since when, and what to do next', async () => {
    // F10, F40
    const { clock, lanes } = lanesWith()
    const since = clock.wallMs()
    await lanes.enterKey('agent:main', asking({ key: 'agent:main', requestId: 'r-17', channelId: 'tg-4' }))
    await clock.pass(2_000)
    void lanes.enterKey('agent:main', asking({ requestId: 'r-18' })).catch(() => {})
    const late = refusal(lanes.enterKey('agent:main', asking({ requestId: 'r-19' }, 5_000)))
    await clock.pass(5_000)
    const error = await late
    expect(error).toMatchObject({ code: 'TURN_BUSY', kind: 'busy', effect: 'none', retryable: true })
    expect(error.details).toMatchObject({
      key: 'agent:main',
      waitMs: 5_000,
      ahead: [{ requestId: 'r-17', channelId: 'tg-4', since, heldMs: 7_000 }],
      waitingBefore: 1,
      queued: 2,
      retryAfterMs: 7_000,
    })
    for (const said of ['waited 5000 ms', '"agent:main"', 'request r-17', 'for 7000 ms', '1 more', 'not run', 'Try again in 7000 ms'])
      expect(error.message).toContain(said)
  })

  test('for a lane learns the same', async () => {
    const { clock, lanes } = lanesWith({ queuedMax: 7 })
    await lanes.enterLane('cron', asking({ key: 'a', requestId: 'r-1' }))
    const late = refusal(lanes.enterLane('cron', asking({}, 300)))
    await clock.pass(300)
    const error = await late
    expect(error).toMatchObject({ code: 'LANE_FULL', kind: 'busy', effect: 'none', retryable: true })
    expect(error.details).toMatchObject({
      lane: 'cron',
      slots: 1,
      max: 7,
      waitMs: 300,
      ahead: [{ requestId: 'r-1', heldMs: 300 }],
      retryAfterMs: 300,
    })
    for (const said of ['lane cron', '1 slots', 'request r-1', 'Try again']) expect(error.message).toContain(said)
  })

  test('finds a bounded line: one too many is refused at once, and told how long the line is', async () => {
    const { clock, lanes } = lanesWith({ queuedMax: 3 })
    for (const [kind, enter] of [
      ['key', (about: About) => lanes.enterKey('k', asking(about))],
      ['lane', (about: About) => lanes.enterLane('cron', asking(about))],
    ] as const) {
      const leave = await enter({ requestId: 'r-0' })
      const waiting = Array.from({ length: 3 }, (_, at) => enter({ at }))
      const error = await refusal(enter({}))
      expect(error).toMatchObject({ code: 'LANE_FULL', kind: 'busy', effect: 'none', retryable: true })
      expect(error.details).toMatchObject({ [kind]: kind === 'key' ? 'k' : 'cron', queued: 3, max: 3, retryAfterMs: expect.any(Number) })
      expect(clock.sleeping).toBe(3)
      leave()
      for (const next of waiting) (await next)()
      expect(clock.sleeping).toBe(0)
    }
  })

  test('for longer than usual is reported, once, with who is ahead', async () => {
    const messages: About[] = []
    const { clock, lanes } = lanesWith({ report: (message) => messages.push(message), reportAfterMs: 10_000 })
    const leave = await lanes.enterKey('k', asking({ requestId: 'r-1', sessionId: 's' }))
    const next = lanes.enterKey('k', asking({ key: 'k', requestId: 'r-2', channelId: 'c' }))
    await clock.pass(9_999)
    expect(messages).toEqual([])
    await clock.pass(50_000 - 1)
    expect(messages).toMatchObject([
      {
        event: 'waiting',
        key: 'k',
        requestId: 'r-2',
        channelId: 'c',
        waitedMs: 10_000,
        waitingBefore: 0,
        ahead: [{ requestId: 'r-1', sessionId: 's', heldMs: 10_000 }],
      },
    ])
    leave()
    ;(await next)()
    expect(messages).toHaveLength(1)
  })

  test('for days is not late after a moment, as a timer of 32 bits would have it', async () => {
    let sleeps = 0
    const sleep = (ms: number, signal?: AbortSignal) => {
      sleeps++
      return systemClock.sleep(ms, signal)
    }
    const lanes = new Lanes({ ...systemClock, sleep }, {}, { reportAfterMs: Number.POSITIVE_INFINITY })
    const leave = await lanes.enterKey('k', asking())
    const next = lanes.enterKey('k', asking({}, Number.POSITIVE_INFINITY))
    const other = lanes.enterKey('k', asking({}, 86_400_000 * 30))
    await new Promise((resolve) => setTimeout(resolve, 20))
    leave()
    ;(await next)()
    ;(await other)()
    expect(sleeps).toBe(2)
  })

  test('knows its place in the line', async () => {
    const { lanes } = lanesWith()
    const abouts = Array.from({ length: 5 }, (_, at) => ({ at }))
    const stop = new AbortController()
    const entering = abouts.map((about, at) => lanes.enterKey('k', asking(about, 60_000, at === 2 ? stop.signal : undefined)))
    void entering[2]!.catch(() => {})
    expect(abouts.map((about) => lanes.position(about))).toEqual([0, 1, 2, 3, 4])
    stop.abort()
    expect(abouts.map((about) => lanes.position(about))).toEqual([0, 1, undefined, 2, 3])
    ;(await entering[0]!)()
    expect(abouts.map((about) => lanes.position(about))).toEqual([undefined, 0, undefined, 1, 2])
    const found = [...lanes.standings()].map(({ in: kind, name, about, position }) => ({ kind, name, at: about.at, position }))
    expect(found).toEqual([1, 3, 4].map((at, position) => ({ kind: 'key', name: 'k', at, position })))
  })
})

describe('closing', () => {
  test('refuses who comes and who waits, waits for who is inside, and is over as soon as the last one has left', async () => {
    const { clock, lanes } = lanesWith()
    const leave = await lanes.enterKey('k', asking())
    const leaveLane = await lanes.enterLane('cron', asking())
    const waiting = [refusal(lanes.enterKey('k', asking())), refusal(lanes.enterLane('cron', asking()))]
    let left: unknown
    const closed = lanes.close(30_000).then((still) => {
      left = still
    })
    for (const refused of waiting) expect(await refused).toMatchObject({ code: 'STORE_CLOSED', effect: 'none' })
    expect(await refusal(lanes.enterKey('new', asking()))).toMatchObject({ code: 'STORE_CLOSED' })
    expect(await refusal(lanes.enterLane('main', asking()))).toMatchObject({ code: 'STORE_CLOSED' })
    await clock.pass(1_000)
    leaveLane()
    await clock.pass(1_000)
    expect(left).toBeUndefined()
    leave()
    await closed
    expect(left).toEqual([])
    expect(lanes.size).toBe(0)
    expect(await lanes.close(0)).toEqual([])
  })

  test('says after its bound who is still inside, and since when; their slots stay taken', async () => {
    const { clock, lanes } = lanesWith()
    const about = { key: 'k', requestId: 'r-1' }
    const leave = await lanes.enterKey('k', asking(about))
    await lanes.enterLane('main', asking(about))
    const closed = lanes.close(30_000)
    await clock.pass(30_000)
    expect(await closed).toMatchObject([
      { in: 'key', name: 'k', about, position: 0, ageMs: 30_000 },
      { in: 'lane', name: 'main', about, position: 0, ageMs: 30_000 },
    ])
    expect(lanes.size).toBe(1)
    leave()
    expect(lanes.size).toBe(0)
  })
})

// — against a model —

const steps = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('enter' as const), key: fc.nat(2), waitMs: fc.constantFrom(0, 40, 100, 1e6) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('leave' as const, 'leaveAndAbortNext' as const), which: fc.nat() }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('abort' as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 30, 70) }) },
  ),
  { maxLength: 80 },
)

type State = 'waiting' | 'inside' | 'left' | 'refused' | 'aborted'

/** Everything as a list that is walked from the front. */
class Model {
  readonly callers: { key: number; lateAtMs: number; state: State }[] = []
  constructor(
    readonly slots: number,
    readonly queuedMax: number,
  ) {}

  of(key: number, state: State): number[] {
    return this.callers.flatMap((caller, id) => (caller.key === key && caller.state === state ? [id] : []))
  }

  enter(key: number, lateAtMs: number, nowMs: number): void {
    const state =
      this.of(key, 'inside').length < this.slots
        ? 'inside'
        : lateAtMs <= nowMs || this.of(key, 'waiting').length >= this.queuedMax
          ? 'refused'
          : 'waiting'
    this.callers.push({ key, lateAtMs, state })
  }

  leave(id: number, last: State = 'left'): number | undefined {
    this.callers[id]!.state = last
    const [next] = this.of(this.callers[id]!.key, 'waiting')
    if (next !== undefined) this.callers[next]!.state = 'inside'
    return next
  }

  pass(nowMs: number): void {
    for (const caller of this.callers) if (caller.state === 'waiting' && caller.lateAtMs <= nowMs) caller.state = 'refused'
  }
}

/** Real lanes, and what their callers have been told. */
class Callers {
  readonly states: State[] = []
  readonly leaves: Leave[] = []
  readonly stops: AbortController[] = []

  add(work: (signal: AbortSignal) => Promise<Leave>): void {
    const id = this.states.length
    this.states.push('waiting')
    this.stops.push(new AbortController())
    work(this.stops[id]!.signal).then(
      (leave) => {
        this.states[id] = 'inside'
        this.leaves[id] = leave
      },
      (reason: unknown) => {
        this.states[id] = reason === id ? 'aborted' : 'refused'
      },
    )
  }

  leave(id: number): void {
    this.states[id] = 'left'
    this.leaves[id]!()
  }
}

describe('any order of entering, leaving, aborting and being late', () => {
  for (const kind of ['key', 'lane'] as const)
    test(`a ${kind}: whom the model lets in is let in, nobody else, and nobody is left over`, async () => {
      await fc.assert(
        fc.asyncProperty(steps, fc.integer({ min: 1, max: 4 }), async (all, slots) => {
          const clock = new HeldClock()
          const lanes = new Lanes(clock, { l0: slots, l1: slots, l2: slots }, { queuedMax: 5 })
          const model = new Model(kind === 'key' ? 1 : slots, 5)
          const real = new Callers()
          const enter = (key: number, waitMs: number) => (signal: AbortSignal) =>
            kind === 'key'
              ? lanes.enterKey(`k${key}`, asking({ key }, waitMs, signal))
              : lanes.enterLane(`l${key}`, asking({ key }, waitMs, signal))
          const pick = (state: State, which: number) => {
            const ids = model.callers.flatMap((caller, id) => (caller.state === state ? [id] : []))
            return ids.length ? ids[which % ids.length] : undefined
          }
          const check = () => {
            expect(real.states).toEqual(model.callers.map(({ state }) => state))
            if (kind === 'key')
              expect(lanes.size).toBe(new Set(model.callers.filter(({ state }) => state === 'inside').map(({ key }) => key)).size)
          }
          for (const step of all) {
            if (step.do === 'enter') {
              real.add(enter(step.key, step.waitMs))
              model.enter(step.key, clock.monotonicMs() + step.waitMs, clock.monotonicMs())
            } else if (step.do === 'pass') {
              await clock.pass(step.ms)
              model.pass(clock.monotonicMs())
            } else if (step.do === 'abort') {
              const id = pick('waiting', step.which)
              if (id === undefined) continue
              real.stops[id]!.abort(id)
              model.callers[id]!.state = 'aborted'
            } else {
              const id = pick('inside', step.which)
              if (id === undefined) continue
              real.leave(id)
              let next = model.leave(id)
              if (step.do === 'leaveAndAbortNext' && next !== undefined) {
                real.stops[next]!.abort(next)
                next = model.leave(next, 'aborted')
              }
            }
            await settled()
            check()
          }
          for (let id = pick('inside', 0); id !== undefined; id = pick('inside', 0)) {
            real.leave(id)
            model.leave(id)
            await settled()
            check()
          }
          expect([...lanes.standings()]).toEqual([])
          expect(clock.sleeping).toBe(0)
          expect(lanes.size).toBe(0)
        }),
        { numRuns },
      )
    })
})

describe('cost', () => {
  test('with 10,000 in line, entering and leaving, and going away from the middle, cost what they cost with ten', async () => {
    const lineOf = async (count: number) => {
      const { clock, lanes } = lanesWith({ queuedMax: count })
      const leave = await lanes.enterKey('k', asking())
      const stops = Array.from({ length: count }, () => new AbortController())
      const letIn: number[] = []
      const startedMs = performance.now()
      const all = stops.map((stop, at) =>
        lanes.enterKey('k', asking({}, 1e6, stop.signal)).then(
          (next) => {
            letIn.push(at)
            next()
          },
          () => {},
        ),
      )
      for (let at = 1; at < count; at += 2) stops[at]!.abort()
      leave()
      await Promise.all(all)
      const tookMs = performance.now() - startedMs
      expect(letIn).toEqual(Array.from({ length: Math.ceil(count / 2) }, (_, at) => at * 2))
      expect(clock.sleeping).toBe(0)
      return tookMs / count
    }
    await lineOf(1_000)
    const small = await lineOf(1_000)
    const large = await lineOf(20_000)
    // A walk per step would cost twenty times as much.
    expect(large).toBeLessThan(small * 6 + 0.01)
  })
})

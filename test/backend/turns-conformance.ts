/** What a backend promises of turns (P6), between handles: who may begin one, what it may still write when another has begun, what becomes
 *  of inputs, and which requests run again. Handles of one process stand for processes here; test/turns has real ones. */
import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Backend, EncodedRecord, LeaseEvents, RequestFacts, StartedTurn, TurnLease } from '../../src/backend.js'
import { isStoreError } from '../../src/errors.js'
import type { Place } from './conformance.js'

const quiet: LeaseEvents = { onLost() {}, onExpired() {}, onInterrupt() {} }
const hourMs = 3_600_000

const input = (text: string): EncodedRecord[] => [{ json: JSON.stringify({ text }) }]
const request = (facts: Partial<RequestFacts> = {}): RequestFacts => ({
  requestId: randomUUID(),
  given: facts.requestId !== undefined,
  lane: 'main',
  whenBusy: 'queue',
  ...facts,
})
const textsOf = (records: readonly { readonly record: Record<string, unknown> }[]) => records.map(({ record }) => record.text)

async function refusal(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  return isStoreError(error) ? error.code : `not refused: ${String(error)}`
}

export function describeTurns(name: string, makePlace: () => Promise<Place>): void {
  async function handles(count: number): Promise<Backend[]> {
    const place = await makePlace()
    const opened: Backend[] = []
    onTestFinished(async () => {
      for (const handle of opened) await handle.close()
      await place.remove()
    })
    for (let n = 0; n < count; n++) opened.push(await place.open())
    return opened
  }

  /** The lease of a key, for a request, and the turn that it began. */
  async function turnOf(backend: Backend, key: string, facts: RequestFacts, records?: EncodedRecord[], maxTurnMs = hourMs) {
    const place = backend.turns.enlist(key, facts)
    const lease = (await place.tryLease(maxTurnMs, quiet)) as TurnLease
    expect(lease).toBeDefined()
    const turn = (await lease.begin(facts, records)) as StartedTurn
    expect(turn.kind).toBe('started')
    const finish = async () => {
      await lease.release()
      await place.leave()
    }
    return { place, lease, turn, finish }
  }

  describe(`${name}: turns`, () => {
    test('one handle has the lease of a key, others get it when it is given back, and turns are counted on', async () => {
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const first = await turnOf(a, 'k', request(), input('one'))
      expect(first.turn).toMatchObject({ turn: 1, attempt: 1, key: 'k' })
      const place = b.turns.enlist('k', request())
      expect(await place.tryLease(hourMs, quiet)).toBeUndefined()
      expect((await place.holder())?.requestId).toBe((await first.place.holder())?.requestId)
      expect(await refusal(place.lease(hourMs, quiet, { waitMs: 30 }))).toBe('TURN_BUSY')
      const waiting = place.lease(hourMs, quiet, { waitMs: 10_000 })
      await first.lease.end(first.turn, request(), { outcome: 'completed' })
      await first.finish()
      const lease = await waiting
      expect(await lease.begin(request(), undefined)).toMatchObject({ kind: 'started', turn: 2 })
      await lease.release()
      await place.leave()
    })

    test('a lease that makes no progress is taken over, and its turn adds nothing any more: no append, no taking, no end', async () => {
      // F1, F33
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const facts = request()
      const slow = await turnOf(a, 'k', facts, input('one'), 100)
      await slow.lease.append(slow.turn, input('begun'), {})
      await new Promise((resolve) => setTimeout(resolve, 250))
      const next = await turnOf(b, 'k', request(), input('two'))
      expect(next.turn.turn).toBe(2)
      for (const late of [
        slow.lease.append(slow.turn, input('late'), {}),
        slow.lease.take(slow.turn),
        slow.lease.end(slow.turn, facts, { outcome: 'completed' }),
      ].map(refusal))
        expect(await late).toBe('TURN_LOST')
      await next.lease.append(next.turn, input('answer'), {})
      expect(textsOf(await next.lease.tail(next.turn, 10))).toEqual(['one', 'begun', 'two', 'answer'])
      const past = await b.turns.list({ key: 'k' })
      expect(past.find(({ turn }) => turn === 1)?.state).toBe('interrupted')
      await slow.finish()
      await next.finish()
    })

    test('an input that waits is nobody’s until a turn takes it, is handed out once, and stands where it was taken', async () => {
      // F34
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const facts = request()
      const active = await turnOf(a, 'k', facts, input('one'))
      const left = await b.turns.leaveInput('k', input('two'), request({ whenBusy: 'coalesce' }), {})
      expect(left).toMatchObject({ active: { turn: 1, requestId: facts.requestId }, earlier: undefined })
      await active.lease.append(active.turn, input('answer to one'), {})
      expect(textsOf(await active.lease.tail(active.turn, 10))).toEqual(['one', 'answer to one'])
      expect(textsOf(await active.lease.take(active.turn))).toEqual(['two'])
      expect(await active.lease.take(active.turn)).toEqual([])
      expect(textsOf(await active.lease.tail(active.turn, 10))).toEqual(['one', 'answer to one', 'two'])
      await b.turns.leaveInput('k', input('three'), request({ whenBusy: 'coalesce' }), {})
      expect(await active.lease.end(active.turn, facts, { outcome: 'completed' })).toEqual({ left: 1 })
      const rest = (await active.lease.beginForLeft(request())) as StartedTurn
      expect(textsOf(await active.lease.inputs(rest, rest.left))).toEqual(['three'])
      await active.lease.end(rest, request(), { outcome: 'completed' })
      expect(await active.lease.beginForLeft(request())).toEqual({ kind: 'nothing' })
      await active.finish()
    })

    test('an input is left for its own request while that one stands in line, and is anybody’s when it has gone', async () => {
      // F35, F36
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const facts = request()
      const active = await turnOf(a, 'k', facts, input('one'))
      const mine = request()
      const place = b.turns.enlist('k', mine)
      await place.show()
      await b.turns.leaveInput('k', input('mine'), mine, {})
      expect(await active.lease.take(active.turn)).toEqual([])
      await place.leave()
      expect(textsOf(await active.lease.take(active.turn))).toEqual(['mine'])
      expect(await b.turns.withdrawInput('k', mine)).toBe(false)
      await active.lease.end(active.turn, facts, { outcome: 'completed' })
      const late = b.turns.enlist('k', mine)
      await active.finish()
      const lease = await late.lease(hourMs, quiet, { waitMs: 5_000 })
      expect(await lease.begin(mine, undefined)).toMatchObject({ kind: 'coalesced', turn: 1 })
      await lease.release()
      await late.leave()
    })

    test('an input that is taken back is in no conversation, and may be left again', async () => {
      // F41
      const [a] = (await handles(1)) as [Backend]
      const facts = request({ requestId: 'r' })
      await a.turns.leaveInput('k', input('no'), facts, {})
      expect(await a.turns.withdrawInput('k', facts)).toBe(true)
      expect(await a.turns.withdrawInput('k', facts)).toBe(false)
      const { turn, lease, finish } = await turnOf(a, 'k', facts, input('yes'))
      expect(turn.attempt).toBe(1)
      expect(textsOf(await lease.tail(turn, 10))).toEqual(['yes'])
      await finish()
    })

    test('a completed request is answered from the log, on every handle, also after a rotation', async () => {
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const facts = request({ requestId: 'r' })
      const { lease, turn, finish } = await turnOf(a, 'k', facts, input('one'))
      await lease.end(turn, facts, { outcome: 'completed', value: { answer: [42, 'é\u0000'] } })
      await finish()
      for (const rotated of [false, true]) {
        if (rotated) await b.rotate('k', 'reset', {})
        const place = b.turns.enlist('k', facts)
        const again = (await place.tryLease(hourMs, quiet)) as TurnLease
        const begun = await again.begin(facts, input('one'))
        expect(begun).toMatchObject({ kind: 'answered', turn: 1, attempt: 1, sessionId: turn.sessionId })
        if (begun.kind === 'answered') expect(await b.turns.valueOf(begun.sessionId, begun.endSeq)).toEqual({ answer: [42, 'é\u0000'] })
        expect(await a.turns.find('k', facts, {})).toMatchObject({ state: 'completed' })
        await again.release()
        await place.leave()
      }
      const records = []
      for await (const stored of a.read('k', {})) records.push(stored)
      expect(records).toEqual([])
    })

    test('a failed or interrupted request runs again, as another attempt, with the input it has', async () => {
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const facts = request({ requestId: 'r' })
      const first = await turnOf(a, 'k', facts, input('one'))
      await first.lease.end(first.turn, facts, { outcome: 'failed', error: 'no' })
      await first.finish()
      const second = await turnOf(b, 'k', facts, input('one'))
      expect(second.turn).toMatchObject({ turn: 2, attempt: 2 })
      expect(textsOf(await second.lease.inputs(second.turn, [second.turn.input!]))).toEqual(['one'])
      expect(textsOf(await second.lease.tail(second.turn, 10))).toEqual(['one'])
      await second.finish() // Without an end: as of a process that died.
      const third = await turnOf(a, 'k', facts, input('one'))
      expect(third.turn).toMatchObject({ turn: 3, attempt: 3 })
      await third.finish()
    })

    test('a rotation ends the turn, and what waits goes on in the new session', async () => {
      // F32, F51
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const facts = request()
      const active = await turnOf(a, 'k', facts, input('one'))
      await b.turns.leaveInput('k', input('two'), request({ whenBusy: 'coalesce' }), {})
      const { sessionId } = await b.rotate('k', 'reset', {})
      expect(await refusal(active.lease.append(active.turn, input('late'), {}))).toBe('TURN_LOST')
      await active.finish()
      const next = await turnOf(b, 'k', request(), input('three'))
      expect(next.turn).toMatchObject({ turn: 2, sessionId })
      expect(textsOf(await next.lease.inputs(next.turn, next.turn.left))).toEqual(['two'])
      expect(textsOf(await next.lease.tail(next.turn, 10))).toEqual(['two', 'three'])
      await next.finish()
    })

    test('a deletion ends the turn, and the turn does not bring the session back', async () => {
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const active = await turnOf(a, 'k', request(), input('one'))
      await b.delete('k', {})
      expect(await refusal(active.lease.append(active.turn, input('late'), {}))).toBe('TURN_LOST')
      expect(await b.get('k')).toBeUndefined()
      await active.finish()
    })

    test('who stands in line and who is active is seen by every handle, and the active one hears that it should stop', async () => {
      const [a, b] = (await handles(2)) as [Backend, Backend]
      const place = a.turns.enlist('k', request({ channelId: 'c' }))
      let stoppedBy = ''
      const onInterrupt = (by: string) => {
        stoppedBy = by
      }
      const lease = (await place.tryLease(hourMs, { ...quiet, onInterrupt })) as TurnLease
      const facts = request({ channelId: 'c' })
      await lease.begin(facts, undefined)
      const waiting = b.turns.enlist('k', request({ lane: 'cron' }))
      await waiting.show()
      const seen = await b.turns.list({})
      expect(seen.map(({ state, position, channelId, lane }) => [state, position, channelId, lane])).toEqual([
        ['active', 0, 'c', 'main'],
        ['queued', 1, undefined, 'cron'],
      ])
      expect(await b.turns.interrupt('other', 'me')).toBe(false)
      expect(await b.turns.interrupt('k', 'me')).toBe(true)
      await expect.poll(() => stoppedBy, { timeout: 2_000 }).toBe('me')
      await lease.release()
      await place.leave()
      await waiting.leave()
      expect(await b.turns.list({})).toEqual([])
    })
  })
}

/** What things cost in statements: a round trip each, which on a network is what counts. */
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { StartedTurn, TurnLease } from '../../src/backend.js'
import type { PostgresBackend } from '../../src/postgres/backend.js'
import { encoded } from '../backend/conformance.js'
import { postgresPlace } from './place.js'
import { server } from './server.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe

describeOnServer('round trips', () => {
  test('an append is one, an update of what nobody else has changed is one, and an idle turn is three', async () => {
    const place = postgresPlace('url' in found ? found.url : '')
    const backend = (await place.open()) as PostgresBackend
    onTestFinished(async () => {
      await backend.close()
      await place.remove()
    })
    const { database } = backend.inside
    const statements = [vi.spyOn(database, 'read'), vi.spyOn(database, 'write')]
    const costOf = async (work: () => Promise<unknown>) => {
      const before = statements.reduce((sum, spy) => sum + spy.mock.calls.length, 0)
      await work()
      return statements.reduce((sum, spy) => sum + spy.mock.calls.length, 0) - before
    }
    const update = () => backend.commitMetadata((sessions) => sessions.patch('k', { n: Number(sessions.get('k')?.n ?? 0) + 1 }), {})
    expect(await costOf(() => backend.append('k', [encoded({})], {}))).toBe(1)
    await update()
    expect(await costOf(update)).toBe(1)
    const together = () => Promise.all(Array.from({ length: 64 }, () => backend.append('k', [encoded({})], {})))
    expect(await costOf(together)).toBe(1)
    const quiet = { onLost() {}, onExpired() {}, onInterrupt() {} }
    const request = { requestId: 'r', given: true, lane: 'main', whenBusy: 'queue' as const }
    const turn = async () => {
      const line = backend.turns.enlist('k', request)
      const lease = (await line.tryLease(60_000, quiet)) as TurnLease
      const begun = (await lease.begin(request, [encoded({ n: 1 })])) as StartedTurn
      await lease.inputs(begun, [begun.input!])
      expect(await lease.end(begun, request, { outcome: 'completed' })).toEqual({ left: 0 })
      await lease.release()
      await line.leave()
    }
    expect(await costOf(turn)).toBe(3)
  })
})

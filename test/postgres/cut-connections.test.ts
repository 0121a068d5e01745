/** Connections that break at every step of the protocol, before and after the server has got what was said: what is acknowledged has happened once,
 *  and what is not, says so. */
import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { StartedTurn, TurnLease } from '../../src/backend.js'
import type { PostgresBackend } from '../../src/postgres/backend.js'
import { collect, encoded } from '../backend/conformance.js'
import { postgresPlace } from './place.js'
import { type Cut, CuttingProxy } from './proxy.js'
import { server } from './server.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe
const url = 'url' in found ? found.url : ''

/** Parse, bind, describe, execute, sync; and what is answered to each, a row, the end. */
const steps: Cut[] = [
  ...Array.from({ length: 5 }, (_, after): Cut => ({ direction: 'to', after })),
  ...Array.from({ length: 6 }, (_, after): Cut => ({ direction: 'from', after })),
]

async function behindProxy(waitMs = 5_000) {
  const { proxy, url: through } = await CuttingProxy.before(url)
  const place = postgresPlace(url)
  // First without: a schema is made over a connection of its own.
  const direct = (await place.open()) as PostgresBackend
  const cutPlace = postgresPlace(through, { schema: place.schema, connections: 2, waitMs })
  const backend = (await cutPlace.open()) as PostgresBackend
  onTestFinished(async () => {
    await backend.close()
    await direct.close()
    await proxy.close()
    await place.remove()
  })
  return { proxy, backend, direct, care: place.care }
}

const quiet = { onLost() {}, onExpired() {}, onInterrupt() {} }
const request = (requestId: string) => ({ requestId, given: true, lane: 'main', whenBusy: 'queue' as const })

describeOnServer('a connection that is cut', () => {
  test('at any step of a write leaves it done once, and its caller with the answer', async () => {
    const { proxy, backend, direct, care } = await behindProxy()
    const key = 'k'
    let appended = 0
    let revision = 0
    for (const cut of steps) {
      await backend.get(key)
      proxy.arm(cut)
      const receipt = await backend.append(key, [encoded({ n: appended })], {})
      if (revision === 0) revision = (await direct.get(key))!.revision
      expect(receipt.duplicate, JSON.stringify(cut)).toBe(false)
      appended++
      proxy.arm(cut)
      const updated = await backend.commitMetadata((sessions) => sessions.patch(key, { n: Number(sessions.get(key)?.n ?? 0) + 1 }), {})
      revision++
      expect(updated, JSON.stringify(cut)).toMatchObject({ revision, n: revision - 1 })
    }
    expect(proxy.cuts).toBeGreaterThanOrEqual(steps.length * 2 - 2)
    expect((await collect(direct.read(key, {}))).map(({ record }) => record.n)).toEqual(Array.from({ length: appended }, (_, n) => n))
    expect(await direct.get(key)).toMatchObject({ revision, n: revision - 1 })
    expect(await care(direct).verify({})).toMatchObject({ ok: true })
  })

  test('at any step of a turn leaves one start, one answer, one end', async () => {
    const { proxy, backend, direct } = await behindProxy()
    for (const [at, cut] of steps.entries()) {
      const facts = request(`r${at}`)
      await backend.get('k')
      proxy.arm(cut)
      const place = backend.turns.enlist('k', facts)
      const lease = (await place.lease(3_600_000, quiet, { waitMs: 5_000 })) as TurnLease
      proxy.arm(cut)
      const turn = (await lease.begin(facts, [encoded({ ask: at })])) as StartedTurn
      expect(turn, JSON.stringify(cut)).toMatchObject({ kind: 'started', turn: at + 1, attempt: 1, inputIsNew: true })
      proxy.arm(cut)
      await lease.append(turn, [encoded({ answer: at })], {})
      proxy.arm(cut)
      await lease.end(turn, facts, { outcome: 'completed', value: at })
      await lease.release()
      await place.leave()
    }
    const records = (await collect(direct.read('k', {}))).map(({ record }) => record)
    expect(records).toEqual(steps.flatMap((_, at) => [{ ask: at }, { answer: at }]))
    const turns = await direct.turns.list({ key: 'k' })
    expect(turns.map(({ turn, state }) => [turn, state]).reverse()).toEqual(steps.map((_, at) => [at + 1, 'completed']))
  })

  test('at any step of a rotation or deletion leaves it done once', async () => {
    const { proxy, backend, direct, care } = await behindProxy()
    for (const [at, cut] of steps.entries()) {
      const key = `k${at}`
      const { sessionId } = await backend.append(key, [encoded({})], {})
      proxy.arm(cut)
      const rotated = await backend.rotate(key, 'reset', {})
      expect(rotated.previousSessionId, JSON.stringify(cut)).toBe(sessionId)
      expect((await direct.get(key))!.sessionId).toBe(rotated.sessionId)
      proxy.arm(cut)
      expect(await backend.delete(key, {}), JSON.stringify(cut)).toBe(true)
    }
    expect(await collect(direct.entries(''))).toEqual([])
    expect(await care(direct).archives(undefined)).toHaveLength(steps.length * 2)
  })

  test('and whose statement comes to the server late, after it was repeated, adds nothing', async () => {
    // F1
    const { proxy, backend, direct } = await behindProxy()
    await backend.append('k', [encoded({ n: 0 })], {})
    proxy.arm({ direction: 'to', after: 0, late: true })
    await backend.append('k', [encoded({ n: 1 })], {})
    await proxy.release()
    proxy.arm({ direction: 'to', after: 0, late: true })
    await backend.commitMetadata((sessions) => sessions.patch('k', { n: Number(sessions.get('k')?.n ?? 0) + 1 }), {})
    await proxy.release()
    expect(proxy.cuts).toBe(2)
    expect((await collect(direct.read('k', {}))).map(({ record }) => record.n)).toEqual([0, 1])
    expect(await direct.get('k')).toMatchObject({ n: 1 })
  })

  test('for good is told truly: none when it was never asked, unknown when it was', async () => {
    // P2
    const { proxy, backend, direct } = await behindProxy(400)
    await backend.append('k', [encoded({ n: 0 })], {})
    proxy.refuse(true)
    await expect(backend.append('k', [encoded({ n: 1 })], {})).rejects.toMatchObject({ code: 'BACKEND_UNAVAILABLE' })
    await expect(backend.append('k', [encoded({ n: 2 })], {})).rejects.toMatchObject({ code: 'BACKEND_UNAVAILABLE', effect: 'none' })
    await expect(backend.get('k')).rejects.toMatchObject({ code: 'BACKEND_UNAVAILABLE', effect: 'none' })
    proxy.refuse(false)
    await backend.append('k', [encoded({ n: 3 })], {})
    proxy.arm({ direction: 'from', after: 0 })
    const id = randomUUID()
    const asked = backend.append('k', [encoded({ n: 4 })], { id })
    await expect.poll(() => proxy.cuts).toBe(1)
    proxy.refuse(true)
    const outcome = await asked.then(
      () => 'told',
      (error: { code: string; effect: string }) => `${error.code} ${error.effect}`,
    )
    proxy.refuse(false)
    // It was too quick for us, or it says that it does not know; asked again under its id, there is one.
    expect(['told', 'BACKEND_UNAVAILABLE unknown']).toContain(outcome)
    await backend.append('k', [encoded({ n: 4 })], { id })
    expect((await collect(direct.read('k', {}))).filter(({ record }) => record.n === 4)).toHaveLength(1)
    expect((await collect(direct.read('k', {}))).map(({ record }) => record.n).filter((n) => n === 2)).toEqual([])
  })
})

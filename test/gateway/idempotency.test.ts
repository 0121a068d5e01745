/** Second tries: by a client that lost its connection, or by a library that tries again on its own. */
import { afterEach, describe, expect, test } from 'vitest'
import { createChatHandler } from '../../src/gateway/index.js'
import { contentOf, hear, heldModel, origin, type Setting, setUp, storeWith, user } from './setting.js'

let it: Setting
afterEach(() => it.close())
const key = { 'x-session-key': 'agent:main:web:1' }
const once = { ...key, 'idempotency-key': 'evt-7' }

function counting() {
  const held = { calls: 0 }
  return { held, model: async () => `reply ${++held.calls}` }
}

describe('with an idempotency key', () => {
  test('a request that was answered is not answered again; its reply is', async () => {
    const { held, model } = counting()
    it = await setUp({ model })
    const first = await it.ask({ messages: [user('a')] }, once)
    const again = await it.ask({ messages: [user('a')] }, once)
    expect(await contentOf(again)).toBe(await contentOf(first))
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect(again.headers.get('x-turn-state')).toBe('duplicate')
    expect(again.headers.get('x-turn')).toBe(first.headers.get('x-turn'))
    expect(held.calls).toBe(1)
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: reply 1'])
  })

  test('the second try may ask for a stream', async () => {
    const { model } = counting()
    it = await setUp({ model })
    await it.ask({ messages: [user('a')] }, once)
    const heard = await hear(await it.ask({ messages: [user('a')], stream: true, stream_options: { include_usage: true } }, once))
    expect(heard).toMatchObject({ text: 'reply 1', done: true })
  })

  test('a request that is being answered is joined', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const first = it.ask({ messages: [user('a')] }, once)
    const call = await held.call(0)
    const again = it.ask({ messages: [user('a')] }, once)
    setTimeout(() => call.finish('one reply'), 20)
    expect(await Promise.all([contentOf(await first), contentOf(await again)])).toEqual(['one reply', 'one reply'])
    expect(held.calls).toHaveLength(1)
  })

  test('a second try outlives the first: the client of that one may go', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const client = new AbortController()
    const first = it.ask({ messages: [user('a')] }, once, client.signal)
    ;(await held.call(0)).say('half')
    const again = it.ask({ messages: [user('a')] }, once)
    await new Promise((resolve) => setTimeout(resolve, 20))
    client.abort()
    expect((await first).status).toBe(499)
    const second = await held.call(1)
    expect(second.context.attempt).toBe(2)
    expect(second.messages).toEqual([user('a')])
    second.finish('whole')
    expect(await contentOf(await again)).toBe('whole')
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half …', 'assistant: whole'])
  })

  test('a reply that was stored when the turn came to no end is found again, not made again', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const turnEnds = storeWith(it.store, {
      runTurn: (at, options, work) =>
        it.store.runTurn(at, options, async (turn) => {
          await work(turn)
          throw new Error('killed here')
        }),
    })
    const killed = createChatHandler({ store: turnEnds, model: async () => 'stored' })
    const request = {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...once },
      body: JSON.stringify({ messages: [user('a')] }),
    }
    expect((await killed(new Request(`${origin}/v1/chat/completions`, request))).status).toBe(502)
    const again = await it.ask({ messages: [user('a')], stream: true }, once)
    expect(await hear(again)).toMatchObject({ text: 'stored', done: true })
    expect(held.calls).toHaveLength(0)
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: stored'])
    expect((await it.ask({ messages: [user('a')] }, once)).headers.get('idempotent-replayed')).toBe('true')
  })

  test('a request that failed may run again, and clients are told so', async () => {
    let fails = true
    it = await setUp({
      model: async () => {
        if (fails) throw new Error('down')
        return 'up'
      },
    })
    const failed = await it.ask({ messages: [user('a')] }, once)
    expect(failed.status).toBe(502)
    expect(failed.headers.get('x-should-retry')).toBe('true')
    fails = false
    expect(await contentOf(await it.ask({ messages: [user('a')] }, once))).toBe('up')
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: up'])
  })

  test('another request under the same key is refused: 422', async () => {
    const { model } = counting()
    it = await setUp({ model })
    await it.ask({ messages: [user('a')] }, once)
    const other = await it.ask({ messages: [user('b')] }, once)
    expect(other.status).toBe(422)
    expect(await other.json()).toMatchObject({ error: { code: 'idempotency_key_reused' } })
    expect(await it.said('agent:main:web:1')).toHaveLength(2)
  })

  test('the same key in another session is another request', async () => {
    const { held, model } = counting()
    it = await setUp({ model })
    await it.ask({ messages: [user('a')] }, once)
    await it.ask({ messages: [user('a')] }, { ...once, 'x-session-key': 'agent:main:web:2' })
    expect(held.calls).toBe(2)
  })

  test('a request without session key finds its conversation again', async () => {
    const { held, model } = counting()
    it = await setUp({ model })
    const headers = { 'idempotency-key': 'evt-9' }
    const first = await it.ask({ messages: [user('a')] }, headers)
    const again = await it.ask({ messages: [user('a')] }, headers)
    expect(again.headers.get('x-session-key')).toBe(first.headers.get('x-session-key'))
    expect(held.calls).toBe(1)
    const other = await it.ask({ messages: [user('a')] }, { ...headers, authorization: 'Bearer somebody-else' })
    expect(other.headers.get('x-session-key')).not.toBe(first.headers.get('x-session-key'))
  })
})

describe('without one', () => {
  test('clients are told not to try again what has been stored', async () => {
    it = await setUp({ model: () => Promise.reject(new Error('down')) })
    const failed = await it.ask({ messages: [user('a')] }, key)
    expect(failed.headers.get('x-should-retry')).toBe('false')
    expect(await failed.json()).toMatchObject({ error: { effect: 'input' } })
  })

  test('two equal requests are two', async () => {
    const { held, model } = counting()
    it = await setUp({ model })
    await it.ask({ messages: [user('a')] }, key)
    await it.ask({ messages: [user('a')] }, key)
    expect(held.calls).toBe(2)
  })
})

test.each([
  ['empty', ''],
  ['too long', 'x'.repeat(257)],
])('an idempotency key that is %s is refused', async (_, value) => {
  it = await setUp()
  expect((await it.ask({ messages: [user('a')] }, { ...key, 'idempotency-key': value })).status).toBe(400)
})

/** What a request does when its conversation is busy, and what its client is told. */
import { afterEach, describe, expect, test } from 'vitest'
import { contentOf, hear, heldModel, type Setting, setUp, until, user } from './setting.js'

let it: Setting
afterEach(() => it.close())
const key = { 'x-session-key': 'agent:main:web:1' }
const ask = (text: string, headers: Record<string, string> = {}) => it.ask({ messages: [user(text)] }, { ...key, ...headers })

async function busy(options: Parameters<typeof setUp>[0] = {}, storeOptions: Parameters<typeof setUp>[1] = {}) {
  const held = heldModel()
  it = await setUp({ model: held.model, ...options }, storeOptions)
  const first = ask('a')
  return { held, first, call: await held.call(0) }
}

describe('reject', () => {
  test('409 with Retry-After, an error in the shape of the chat API, and nothing written (F40)', async () => {
    const { first, call } = await busy()
    const response = await ask('b', { 'x-when-busy': 'reject' })
    expect(response.status).toBe(409)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'retry-after': '1',
      'x-should-retry': 'true',
      'x-turn-state': 'rejected',
      'x-turn': '1',
    })
    expect(await response.json()).toMatchObject({
      error: {
        type: 'conflict_error',
        code: 'TURN_BUSY',
        effect: 'none',
        retryable: true,
        retry_after_ms: expect.any(Number),
        param: null,
      },
    })
    expect(await it.said('agent:main:web:1')).toEqual(['user: a'])
    call.finish('done')
    await first
    expect(it.turnLines().map(({ outcome }) => outcome)).toEqual(['rejected', 'completed'])
  })

  test('a stream that is rejected has a real status, too', async () => {
    const { first, call } = await busy()
    const response = await it.ask({ messages: [user('b')], stream: true }, { ...key, 'x-when-busy': 'reject' })
    expect(response.status).toBe(409)
    expect(response.headers.get('content-type')).toContain('application/json')
    call.finish()
    await first
  })

  test('may be the default', async () => {
    const { first, call } = await busy({ whenBusy: 'reject' })
    expect((await ask('b')).status).toBe(409)
    call.finish()
    await first
  })
})

describe('queue', () => {
  test('waits, sees what was said meanwhile, and is answered in its turn', async () => {
    const { held, first, call } = await busy()
    const second = ask('b')
    await until(async () => (await it.said('agent:main:web:1')).length === 2 || undefined)
    call.finish('to a')
    const next = await held.call(1)
    expect(next.messages.map(({ content }) => content)).toEqual(['a', 'to a', 'b'])
    next.finish('to b')
    expect([await contentOf(await first), await contentOf(await second)]).toEqual(['to a', 'to b'])
  })

  test('a stream that waits for long gets its headers, says that it is alive, and names its turn when it begins', async () => {
    const { held, first, call } = await busy({ headersAfterMs: 20, keepAliveMs: 10 })
    const response = await it.ask({ messages: [user('b')], stream: true }, key)
    expect(response.status).toBe(200)
    expect(response.headers.get('x-turn-state')).toBe('queued')
    expect(response.headers.get('x-turn')).toBeNull()
    expect(response.headers.get('x-session-id')).toMatch(/^[0-9a-f-]{36}$/)
    const heard = hear(response)
    await new Promise((resolve) => setTimeout(resolve, 50))
    call.finish('to a')
    ;(await held.call(1)).finish('to b')
    expect(await heard).toMatchObject({ text: 'to b', done: true })
    expect((await heard).comments).toBeGreaterThan(0)
    expect((await heard).chunks[0]!.holdfast).toMatchObject({ turn: 2, state: 'active' })
    await first
  })

  test('a client that goes while it waits never has its turn, and takes its message with it (F41)', async () => {
    const { held, first, call } = await busy({ headersAfterMs: 10 })
    const response = await it.ask({ messages: [user('b')], stream: true }, key)
    await response.body!.cancel()
    await until(() => it.turnLines()[0])
    expect(it.turnLines()[0]).toMatchObject({ outcome: 'rejected', error: { code: 'client_disconnected', effect: 'none' } })
    call.finish('to a')
    await first
    const third = ask('c')
    const next = await held.call(1)
    expect(next.messages.map(({ content }) => content)).toEqual(['a', 'to a', 'c'])
    next.finish()
    await third
  })

  test('a message that was taken back so comes again with the next, and is not left out then', async () => {
    const { held, first, call } = await busy({ headersAfterMs: 10 })
    const response = await it.ask({ messages: [user('b')], stream: true }, key)
    await response.body!.cancel()
    await until(() => it.turnLines()[0])
    const next = it.ask({ messages: [user('a'), user('b'), user('c')] }, key)
    await until(async () => (await it.said('agent:main:web:1')).includes('user: c') || undefined)
    call.finish('to a')
    await first
    expect((await held.call(1)).messages.map(({ content }) => content)).toEqual(['a', 'to a', 'b', 'c'])
    held.calls[1]!.finish()
    await next
  })

  test('a wait that is too long is 409, and nothing of it stays', async () => {
    const { first, call } = await busy({ waitMs: 50 })
    const response = await ask('b')
    expect(response.status).toBe(409)
    expect(response.headers.get('x-should-retry')).toBe('true')
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await response.json()).toMatchObject({ error: { code: 'TURN_BUSY', effect: 'none' } })
    call.finish()
    await first
  })

  test('a lane without a free slot is 429 with Retry-After, and nothing of the request stays', async () => {
    const { first, call } = await busy({ waitMs: 50 }, { lanes: { main: 1 } })
    const response = await it.ask({ messages: [user('b')] }, { 'x-session-key': 'agent:main:web:2' })
    expect(response.status).toBe(429)
    expect(response.headers.get('x-should-retry')).toBe('true')
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await response.json()).toMatchObject({ error: { type: 'rate_limit_error', code: 'LANE_FULL', effect: 'none' } })
    call.finish()
    await first
  })
})

describe('interrupt', () => {
  test('breaks the active turn off, keeps what it said, and answers with both messages in view', async () => {
    const { held, first, call } = await busy()
    call.say('half')
    const second = ask('b', { 'x-when-busy': 'interrupt' })
    const next = await held.call(1)
    expect(next.messages.map(({ content }) => content)).toEqual(['a', 'half', 'b'])
    next.finish('to b')
    expect(await contentOf(await second)).toBe('to b')
    const interrupted = await first
    expect(interrupted.status).toBe(409)
    expect(interrupted.headers.get('x-turn-state')).toBe('interrupted')
    expect(interrupted.headers.get('x-should-retry')).toBe('false')
    expect(await interrupted.json()).toMatchObject({ error: { code: 'turn_interrupted', effect: 'input', retryable: false } })
  })
})

test('an unknown policy is refused', async () => {
  it = await setUp()
  const response = await ask('a', { 'x-when-busy': 'shout' })
  expect(response.status).toBe(400)
  expect(await response.json()).toMatchObject({ error: { param: 'x-when-busy' } })
})

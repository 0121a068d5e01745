/** What a request does when its conversation is busy, and what its client is told. */
import { afterEach, describe, expect, test } from 'vitest'
import { contentOf, hear, heldModel, type Setting, setUp, until, user } from './setting.js'

let it: Setting
afterEach(() => it.close())
const key = { 'x-session-key': 'agent:main:web:1' }
const ask = (text: string, headers: Record<string, string> = {}) => it.ask({ messages: [user(text)] }, { ...key, ...headers })

async function busy(options: Parameters<typeof setUp>[0] = {}) {
  const held = heldModel()
  it = await setUp({ model: held.model, ...options })
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

  test('a client that goes while it waits never has its turn; its message stays in the conversation (F41)', async () => {
    const { held, first, call } = await busy({ headersAfterMs: 10 })
    const response = await it.ask({ messages: [user('b')], stream: true }, key)
    await response.body!.cancel()
    await until(() => it.turnLines()[0])
    call.finish('to a')
    await first
    expect(held.calls).toHaveLength(1)
    expect(await it.said('agent:main:web:1')).toContain('user: b')
  })

  test('a full queue is 429 with Retry-After, and says that nothing was written', async () => {
    const { first, call } = await busy()
    it.store.queuedMax = 0
    const response = await ask('b')
    expect(response.status).toBe(429)
    expect(Object.fromEntries(response.headers)).toMatchObject({ 'retry-after': '2', 'x-should-retry': 'true' })
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

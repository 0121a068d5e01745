/** What a store that fails becomes over HTTP: honest statuses, our code and effect, no file names, and no word to try again what is not safe. */
import { afterEach, describe, expect, test } from 'vitest'
import { createChatHandler, echoModel, type GatewayLog } from '../../src/gateway/index.js'
import { type ErrorCode, errorCodes, StoreError } from '../../src/index.js'
import { origin, type Setting, setUp, storeWith, user } from './setting.js'

let it: Setting
afterEach(() => it.close())

/** As `setUp`, with a store whose `runTurn` throws. */
async function failing(error: unknown, headers: Record<string, string> = {}) {
  it = await setUp()
  const lines: GatewayLog[] = []
  const store = storeWith(it.store, { runTurn: () => Promise.reject(error) })
  const handler = createChatHandler({ store, model: echoModel(), log: (line) => lines.push(line) })
  const response = await handler(
    new Request(`${origin}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-session-key': 'k', ...headers },
      body: JSON.stringify({ messages: [user('a')] }),
    }),
  )
  return { response, error: ((await response.json()) as { error: Record<string, unknown> }).error, lines }
}

const expected: Partial<Record<ErrorCode, number>> = {
  LOCK_TIMEOUT: 503,
  TURN_BUSY: 409,
  LANE_FULL: 429,
  LOCK_LOST: 503,
  TURN_LOST: 409,
  DISK_FULL: 507,
  IO_FAILED: 503,
  STORE_CLOSED: 503,
  STORE_POISONED: 500,
  LOG_CORRUPT: 500,
  STORE_CORRUPT: 500,
  RECORD_TOO_LARGE: 413,
  BACKEND_UNAVAILABLE: 503,
  INVARIANT: 500,
}

describe('each error of the store has its status, and a body in the shape of the chat API', () => {
  test.each(errorCodes)('%s', async (code) => {
    const { response, error } = await failing(new StoreError(code, 'about /srv/sessions/x.jsonl', { effect: 'unknown' }))
    if (expected[code]) expect(response.status).toBe(expected[code])
    expect(response.status).toBeGreaterThanOrEqual(400)
    expect(error).toMatchObject({ code, effect: 'unknown', message: expect.any(String), type: expect.any(String), param: null })
    // Unknown effect, no idempotency key: nobody may try again by himself.
    if (response.status >= 500 || response.status === 409 || response.status === 429)
      expect(response.headers.get('x-should-retry')).toBe('false')
  })

  test.each(errorCodes.filter((code) => new StoreError(code, '').retryable))(
    '%s may be tried again when nothing was written',
    async (code) => {
      const { response } = await failing(new StoreError(code, ''))
      expect(response.headers.get('x-should-retry')).toBe('true')
    },
  )

  test('or with an idempotency key', async () => {
    const { response } = await failing(new StoreError('IO_FAILED', '', { effect: 'unknown' }), { 'idempotency-key': 'evt-1' })
    expect(response.headers.get('x-should-retry')).toBe('true')
  })

  test('what only a person can mend is never to be tried again', async () => {
    const { response } = await failing(new StoreError('LOG_CORRUPT', ''), { 'idempotency-key': 'evt-1' })
    expect(response.headers.get('x-should-retry')).toBe('false')
    expect(response.headers.get('retry-after')).toBeNull()
  })
})

test('file names of the store are in the log, not in the answer', async () => {
  const { error, lines } = await failing(new StoreError('IO_FAILED', 'write /srv/sessions/x.jsonl: EIO.'))
  expect(JSON.stringify(error)).not.toContain('/srv')
  expect(JSON.stringify(lines)).toContain('/srv/sessions/x.jsonl')
})

test('an error that nobody knows is 500, without its words', async () => {
  const { response, error, lines } = await failing(new TypeError('secret'))
  expect(response.status).toBe(500)
  expect(error).toMatchObject({ code: 'internal_error' })
  expect(JSON.stringify(error)).not.toContain('secret')
  expect(JSON.stringify(lines)).toContain('secret')
})

test('one log line per request names request, channel, session and key together', async () => {
  it = await setUp()
  const response = await it.ask(
    { messages: [user('a')], model: 'm' },
    { 'x-session-key': 'k', 'idempotency-key': 'evt-1', 'x-channel-id': 'telegram:42' },
  )
  expect(it.lines).toEqual([
    {
      event: 'turn',
      at: expect.stringMatching(/^\d{4}-.*Z$/),
      requestId: 'evt-1',
      channelId: 'telegram:42',
      key: 'k',
      sessionId: response.headers.get('x-session-id'),
      turn: 1,
      attempt: 1,
      outcome: 'completed',
      status: 200,
      lane: 'main',
      whenBusy: 'queue',
      model: 'm',
      stream: false,
      waitedMs: expect.any(Number),
      tookMs: expect.any(Number),
      finishReason: 'stop',
      error: undefined,
    },
  ])
})

test('the channel is the user field, where no header says it', async () => {
  it = await setUp()
  await it.ask({ messages: [user('a')], user: 'ada' }, { 'x-session-key': 'k' })
  expect(it.turnLines()[0]!.channelId).toBe('ada')
})

test('a log that throws costs nobody an answer', async () => {
  it = await setUp({
    log: () => {
      throw new Error('disk full')
    },
  })
  expect((await it.ask({ messages: [user('a')] }, { 'x-session-key': 'k' })).status).toBe(200)
})

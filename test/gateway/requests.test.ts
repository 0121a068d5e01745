/** What is let in, what is refused, and how it is said. */
import { afterEach, describe, expect, test } from 'vitest'
import { headerOfText } from '../../src/gateway/header-text.js'
import { createChatHandler, echoModel } from '../../src/gateway/index.js'
import { contentOf, origin, type Setting, setUp, user } from './setting.js'

let it: Setting
afterEach(() => it.close())
const key = { 'x-session-key': 'agent:main:web:1' }
const hello = { messages: [user('hello')] }
const errorOf = async (response: Response) => ((await response.json()) as { error: Record<string, unknown> }).error
const send = (method: string, path: string, headers: Record<string, string> = {}) =>
  it.handler(new Request(`${origin}${path}`, { method, headers }))

describe('session keys', () => {
  test('a request without one gets a conversation of its own, which it can go on with', async () => {
    it = await setUp()
    const [first, second] = [await it.ask(hello), await it.ask(hello)]
    const name = first.headers.get('x-session-key')!
    expect(name).toMatch(/^chat:[0-9a-f-]{36}$/)
    expect(second.headers.get('x-session-key')).not.toBe(name)
    expect(await contentOf(await it.ask(hello, { 'x-session-key': name }))).toContain('message 2 from you')
    expect(await it.said(name)).toHaveLength(4)
  })

  test('or is refused, if that is wanted', async () => {
    it = await setUp({ keyless: 'refuse' })
    const response = await it.ask(hello)
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ code: 'missing_session_key', param: 'x-session-key' })
  })

  test.each(['agent:main:subagent:7', 'cron:nightly', 'subagent', 'a:CRON', 'x: Cron :y'])(
    '%s belongs to a reserved lane: 403, nothing written',
    async (name) => {
      it = await setUp()
      const response = await it.ask(hello, { 'x-session-key': name })
      expect(response.status).toBe(403)
      expect(await errorOf(response)).toMatchObject({ code: 'reserved_session_key', type: 'permission_error' })
      expect(await it.store.get(name)).toBeUndefined()
    },
  )

  test.each(['agent:subagents:7', 'my-cron', 'acronym'])('%s does not', async (name) => {
    it = await setUp()
    expect((await it.ask(hello, { 'x-session-key': name })).status).toBe(200)
  })

  test('which lanes are reserved can be said', async () => {
    it = await setUp({ reserved: (name) => name.startsWith('system:') })
    expect((await it.ask(hello, { 'x-session-key': 'system:1' })).status).toBe(403)
    expect((await it.ask(hello, { 'x-session-key': 'cron:1' })).status).toBe(200)
    await it.close()
    it = await setUp({ reserved: ['ops'] })
    expect((await it.ask(hello, { 'x-session-key': 'a:ops:1' })).status).toBe(403)
  })

  test('can come from a function of the request, which the header does not override; reserved ones are refused all the same', async () => {
    it = await setUp({ sessionKey: (_, chat) => (chat.user === undefined ? undefined : `user:${chat.user}`) })
    const response = await it.ask({ ...hello, user: 'ada' }, key)
    expect(response.headers.get('x-session-key')).toBe('user:ada')
    expect((await it.ask({ ...hello, user: 'cron' }, key)).status).toBe(403)
    expect((await it.ask(hello, key)).headers.get('x-session-key')).toMatch(/^chat:/)
  })

  test.each([
    ['empty', ''],
    ['of 10 KB', 'k'.repeat(10_240)],
    ['not UTF-8', 'caf\xe9'],
    ['with a control character', 'a\x80b'],
  ])('one that is %s is refused: 400', async (_, value) => {
    it = await setUp()
    expect((await it.ask(hello, { 'x-session-key': value })).status).toBe(400)
    for await (const _ of it.store.entries()) expect.unreachable()
  })

  test.each([
    '../../etc/passwd',
    '/etc/passwd',
    '..',
    '.',
    'C:\\windows',
    'a/b',
    '%2e%2e%2f',
    '__proto__',
    'constructor',
    '~',
    '$(reboot)',
    'locks/metadata',
    'sessions.json',
    '日本語 🦊',
    'ﬁ',
    'a\u202eb',
  ])('%s is a key like any other, comes back as it was, and becomes no path', async (name) => {
    it = await setUp()
    const response = await it.ask(hello, { 'x-session-key': headerOfText(name) })
    expect(response.status).toBe(200)
    expect(response.headers.get('x-session-key')).toBe(headerOfText(name))
    expect((await it.store.get(name))?.sessionId).toBe(response.headers.get('x-session-id'))
    expect(await it.said(name)).toHaveLength(2)
  })
})

describe('a body', () => {
  test.each([
    ['that is not JSON', '{"messages":'],
    ['that is no object', '[]'],
    ['that is null', 'null'],
    ['without messages', '{}'],
    ['with no message', '{"messages":[]}'],
    ['with an unknown role', '{"messages":[{"role":"boss","content":"x"}]}'],
    ['with a message without content', '{"messages":[{"role":"user"}]}'],
    ['with content of a wrong type', '{"messages":[{"role":"user","content":7}]}'],
    ['that ends with the assistant', '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'],
    ['with system messages only', '{"messages":[{"role":"system","content":"a"}]}'],
    ['with n = 2', '{"messages":[{"role":"user","content":"a"}],"n":2}'],
    ['with stream = "yes"', '{"messages":[{"role":"user","content":"a"}],"stream":"yes"}'],
    ['that is not UTF-8', Buffer.from([0x22, 0xff, 0x22]).toString('latin1')],
  ])('%s is refused: 400, nothing written', async (_, body) => {
    it = await setUp()
    const response = await it.ask(body, key)
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ type: 'invalid_request_error', effect: 'none', retryable: false })
    expect(await it.store.get('agent:main:web:1')).toBeUndefined()
  })

  test('says where it is wrong', async () => {
    it = await setUp()
    const { param } = await errorOf(await it.ask({ messages: [user('a'), { role: 'user', content: 7 }] }, key))
    expect(param).toBe('messages.1.content')
  })

  test('may have fields that nobody here knows; the model gets them', async () => {
    let params: unknown
    it = await setUp({
      model: async (_, context) => {
        params = context.params
      },
    })
    await it.ask({ ...hello, temperature: 0.2, future: { x: 1 }, n: null, stream: null, stream_options: null }, key)
    expect(params).toEqual({ temperature: 0.2, future: { x: 1 } })
  })

  test('with parts, images and names is stored as it came', async () => {
    it = await setUp()
    const message = {
      role: 'user',
      name: 'ada',
      content: [
        { type: 'text', text: 'see' },
        { type: 'image_url', image_url: { url: 'data:,x' } },
      ],
    }
    await it.ask({ messages: [message] }, key)
    expect((await it.records('agent:main:web:1'))[0]).toEqual({ type: 'message', message })
  })

  test('that is too large is refused: 413', async () => {
    it = await setUp({ bodyBytesMax: 1_024 })
    const response = await it.ask({ messages: [user('x'.repeat(2_000))] }, key)
    expect(response.status).toBe(413)
    expect(await errorOf(response)).toMatchObject({ code: 'body_too_large' })
  })

  test('that comes too slowly is refused: 408', async () => {
    it = await setUp({ bodyMs: 20 })
    const body = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode('{"mess')) })
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body, duplex: 'half' }
    expect((await it.handler(new Request(`${origin}/v1/chat/completions`, init as RequestInit))).status).toBe(408)
  })

  test('that is nested too deeply is refused: 400', async () => {
    it = await setUp()
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
    const body = `{"messages":[{"role":"user","content":[{"type":"text","text":"a","x":${deep}}]}]}`
    expect((await it.ask(body, key)).status).toBe(400)
  })

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonish'])(
    'called %s is refused: 415, so that no page of another site can send one',
    async (type) => {
      it = await setUp()
      expect((await it.ask(hello, { ...key, 'content-type': type })).status).toBe(415)
    },
  )

  test.each(['application/json; charset=utf-8', 'APPLICATION/JSON', 'application/vnd.api+json'])('called %s is let in', async (type) => {
    it = await setUp()
    expect((await it.ask(hello, { ...key, 'content-type': type })).status).toBe(200)
  })
})

describe('tokens', () => {
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

  test('one of several is needed everywhere but at /healthz', async () => {
    it = await setUp({ tokens: ['first', 'second'] })
    for (const headers of [{}, bearer('wrong'), bearer('firs'), bearer('first '.repeat(2)), { authorization: 'Basic first' }, bearer('')]) {
      const response = await it.ask(hello, { ...key, ...(headers as Record<string, string>) })
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
      expect(response.headers.get('x-should-retry')).toBeNull()
    }
    expect((await it.look('/sessions')).status).toBe(401)
    expect((await it.look('/v1/models')).status).toBe(401)
    expect((await it.look('/nowhere')).status).toBe(401)
    expect((await it.look('/healthz')).status).toBe(200)
    expect((await it.ask(hello, { ...key, ...bearer('first') })).status).toBe(200)
    expect((await it.ask(hello, { ...key, ...bearer('second') })).status).toBe(200)
    expect((await it.look('/sessions', { authorization: 'bearer second' })).status).toBe(200)
  })

  test('are never said again, in answers or in the log', async () => {
    it = await setUp({ tokens: 'hunter2' })
    const response = await it.ask(hello, { ...key, ...bearer('hunter2') })
    expect(JSON.stringify([...response.headers]) + (await response.text()) + JSON.stringify(it.lines)).not.toContain('hunter2')
  })

  test('a body without a right token is not read', async () => {
    it = await setUp({ tokens: 'x' })
    const body = new ReadableStream({ pull: () => expect.unreachable() }, { highWaterMark: 0 })
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body, duplex: 'half' }
    expect((await it.handler(new Request(`${origin}/v1/chat/completions`, init as RequestInit))).status).toBe(401)
  })
})

describe('methods and paths', () => {
  test('unknown paths are 404, wrong methods 405 with Allow', async () => {
    it = await setUp()
    expect((await send('GET', '/')).status).toBe(404)
    expect((await send('GET', '/v1/chat/completions/')).status).toBe(404)
    const wrong = await send('GET', '/v1/chat/completions')
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST'])
    for (const method of ['PUT', 'DELETE', 'PATCH', 'POST']) {
      const response = await send(method, '/sessions')
      expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
    }
  })

  test('HEAD is GET without a body', async () => {
    it = await setUp()
    const response = await send('HEAD', '/v1/models')
    expect([response.status, response.headers.get('content-type'), await response.text()]).toEqual([200, 'application/json', ''])
    expect((await send('HEAD', '/v1/chat/completions')).status).toBe(405)
    expect(await (await send('HEAD', '/nowhere')).text()).toBe('')
  })

  test('OPTIONS says what a path takes', async () => {
    it = await setUp()
    const response = await send('OPTIONS', '/v1/chat/completions')
    expect([response.status, response.headers.get('allow')]).toEqual([204, 'POST'])
  })
})

describe('pages of other sites', () => {
  const from = { origin: 'https://app.example' }
  const preflight = { ...from, 'access-control-request-method': 'POST', 'access-control-request-headers': 'x-session-key,content-type' }

  test('are not helped unless they are named', async () => {
    it = await setUp()
    const answer = await send('OPTIONS', '/v1/chat/completions', preflight)
    expect([...answer.headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([])
    expect((await it.look('/v1/models', from)).headers.get('access-control-allow-origin')).toBeNull()
  })

  test('that are named may ask, without a token for the preflight, and read our headers', async () => {
    it = await setUp({ corsOrigins: ['https://app.example'], tokens: 'x' })
    const answer = await send('OPTIONS', '/v1/chat/completions', preflight)
    expect(answer.status).toBe(204)
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'access-control-allow-origin': 'https://app.example',
      'access-control-allow-headers': 'x-session-key,content-type',
      vary: 'origin',
    })
    const response = await it.ask(hello, { ...key, ...from, authorization: 'Bearer x' })
    expect(response.headers.get('access-control-allow-origin')).toBe('https://app.example')
    expect(response.headers.get('access-control-expose-headers')).toContain('x-session-id')
    const other = await send('OPTIONS', '/v1/chat/completions', { ...preflight, origin: 'https://evil.example' })
    expect(other.headers.get('access-control-allow-origin')).toBeNull()
  })

  test('that point a name of their own here are refused where names are checked: 421', async () => {
    it = await setUp({ hosts: ['localhost', '127.0.0.1'] })
    expect((await it.look('/sessions')).status).toBe(421)
    expect((await it.handler(new Request('http://localhost:8787/sessions'))).status).toBe(200)
  })
})

test('options are checked when the handler is made', async () => {
  it = await setUp()
  const model = echoModel()
  const bad: object[] = [
    {},
    { store: it.store },
    { store: {}, model },
    { store: it.store, model: {} },
    { store: it.store, model, whenBusy: 'shout' },
    { store: it.store, model, tokens: [] },
    { store: it.store, model, tokens: '' },
    { store: it.store, model, replyMs: 2_000_000 },
    { store: it.store, model, typo: 1 },
  ]
  for (const options of bad)
    expect(() => createChatHandler(options as never), JSON.stringify(Object.keys(options))).toThrow(/^INVALID_OPTION/)
})

/** Another server as the model: a real one, on this machine, that answers as it is told. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { upstreamModel } from '../../src/gateway/index.js'
import { contentOf, hear, type Setting, setUp, until, user } from './setting.js'

type Answer = (response: ServerResponse, body: Record<string, unknown>, request: IncomingMessage) => void

let server: Server
let baseUrl: string
let answer: Answer
let bodies: Record<string, unknown>[]
let open: number
let it: Setting

beforeEach(async () => {
  bodies = []
  open = 0
  server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>
    bodies.push(body)
    open++
    response.on('close', () => open--)
    answer(response, body, request)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
})
afterEach(async () => {
  await it?.close()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const key = { 'x-session-key': 'k' }
const start = async (options: Parameters<typeof upstreamModel>[0] = {}) => {
  it = await setUp({ model: upstreamModel({ baseUrl, apiKey: 'sk-secret', ...options }) })
}
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`
const piece = (delta: object, finish: string | null = null) => event({ choices: [{ index: 0, delta, finish_reason: finish }] })
const streamOf =
  (...texts: string[]): Answer =>
  (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const text of texts) response.write(text)
    response.end()
  }
const json =
  (status: number, body: unknown, headers = {}): Answer =>
  (response) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))

describe('its stream', () => {
  test('is handed on piece by piece and stored as a whole, with its counts', async () => {
    const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
    answer = streamOf(
      piece({ role: 'assistant', content: '' }),
      ': a comment\n\n',
      piece({ content: 'Hel' }),
      piece({ content: 'lo' }),
      piece({}, 'length'),
      event({ choices: [], usage }),
      'data: [DONE]\n\n',
    )
    await start()
    const heard = await hear(await it.ask({ messages: [user('hi')], stream: true, stream_options: { include_usage: true } }, key))
    expect(heard).toMatchObject({ text: 'Hello', done: true })
    expect(heard.chunks.at(-1)!.usage).toEqual(usage)
    expect(heard.chunks.at(-2)!.choices[0]!.finish_reason).toBe('length')
    expect((await it.records('k')).at(-1)).toMatchObject({
      message: { role: 'assistant', content: 'Hello' },
      finishReason: 'length',
      usage,
    })
  })

  test('is asked for with the conversation, the parameters of the request, its model and our key', async () => {
    let headers: IncomingMessage['headers'] = {}
    answer = (response, body, request) => {
      headers = request.headers
      expect(request.url).toBe('/v1/chat/completions')
      streamOf(piece({ content: 'x' }, 'stop'))(response, body, request)
    }
    await start({ headers: { 'x-team': 'blue' } })
    await it.ask({ messages: [user('one')], model: 'gpt-x', temperature: 0.5 }, { ...key, authorization: 'Bearer of-the-client' })
    await it.ask({ messages: [{ role: 'system', content: 's' }, user('two')], model: 'gpt-x' }, key)
    expect(bodies[0]).toEqual({
      temperature: 0.5,
      model: 'gpt-x',
      messages: [user('one')],
      stream: true,
      stream_options: { include_usage: true },
    })
    expect(bodies[1]!.messages).toEqual([{ role: 'system', content: 's' }, user('one'), { role: 'assistant', content: 'x' }, user('two')])
    expect(headers).toMatchObject({ authorization: 'Bearer sk-secret', 'x-team': 'blue' })
  })

  test('may be cut anywhere, in the middle of a character as well', async () => {
    const bytes = Buffer.from(`${piece({ content: 'grüße 🦊' })}${piece({}, 'stop')}data: [DONE]\n\n`)
    answer = async (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      for (const byte of bytes) {
        response.write(Buffer.from([byte]))
        if (byte > 127) await new Promise((resolve) => setTimeout(resolve, 2))
      }
      response.end()
    }
    await start()
    expect(await contentOf(await it.ask({ messages: [user('hi')] }, key))).toBe('grüße 🦊')
  })

  test('may bring tool calls in pieces', async () => {
    answer = streamOf(
      piece({
        role: 'assistant',
        content: null,
        tool_calls: [{ index: 0, id: 'c1', type: 'function', function: { name: 'f', arguments: '' } }],
      }),
      piece({ tool_calls: [{ index: 0, function: { arguments: '{"a":' } }] }),
      piece({ tool_calls: [{ index: 1, id: 'c2', type: 'function', function: { name: 'g', arguments: '{}' } }] }),
      piece({ tool_calls: [{ index: 0, function: { arguments: '1}' } }] }),
      piece({}, 'tool_calls'),
      'data: [DONE]\n\n',
    )
    await start()
    const body = (await (await it.ask({ messages: [user('hi')] }, key)).json()) as { choices: [{ message: object; finish_reason: string }] }
    expect(body.choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        content: null,
        tool_calls: [
          { id: 'c1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } },
          { id: 'c2', type: 'function', function: { name: 'g', arguments: '{}' } },
        ],
      },
    })
  })

  test('that ends before its end is no reply: 502, and what was said is kept as interrupted', async () => {
    answer = streamOf(piece({ content: 'half' }))
    await start()
    const response = await it.ask({ messages: [user('hi')] }, key)
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ error: { code: 'upstream_broken' } })
    expect(await it.said('k')).toEqual(['user: hi', 'assistant: half …'])
  })

  test.each([
    ['is reset', (response: ServerResponse) => setTimeout(() => response.destroy(), 20), 'upstream_unreachable'],
    ['brings garbage', (response: ServerResponse) => response.end('data: {"choices":\n\n'), 'upstream_broken'],
    [
      'brings an error',
      (response: ServerResponse) => response.end(event({ error: { message: 'overloaded', code: 'overloaded' } })),
      'overloaded',
    ],
  ] as const)('that %s is an error event for our client, and what was said is kept', async (_, end, code) => {
    answer = (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write(piece({ content: 'half' }))
      end(response)
    }
    await start()
    const heard = await hear(await it.ask({ messages: [user('hi')], stream: true }, key))
    expect(heard.error).toMatchObject({ code })
    expect(heard.done).toBe(false)
    expect(await it.said('k')).toEqual(['user: hi', 'assistant: half …'])
  })

  test('that falls silent is given up: 504', async () => {
    answer = (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write(piece({ content: 'half' }))
    }
    await start({ silenceMs: 50 })
    const response = await it.ask({ messages: [user('hi')] }, key)
    expect(response.status).toBe(504)
    expect(await response.json()).toMatchObject({ error: { code: 'upstream_timeout' } })
  })

  test('is broken off when our client goes, so that nobody pays for the rest', async () => {
    answer = (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const timer = setInterval(() => response.write(piece({ content: 'word ' })), 5)
      response.on('close', () => clearInterval(timer))
    }
    await start()
    const response = await it.ask({ messages: [user('hi')], stream: true }, key)
    const reader = response.body!.getReader()
    for (let heard = ''; !heard.includes('word'); ) heard += new TextDecoder().decode((await reader.read()).value)
    await reader.cancel()
    await until(() => open === 0 || undefined, 'the upstream to be let go')
    await until(() => it.turnLines()[0])
    expect((await it.said('k')).at(-1)).toMatch(/^assistant: (word )+ …$/)
  })
})

test('a server that does not stream is understood', async () => {
  answer = json(200, { choices: [{ message: { role: 'assistant', content: 'plain' }, finish_reason: 'stop' }] })
  await start({ includeUsage: false, model: 'fixed' })
  expect((await hear(await it.ask({ messages: [user('hi')], stream: true }, key))).text).toBe('plain')
  expect(bodies[0]).toEqual({ model: 'fixed', messages: [user('hi')], stream: true })
})

describe('its refusals', () => {
  const said = { error: { message: 'too long', code: 'context_length_exceeded', param: 'messages' } }

  test.each([
    [400, 400, 'context_length_exceeded'],
    [422, 422, 'context_length_exceeded'],
    [429, 429, 'context_length_exceeded'],
    [503, 503, 'context_length_exceeded'],
    [401, 502, 'upstream_refused'],
    [403, 502, 'upstream_refused'],
    [404, 502, 'upstream_failed'],
    [500, 502, 'upstream_failed'],
  ])('%i becomes %i, %s', async (status, ours, code) => {
    answer = json(status, said, { 'retry-after': '7' })
    await start()
    const response = await it.ask({ messages: [user('hi')] }, key)
    expect(response.status).toBe(ours)
    expect(await response.json()).toMatchObject({ error: { code } })
    if (status === 429 || status === 503) expect(response.headers.get('retry-after')).toBe('7')
  })

  test('without a body in the shape of the chat API are understood as well, and never say our key', async () => {
    answer = (response) => response.writeHead(401, { 'content-type': 'text/html' }).end('<h1>no sk-secret</h1>')
    await start()
    const response = await it.ask({ messages: [user('hi')] }, key)
    expect(response.status).toBe(502)
    expect(await response.text()).not.toContain('sk-secret')
  })

  test('a server that is not there is 502', async () => {
    await start({ baseUrl: 'http://127.0.0.1:9' })
    const response = await it.ask({ messages: [user('hi')] }, key)
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ error: { code: 'upstream_unreachable' } })
  })
})

test('base URL and key come from the environment when nobody says them; without a URL no model is made', async () => {
  const before = { ...process.env }
  try {
    delete process.env.OPENAI_BASE_URL
    expect(() => upstreamModel()).toThrow(/OPENAI_BASE_URL/)
    expect(() => upstreamModel({ baseUrl: 'ftp://x' })).toThrow(/^INVALID_OPTION/)
    Object.assign(process.env, { OPENAI_BASE_URL: baseUrl, OPENAI_API_KEY: 'from-env' })
    let authorization: string | undefined
    answer = (response, body, request) => {
      authorization = request.headers.authorization
      streamOf(piece({ content: 'x' }, 'stop'))(response, body, request)
    }
    it = await setUp({ model: upstreamModel() })
    await it.ask({ messages: [user('hi')] }, key)
    expect(authorization).toBe('Bearer from-env')
  } finally {
    process.env = before
  }
})

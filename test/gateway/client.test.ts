/** The official client against the gateway in a process of its own. */
import fs from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { clientOf, freshDirectory, type GatewayProcess, killAll, startGateway } from './gateway-process.js'
import { until } from './setting.js'

let dir: string
let storeDir: string
beforeEach(() => {
  dir = freshDirectory()
  storeDir = join(dir, 'store')
})
afterEach(() => {
  killAll()
  fs.rmSync(dir, { recursive: true, force: true })
})

const key = 'agent:main:web:1'
const start = (...flags: string[]) => startGateway(['--store', storeDir, ...flags])
const user = (content: string) => ({ role: 'user' as const, content })
const asking = (content: string) => ({ model: 'echo', messages: [user(content)] })

async function ask(client: OpenAI, content: string, headers: Record<string, string> = {}): Promise<string> {
  const { choices } = await client.chat.completions.create(asking(content), { headers })
  return choices[0]!.message.content!
}

/** Role and text of what is on disk, read by another handle. */
async function onDisk(of = key): Promise<{ role: string; content: string; interrupted: boolean }[]> {
  await using store = await SessionStore.open(storeDir, { readOnly: true })
  const said: { role: string; content: string; interrupted: boolean }[] = []
  for await (const { record } of store.session(of).read())
    if (record.type === 'message')
      said.push({ ...(record.message as { role: string; content: string }), interrupted: record.interrupted === true })
  return said
}

async function turnsOf({ url }: GatewayProcess, of = key): Promise<Record<string, unknown>[]> {
  const response = await fetch(`${url}/sessions/${encodeURIComponent(of)}/turns`)
  return ((await response.json()) as { data?: Record<string, unknown>[] }).data ?? []
}

describe('F31 two requests at once on one key with 15 earlier turns', () => {
  async function twoAtOnce(one: GatewayProcess, other: GatewayProcess) {
    const client = clientOf(one, key)
    for (let n = 1; n <= 15; n++) expect(await ask(client, `question ${n}`)).toContain(`message ${n} from you, ${2 * n - 1} in all`)
    const both = await Promise.all(
      [one, other].map((gateway, n) =>
        clientOf(gateway, key)
          .chat.completions.create(asking(`at once ${n}`))
          .withResponse(),
      ),
    )
    expect(new Set(both.map(({ response }) => response.headers.get('x-session-id'))).size).toBe(1)
    expect(new Set(both.map(({ response }) => response.headers.get('x-turn'))).size).toBe(2)
    const seen = both.map(({ data }) =>
      /message (\d+) from you, (\d+) in all/.exec(data.choices[0]!.message.content!)!.slice(1).join(' of '),
    )
    expect(seen.sort()).toEqual(['16 of 31', '17 of 33'])
    expect(await onDisk()).toHaveLength(34)
  }

  test('see the whole history, and one session id', async () => {
    const gateway = await start()
    await twoAtOnce(gateway, gateway)
  })

  test('the same from two gateways on one store', async () => {
    const [one, other] = [await start(), await start()]
    await twoAtOnce(one, other)
  })

  test('the same for clients that send all they remember', async () => {
    const gateway = await start()
    const client = clientOf(gateway, key)
    const remembered: OpenAI.ChatCompletionMessageParam[] = []
    for (let n = 1; n <= 15; n++) {
      remembered.push(user(`question ${n}`))
      const { choices } = await client.chat.completions.create({ model: 'echo', messages: remembered })
      remembered.push(choices[0]!.message)
    }
    const both = await Promise.all(
      [1, 2].map((n) => client.chat.completions.create({ model: 'echo', messages: [...remembered, user(`at once ${n}`)] })),
    )
    const seen = both.map(({ choices }) => /message (\d+) from you/.exec(choices[0]!.message.content!)![1])
    expect(seen.sort()).toEqual(['16', '17'])
    expect(await onDisk()).toHaveLength(34)
  })
})

test('64 requests at once on 8 keys through two gateways: 8 conversations, each request answered once, in some order', async () => {
  const gateways = [await start(), await start()]
  const answers = await Promise.all(
    Array.from({ length: 64 }, async (_, n) => {
      const client = clientOf(gateways[n % 2]!, `key:${(n >> 1) % 8}`)
      const { data, response } = await client.chat.completions.create(asking(`q${n}`)).withResponse()
      const [, said, count] = /^You said: (q\d+) \(message (\d+) from you/.exec(data.choices[0]!.message.content!)!
      expect(said).toBe(`q${n}`)
      return { key: response.headers.get('x-session-key')!, sessionId: response.headers.get('x-session-id'), count: Number(count) }
    }),
  )
  for (const of of new Set(answers.map((answer) => answer.key))) {
    const mine = answers.filter((answer) => answer.key === of)
    expect(new Set(mine.map(({ sessionId }) => sessionId)).size).toBe(1)
    expect(mine.map(({ count }) => count).sort((a, b) => a - b)).toEqual(mine.map((_, n) => n + 1))
    expect(await onDisk(of)).toHaveLength(2 * mine.length)
  }
})

test('streams, counts, models and errors are understood by the client', async () => {
  const gateway = await start()
  const client = clientOf(gateway, key)
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(['echo'])
  const stream = await client.chat.completions.create({ ...asking('hello there'), stream: true, stream_options: { include_usage: true } })
  let text = ''
  let usage: OpenAI.CompletionUsage | null | undefined
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    usage = chunk.usage
  }
  expect(text).toBe('You said: hello there (message 1 from you, 1 in all)')
  expect(usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 11 })
  const runner = client.chat.completions.stream(asking('again'))
  expect((await runner.finalChatCompletion()).choices[0]!.message.content).toContain('message 2 from you')
  const refused = await clientOf(gateway, 'agent:main:subagent:7')
    .chat.completions.create(asking('x'))
    .catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(OpenAI.PermissionDeniedError)
  expect(refused).toMatchObject({ status: 403, code: 'reserved_session_key', type: 'permission_error' })
})

test('a wrong token is what the client calls an authentication error', async () => {
  const gateway = await start('--token', 'right')
  await expect(ask(clientOf(gateway, key), 'x')).rejects.toBeInstanceOf(OpenAI.AuthenticationError)
  expect(await ask(clientOf(gateway, key, { apiKey: 'right' }), 'x')).toContain('You said: x')
})

test('a stream that the client aborts ends its turn as interrupted; what was said is on disk and the conversation goes on', async () => {
  const gateway = await start('--echo-delay', '20')
  const client = clientOf(gateway, key)
  const stream = await client.chat.completions.create({ ...asking('one two three four five six seven'), stream: true })
  let words = 0
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content && ++words === 4) stream.controller.abort()
  await until(async () => (await turnsOf(gateway))[0]?.state === 'interrupted' || undefined)
  const said = await onDisk()
  expect(said[1]).toMatchObject({ role: 'assistant', interrupted: true, content: expect.stringMatching(/^You said: one two/) })
  expect(said[1]!.content).not.toContain('seven')
  expect(await ask(client, 'and on')).toContain('message 2 from you, 3 in all')
  const line = JSON.parse(gateway.lines.find((text) => text.includes('client_disconnected'))!)
  expect(line).toMatchObject({ event: 'turn', outcome: 'interrupted', key, sessionId: expect.any(String), requestId: expect.any(String) })
})

test('a second try with the same idempotency key gets the same reply and adds nothing, after a restart as well', async () => {
  let gateway = await start()
  const once = { 'Idempotency-Key': 'evt-7' }
  const first = await ask(clientOf(gateway, key), 'hello', once)
  expect(await ask(clientOf(gateway, key), 'hello', once)).toBe(first)
  expect(await gateway.stop('SIGKILL')).toBe('SIGKILL')
  gateway = await start()
  const { data, response } = await clientOf(gateway, key).chat.completions.create(asking('hello'), { headers: once }).withResponse()
  expect(data.choices[0]!.message.content).toBe(first)
  expect(response.headers.get('idempotent-replayed')).toBe('true')
  expect(await onDisk()).toHaveLength(2)
})

test('a busy conversation is 409 for the client, and its own retries get through when the turn is over', async () => {
  const gateway = await start('--echo-delay', '60')
  const long = ask(clientOf(gateway, key), 'one two three four five six seven eight nine ten')
  await until(async () => (await turnsOf(gateway))[0]?.state === 'active' || undefined)
  const busy = { 'x-when-busy': 'reject' }
  const refused = await ask(clientOf(gateway, key), 'me too', busy).catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(OpenAI.ConflictError)
  expect(refused).toMatchObject({ code: 'TURN_BUSY', error: { effect: 'none', retryable: true } })
  expect(await ask(clientOf(gateway, key, { maxRetries: 10 }), 'me too', busy)).toContain('You said: me too (message 2 from you')
  expect(await long).toContain('ten')
  expect((await onDisk()).filter(({ content }) => content === 'me too')).toHaveLength(1)
})

describe('a conversation that is busy in another gateway', () => {
  async function busyElsewhere() {
    const [one, other] = [await start('--echo-delay', '40'), await start()]
    const long = ask(clientOf(one, key), 'one two three four five six seven eight nine ten').catch((error: unknown) => error)
    await until(async () => (await turnsOf(one))[0]?.state === 'active' || undefined)
    await new Promise((resolve) => setTimeout(resolve, 150))
    return { long, other }
  }

  test('can be interrupted from here: what it said is kept, its client is told', async () => {
    const { long, other } = await busyElsewhere()
    expect(await ask(clientOf(other, key), 'stop', { 'x-when-busy': 'interrupt' })).toContain(
      'You said: stop (message 2 from you, 3 in all)',
    )
    expect(await long).toMatchObject({ status: 409, code: 'turn_interrupted' })
    const said = await onDisk()
    expect(said).toHaveLength(4)
    expect(said).toContainEqual({ role: 'assistant', interrupted: true, content: expect.stringMatching(/^You said: /) })
  })

  test('can be left a message from here, and answers it there', async () => {
    const { long, other } = await busyElsewhere()
    const left = await clientOf(other, key)
      .chat.completions.create(asking('and eleven'), { headers: { 'x-when-busy': 'coalesce' } })
      .withResponse()
    expect(left.response.status).toBe(202)
    expect(await long).toMatch(/^You said: one two.*\n\nYou said: and eleven \(message 2 from you/)
    expect((await onDisk()).filter(({ role }) => role === 'assistant')).toHaveLength(2)
  })

  test('is 409 from here, naming its turn, when that is asked for', async () => {
    const { long, other } = await busyElsewhere()
    const refused = await ask(clientOf(other, key), 'me too', { 'x-when-busy': 'reject' }).catch((error: unknown) => error)
    expect(refused).toMatchObject({ status: 409, code: 'TURN_BUSY' })
    expect((refused as InstanceType<typeof OpenAI.ConflictError>).headers.get('x-turn')).toBe('1')
    expect(await long).toContain('ten')
    expect(await onDisk()).toHaveLength(2)
  })
})

describe('the client tries 5xx again on its own', () => {
  let upstream: Server
  let calls: number
  beforeEach(async () => {
    calls = 0
    upstream = createServer((request, response) => {
      request.resume().on('end', () => {
        const ok = { choices: [{ message: { role: 'assistant', content: 'at last' }, finish_reason: 'stop' }] }
        response.writeHead(++calls < 3 ? 500 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(ok))
      })
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
  })
  afterEach(() => {
    upstream.closeAllConnections()
    upstream.close()
  })
  const startWithUpstream = () =>
    start('--model', 'upstream', '--base-url', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/v1`)

  test('but not when that would say everything twice', async () => {
    const gateway = await startWithUpstream()
    await expect(ask(clientOf(gateway, key, { maxRetries: 3 }), 'hello')).rejects.toMatchObject({ status: 502 })
    expect(calls).toBe(1)
    expect(await onDisk()).toEqual([{ role: 'user', content: 'hello', interrupted: false }])
  })

  test('and with an idempotency key that is safe: stored once, answered in the end', async () => {
    const gateway = await startWithUpstream()
    expect(await ask(clientOf(gateway, key, { maxRetries: 3 }), 'hello', { 'Idempotency-Key': 'evt-8' })).toBe('at last')
    expect(calls).toBe(3)
    expect((await onDisk()).map(({ role, content }) => `${role}: ${content}`)).toEqual(['user: hello', 'assistant: at last'])
  })
})

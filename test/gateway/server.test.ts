/** Behind node:http, with real sockets: hostile bytes, slow readers, clients that vanish, many at once. */
import http from 'node:http'
import net from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { type ChatHandlerOptions, type GatewayServer, nodeListener, serveGateway } from '../../src/gateway/index.js'
import { postBytes, rawRequest } from './raw-http.js'
import { contentOf, heardIn, heldModel, type Setting, setUp, until, user } from './setting.js'

let it: Setting
let gateway: GatewayServer
let port: number

async function start(options: Partial<ChatHandlerOptions> = {}): Promise<void> {
  it = await setUp(options)
  gateway = await serveGateway(it.handler, { port: 0 })
  port = Number(new URL(gateway.url).port)
}
afterEach(async () => {
  await gateway.close({ drainMs: 0 })
  await it.close()
})

const hello = JSON.stringify({ messages: [user('hello')] })
const post = (body: string, headers: Record<string, string> = {}, signal?: AbortSignal) =>
  fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
    signal: signal ?? null,
  })
const statusOf = (heard: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(heard)?.[1])

describe('hostile bytes', () => {
  test.each([
    ['a line break in a header', 'agent\r\nx-injected: 1'],
    ['a bare line feed in a header', 'agent\nx-injected: 1'],
    ['a NUL in a header', 'agent\0'],
  ])('%s never comes back as a header', async (_, value) => {
    await start()
    const heard = await rawRequest(port, postBytes(hello, { 'x-session-key': value }))
    expect(heard.split('\r\n\r\n')[0]!.toLowerCase()).not.toContain('x-injected')
    for await (const [key] of it.store.entries()) expect(key).toBe('agent')
  })

  test('a key as a path or a percent sign is a key, and no file is named after it', async () => {
    await start()
    for (const key of ['../../../../tmp/evil', '/etc/passwd', '..%2f..', 'a\\b'])
      expect(statusOf(await rawRequest(port, postBytes(hello, { 'x-session-key': key })))).toBe(200)
    const keys: string[] = []
    for await (const [key] of it.store.entries()) keys.push(key)
    expect(new Set(keys)).toEqual(new Set(['../../../../tmp/evil', '/etc/passwd', '..%2f..', 'a\\b']))
  })

  test('raw UTF-8 in a header is the key that was meant', async () => {
    await start()
    const bytes = Buffer.from('chat:münchen 🦊', 'utf8').toString('latin1')
    const heard = await rawRequest(port, postBytes(hello, { 'x-session-key': bytes }))
    expect(statusOf(heard)).toBe(200)
    expect(heard).toContain(`x-session-key: ${bytes}`)
    expect(await it.said('chat:münchen 🦊')).toHaveLength(2)
  })

  test.each([
    ['of 10 KB', 10 << 10, 400],
    ['of 64 KB', 64 << 10, 431],
  ])('a key %s is refused', async (_, length, status) => {
    await start()
    expect(statusOf(await rawRequest(port, postBytes(hello, { 'x-session-key': 'k'.repeat(length) })))).toBe(status)
  })

  test('bad JSON, a cut body and no body at all are answered, or dropped with their client', async () => {
    await start()
    expect(statusOf(await rawRequest(port, postBytes('{"messages": [}')))).toBe(400)
    expect(statusOf(await rawRequest(port, postBytes('')))).toBe(400)
    expect(statusOf(await rawRequest(port, postBytes(Buffer.from([0xff, 0xfe, 0x00]))))).toBe(400)
    const cut = net.connect(port, '127.0.0.1')
    cut.end(postBytes(hello, { 'content-length': '1000' }))
    await new Promise((resolve) => cut.on('close', resolve).resume())
    expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200)
    expect(it.lines).toEqual([])
  })

  test('a huge body is 413, whether its length is announced or not, and the gateway goes on', async () => {
    await start({ bodyBytesMax: 1 << 20 })
    const huge = JSON.stringify({ messages: [user('x'.repeat(20 << 20))] })
    expect((await post(huge)).status).toBe(413)
    expect(statusOf(await rawRequest(port, postBytes('', { 'content-length': '99999999999' })))).toBe(413)
    const chunked = new ReadableStream({
      start(controller) {
        for (let n = 0; n < 40; n++) controller.enqueue(new Uint8Array(100_000).fill(0x20))
        controller.close()
      },
    })
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: chunked, duplex: 'half' }
    expect((await fetch(`${gateway.url}/v1/chat/completions`, init as RequestInit)).status).toBe(413)
    expect((await post(hello)).status).toBe(200)
  })

  test('a client that sends all of a huge body before it listens hears why it was refused', async () => {
    await start({ bodyBytesMax: 1 << 20 })
    const socket = net.connect(port, '127.0.0.1')
    const write = (bytes: Buffer) =>
      new Promise<void>((resolve, reject) => socket.write(bytes, (error) => (error ? reject(error) : resolve())))
    socket.pause()
    const piece = Buffer.alloc(1 << 20, 0x20)
    await write(postBytes('', { 'content-length': String(20 * piece.length) }))
    for (let n = 0; n < 20; n++) {
      await write(piece)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    let heard = ''
    for await (const chunk of socket) heard += chunk
    expect(statusOf(heard)).toBe(413)
  })

  test('paths that climb, are encoded twice or are not UTF-8 find nothing', async () => {
    await start()
    for (const path of [
      '/../../etc/passwd',
      '/sessions/../../x/turns',
      '/sessions/%2e%2e%2fx/turns',
      '/sessions/%252e/turns',
      '//evil/',
      '/sessions/%ff/turns',
      'http://evil/sessions/x/turns',
      '*',
    ]) {
      const status = statusOf(await rawRequest(port, `GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`))
      expect([400, 404], path).toContain(status)
    }
  })

  test('a host that is none is answered like any other', async () => {
    await start()
    for (const host of ['', 'a b', '[', 'x'.repeat(300), '::1'])
      expect(statusOf(await rawRequest(port, `GET /healthz HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)), host).toBeLessThan(
        500,
      )
  })
})

describe('clients and their connections', () => {
  test('HEAD has the headers of GET and no body; the connection can be used again', async () => {
    await start()
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const ask = (method: string) =>
      new Promise<[number, string]>((resolve) => {
        http
          .request(`${gateway.url}/v1/models`, { method, agent }, (response) => {
            let text = ''
            response.on('data', (chunk) => (text += chunk)).on('end', () => resolve([response.statusCode!, text]))
          })
          .end()
      })
    expect(await ask('HEAD')).toEqual([200, ''])
    expect((await ask('GET'))[0]).toBe(200)
    agent.destroy()
  })

  test('a client that vanishes in mid-stream interrupts its turn, and what was said is kept', async () => {
    const held = heldModel()
    await start({ model: held.model })
    const socket = net.connect(port, '127.0.0.1')
    let heard = ''
    socket.on('data', (chunk) => (heard += chunk))
    socket.write(postBytes(JSON.stringify({ messages: [user('a')], stream: true }), { 'x-session-key': 'k' }))
    const call = await held.call(0)
    call.say('half')
    await until(() => heard.includes('half') || undefined)
    socket.resetAndDestroy()
    await until(() => it.turnLines()[0])
    expect(call.context.signal.aborted).toBe(true)
    expect(await it.said('k')).toEqual(['user: a', 'assistant: half …'])
  })

  test('a client that vanishes while it waits for JSON interrupts its turn', async () => {
    const held = heldModel()
    await start({ model: held.model })
    const client = new AbortController()
    const asked = post(hello, { 'x-session-key': 'k' }, client.signal).catch((error: Error) => error.name)
    const call = await held.call(0)
    client.abort()
    expect(await asked).toBe('AbortError')
    await until(() => call.context.signal.aborted || undefined)
    expect((await until(() => it.turnLines()[0])).outcome).toBe('interrupted')
  })

  test('a slow reader gets every byte, and its turn is over long before', async () => {
    const words = Array.from({ length: 60_000 }, (_, n) => `word${n} `)
    await start({ model: async (_, { onToken }) => words.forEach((word) => void onToken(word)) })
    const socket = net.connect(port, '127.0.0.1')
    socket.pause()
    socket.write(postBytes(JSON.stringify({ messages: [user('a')], stream: true }), { 'x-session-key': 'k' }))
    await until(() => it.turnLines()[0])
    expect(await it.said('k')).toHaveLength(2)
    let heard = ''
    for await (const chunk of socket) heard += chunk
    const body = heard.slice(heard.indexOf('\r\n\r\n') + 4).replace(/(^|\r\n)[0-9a-f]+\r\n/g, '')
    expect(heardIn(body).text).toBe(words.join(''))
    expect(heard).toContain('[DONE]')
  })

  test('a reader that stops for good is cut off, and its connection closed', async () => {
    // More than the kernel keeps for it: several megabytes on the way.
    const piece = 'x'.repeat(64 << 10)
    await start({
      readerStallMs: 100,
      replyBytesMax: 256 << 20,
      model: async (_, { onToken, signal }) => {
        for (let n = 0; n < 1_000; n++) {
          onToken(piece)
          await new Promise((resolve) => setTimeout(resolve, 1))
          signal.throwIfAborted()
        }
      },
    })
    const socket = net.connect(port, '127.0.0.1')
    socket.pause()
    socket.on('error', () => {})
    socket.write(postBytes(JSON.stringify({ messages: [user('a')], stream: true }), { 'x-session-key': 'k' }))
    const line = await until(() => it.turnLines()[0])
    expect(line).toMatchObject({ outcome: 'interrupted', error: { code: 'reader_stalled' } })
    await until(async () => (await connections()) === 0 || undefined, 'the connection to be closed')
    socket.destroy()
  })

  const connections = () => new Promise<number>((resolve) => gateway.server.getConnections((_, count) => resolve(count)))

  test('closing waits for what is under way, then breaks it off', async () => {
    const held = heldModel()
    await start({ model: held.model })
    const first = post(hello, { 'x-session-key': 'k' })
    const call = await held.call(0)
    const closed = gateway.close({ drainMs: 5_000 })
    await expect(post(hello)).rejects.toThrow()
    call.finish('in time')
    expect(await contentOf(await first)).toBe('in time')
    await closed
    gateway = await serveGateway(it.handler, { port: 0 })
    const second = post(JSON.stringify({ messages: [user('b')], stream: true }), { 'x-session-key': 'k' })
    const other = await held.call(1)
    other.say('half')
    const response = await second
    await gateway.close({ drainMs: 30 })
    await expect(response.text()).rejects.toThrow()
    await until(() => it.turnLines()[1])
    expect((await it.said('k')).at(-1)).toBe('assistant: half …')
  })
})

test('64 requests at once on 8 keys: each key is one conversation, each request is answered once, in some order', async () => {
  await start({
    model: async (messages, { onToken }) => {
      await new Promise((resolve) => setTimeout(resolve, 1))
      onToken(`to ${messages.at(-1)!.content}, `)
      return `to ${messages.at(-1)!.content}, the ${messages.length}th`
    },
  })
  const asked = Array.from({ length: 64 }, async (_, n) => {
    const response = await post(JSON.stringify({ messages: [user(`q${n}`)], stream: n % 2 === 0 }), { 'x-session-key': `key:${n % 8}` })
    const text = n % 2 === 0 ? heardIn(await response.text()).text : await contentOf(response)
    return { n, status: response.status, sessionId: response.headers.get('x-session-id'), text }
  })
  const answers = await Promise.all(asked)
  for (let k = 0; k < 8; k++) {
    const mine = answers.filter(({ n }) => n % 8 === k)
    expect(new Set(mine.map(({ sessionId }) => sessionId)).size).toBe(1)
    expect(mine.map(({ text }) => Number(/the (\d+)th/.exec(text)?.[1])).sort((a, b) => a - b)).toEqual([1, 3, 5, 7, 9, 11, 13, 15])
    for (const { n, text, status } of mine) {
      expect(status).toBe(200)
      expect(text).toMatch(new RegExp(`^to q${n}, the \\d+th$`))
    }
    expect(await it.said(`key:${k}`)).toHaveLength(16)
  }
})

test('nodeListener is for any server that speaks node:http', async () => {
  await start()
  const server = http.createServer(nodeListener(it.handler))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port: theirs } = server.address() as net.AddressInfo
  expect(statusOf(await rawRequest(theirs, postBytes(hello)))).toBe(200)
  await new Promise((resolve) => server.close(resolve))
})

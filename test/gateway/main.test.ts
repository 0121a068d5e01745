/** The program: its flags, its environment, how it begins and how it ends. */
import fs from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { clientOf, freshDirectory, killAll, run, startGateway } from './gateway-process.js'
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

const asking = (content: string) => ({ model: 'x', messages: [{ role: 'user' as const, content }] })

describe('what it refuses ends it with 2, and makes no store', () => {
  test.each([
    [['--port', '99999'], /whole number/],
    [['--model', 'other'], /echo, upstream/],
    [['--model', 'upstream'], /OPENAI_BASE_URL/],
    [['--typo'], /unknown option/],
    [['surplus'], /too many arguments/],
    [['--host', '0.0.0.0'], /without a token/],
  ])('%j', async (flags, words) => {
    const ended = await run(['--store', storeDir, '--port', '0', ...flags])
    expect(ended).toMatchObject({ code: 2, stderr: expect.stringMatching(words) })
    expect(fs.existsSync(storeDir)).toBe(false)
  })

  test('a port that is taken ends it with 3', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    expect(await run(['--store', storeDir, '--port', String(port)])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('EADDRINUSE'),
    })
    server.close()
  })

  test('--help is no failure', async () => {
    expect(await run(['--help'])).toMatchObject({ code: 0, stdout: expect.stringContaining('HOLDFAST_GATEWAY_TOKEN') })
  })
})

test('everything can come from the environment; set to nothing is not set', async () => {
  const gateway = await startGateway([], {
    HOLDFAST_STORE: storeDir,
    HOLDFAST_GATEWAY_TOKEN: 'one, two',
    HOLDFAST_GATEWAY_MODEL: '',
    OPENAI_BASE_URL: '',
  })
  await clientOf(gateway, 'k', { apiKey: 'two' }).chat.completions.create(asking('hello'))
  expect((await fetch(`${gateway.url}/sessions`)).status).toBe(401)
  expect(fs.existsSync(join(storeDir, 'sessions.json'))).toBe(true)
  expect(gateway.lines.join('\n')).not.toContain('two')
})

test('without a token only the names of this machine are answered', async () => {
  const gateway = await startGateway(['--store', storeDir])
  const { port } = new URL(gateway.url)
  const { rawRequest } = await import('./raw-http.js')
  const ask = (host: string) => rawRequest(Number(port), `GET /sessions HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)
  expect(await ask('evil.example')).toMatch(/^HTTP\/1.1 421/)
  expect(await ask(`localhost:${port}`)).toMatch(/^HTTP\/1.1 200/)
  expect(await ask(`127.0.0.1:${port}`)).toMatch(/^HTTP\/1.1 200/)
})

test('SIGTERM lets a running turn end, then closes the store: exit code 0', async () => {
  const gateway = await startGateway(['--store', storeDir, '--echo-delay', '30'])
  const reply = clientOf(gateway, 'k').chat.completions.create(asking('one two three'))
  await until(async () => ((await (await fetch(`${gateway.url}/sessions`)).json()) as { data: object[] }).data.length > 0 || undefined)
  const ended = gateway.stop('SIGTERM')
  expect((await reply).choices[0]!.message.content).toContain('You said: one two three')
  expect(await ended).toBe(0)
  expect(gateway.lines.map((line) => JSON.parse(line).event)).toEqual(['closing', 'turn', 'closed'])
})

test('SIGTERM breaks off what does not end in time: interrupted, and kept', async () => {
  const gateway = await startGateway(['--store', storeDir, '--echo-delay', '50', '--drain-ms', '100'])
  const stream = await clientOf(gateway, 'k').chat.completions.create({
    ...asking('a b c d e f g h i j k l m n o p q r s t u v w x y z'),
    stream: true,
  })
  const heard = (async () => {
    for await (const _ of stream);
  })().catch(() => 'broken')
  await new Promise((resolve) => setTimeout(resolve, 150))
  expect(await gateway.stop('SIGTERM')).toBe(0)
  expect(await heard).toBe('broken')
  await using store = await SessionStore.open(storeDir, { readOnly: true })
  const records = (await store.session('k').tail(50)).map(({ record }) => record)
  expect(records).toContainEqual(
    expect.objectContaining({ interrupted: true, message: { role: 'assistant', content: expect.stringMatching(/^You said: /) } }),
  )
})

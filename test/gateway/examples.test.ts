/** The examples: the gateway behind node:http, Hono and Fastify. Each must hand over the body unread, stream, and abort when the client goes. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { clientOf, freshDirectory } from './gateway-process.js'
import { until } from './setting.js'

let dir: string
let child: ChildProcess | undefined
beforeEach(() => {
  dir = freshDirectory()
})
afterEach(() => {
  child?.kill('SIGKILL')
  fs.rmSync(dir, { recursive: true, force: true })
})

async function startExample(name: string): Promise<{ url: string; ended: Promise<number | null> }> {
  const path = fileURLToPath(new URL(`../../examples/${name}.mjs`, import.meta.url))
  const started = spawn(process.execPath, [path, join(dir, 'store')], {
    env: { ...process.env, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child = started
  const ended = new Promise<number | null>((resolve) => started.on('close', resolve))
  const url = await new Promise<string>((resolve) =>
    started.stdout.setEncoding('utf8').once('data', (text: string) => resolve(text.trim())),
  )
  return { url, ended }
}

describe.each(['gateway-node', 'gateway-hono', 'gateway-fastify'])('%s', (name) => {
  test('streams, remembers, breaks off when the client goes, refuses huge bodies, ends', async () => {
    const example = await startExample(name)
    const client = clientOf(example, 'agent:main:demo')
    const ask = (content: string) => ({ model: 'any', messages: [{ role: 'user' as const, content }] })

    expect((await client.chat.completions.create(ask('one'))).choices[0]!.message.content).toContain('one')
    const stream = await client.chat.completions.create({ ...ask('two'), stream: true })
    let pieces = 0
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) pieces++
    expect(pieces).toBeGreaterThan(3)

    const broken = await client.chat.completions.create({ ...ask('three'), stream: true })
    for await (const chunk of broken) if (chunk.choices[0]?.delta.content) break
    const turns = async () => {
      const response = await fetch(`${example.url}/sessions/agent%3Amain%3Ademo/turns`)
      return ((await response.json()) as { data: { state: string }[] }).data.map(({ state }) => state)
    }
    await until(async () => (await turns())[0] === 'interrupted' || undefined, 'the turn to be interrupted')
    expect(await turns()).toEqual(['interrupted', 'completed', 'completed'])

    const huge = await fetch(`${example.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'x'.repeat(9 << 20) }] }),
    })
    expect(huge.status).toBe(413)
    expect(await (await fetch(`${example.url}/healthz`)).json()).toEqual({ status: 'ok' })
    child!.kill('SIGTERM')
    expect(await example.ended).toBe(0)
  })
})

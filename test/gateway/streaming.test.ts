/** Streams, and what becomes of a turn when its client goes in the middle. */
import { afterEach, describe, expect, test } from 'vitest'
import { ChatError, createChatHandler, echoModel } from '../../src/gateway/index.js'
import { type Chunk, hear, heardIn, heldModel, origin, type Setting, setUp, storeWith, until, user } from './setting.js'

let it: Setting
afterEach(() => it.close())
const key = { 'x-session-key': 'agent:main:web:1' }
const stream = (text: string) => ({ messages: [user(text)], stream: true })
const decoder = new TextDecoder()

async function readOnce(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<string> {
  const { value } = await reader.read()
  return decoder.decode(value)
}

describe('a stream', () => {
  test('says role, pieces, finish and [DONE], and names its turn in the headers', async () => {
    it = await setUp()
    const response = await it.ask(stream('hello'), key)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-session-key': 'agent:main:web:1',
      'x-turn': '1',
      'x-turn-state': 'active',
    })
    const { chunks, text, done } = await hear(response)
    expect(text).toBe('You said: hello (message 1 from you, 1 in all)')
    expect(done).toBe(true)
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: 'assistant', content: '' })
    expect(chunks[0]!.holdfast).toMatchObject({ session_key: 'agent:main:web:1', turn: 1, state: 'active' })
    expect(chunks.at(-1)!.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' })
    expect(chunks.at(-1)!.holdfast).toMatchObject({ state: 'completed' })
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
    expect(chunks.every((chunk) => !('usage' in chunk))).toBe(true)
  })

  test('with include_usage ends with a chunk that counts, and says null before', async () => {
    it = await setUp()
    const { chunks } = await hear(await it.ask({ ...stream('hello'), stream_options: { include_usage: true } }, key))
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 10, total_tokens: 11 } })
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true)
  })

  test('with include_usage and a model that does not count, says so: null', async () => {
    it = await setUp({ model: async () => 'hi' })
    const { chunks } = await hear(await it.ask({ ...stream('hello'), stream_options: { include_usage: true } }, key))
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: null })
  })

  test('the reply is stored, and the turn has ended, before [DONE] is said', async () => {
    it = await setUp()
    const reader = (await it.ask(stream('hello'), key)).body!.getReader()
    for (let heard = ''; !heard.includes('[DONE]'); ) heard += await readOnce(reader)
    expect((await it.said('agent:main:web:1')).at(-1)).toMatch(/^assistant: You said/)
    expect(await it.store.turns({ key: 'agent:main:web:1' })).toMatchObject([{ state: 'completed' }])
  })

  test('a stream does not end while its turn has not', async () => {
    it = await setUp()
    let open = () => {}
    const gate = new Promise<void>((resolve) => {
      open = resolve
    })
    const held = storeWith(it.store, {
      runTurn: (at, options, work) =>
        it.store.runTurn(at, options, async (turn) => {
          const value = await work(turn)
          await gate
          return value
        }),
    })
    const handler = createChatHandler({ store: held, model: echoModel() })
    const headers = { 'content-type': 'application/json', ...key }
    const request = new Request(`${origin}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(stream('hello')) })
    const reader = (await handler(request)).body!.getReader()
    let heard = ''
    for (; !heard.includes('in all)'); ) heard += await readOnce(reader)
    const more = readOnce(reader)
    expect(await Promise.race([more, new Promise((resolve) => setTimeout(resolve, 50, 'nothing'))])).toBe('nothing')
    open()
    expect(await more).toContain('"finish_reason":"stop"')
  })

  test('a model that returns all at once is streamed in one piece', async () => {
    it = await setUp({ model: async () => 'all at once' })
    const { chunks, text } = await hear(await it.ask(stream('a'), key))
    expect(text).toBe('all at once')
    expect(chunks).toHaveLength(3)
  })

  test('says that it is alive while nothing comes', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model, keepAliveMs: 10 })
    const response = await it.ask(stream('a'), key)
    const call = await held.call(0)
    const heard = hear(response)
    setTimeout(() => call.finish('late'), 60)
    expect((await heard).comments).toBeGreaterThan(1)
    expect((await heard).text).toBe('late')
  })

  test('keeps what a slow reader has not taken, joined, and holds up nobody', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const response = await it.ask(stream('a'), key)
    const call = await held.call(0)
    for (let n = 0; n < 10_000; n++) call.say(`${n} `)
    call.finish()
    await until(async () => (await it.said('agent:main:web:1')).length === 2 || undefined)
    const { chunks, text, done } = await hear(response)
    expect(text).toBe(Array.from({ length: 10_000 }, (_, n) => `${n} `).join(''))
    expect(chunks.length).toBeLessThan(20)
    expect(done).toBe(true)
  })
})

describe('a client that goes in mid-stream', () => {
  test('by cancelling the body: the turn is interrupted, what was said is kept and marked', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const response = await it.ask(stream('a'), key)
    const call = await held.call(0)
    call.say('half of ')
    call.say('it')
    const reader = response.body!.getReader()
    await readOnce(reader)
    await reader.cancel()
    expect(call.context.signal.aborted).toBe(true)
    await until(() => it.turnLines()[0])
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half of it …'])
    expect((await it.records('agent:main:web:1')).at(-1)).toMatchObject({ interrupted: true, why: 'client_disconnected' })
    expect(it.turnLines()[0]).toMatchObject({
      outcome: 'interrupted',
      status: 499,
      error: { code: 'client_disconnected', effect: 'input' },
    })
  })

  test('by the signal of its request, the same', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const client = new AbortController()
    const response = await it.ask(stream('a'), key, client.signal)
    const call = await held.call(0)
    call.say('half')
    client.abort()
    await until(() => it.turnLines()[0])
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half …'])
    expect(heardIn(await response.text()).done).toBe(false)
  })

  test('leaves a conversation that goes on, and the model sees what was said', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const response = await it.ask(stream('a'), key)
    const call = await held.call(0)
    call.say('half')
    await response.body!.cancel()
    const next = it.ask(stream('b'), key)
    const second = await held.call(1)
    expect(second.messages.map(({ content }) => content)).toEqual(['a', 'half', 'b'])
    second.finish('whole')
    expect((await hear(await next)).text).toBe('whole')
  })

  test('before anything was said: nothing but the turn is marked', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const response = await it.ask(stream('a'), key)
    await held.call(0)
    await response.body!.cancel()
    await until(() => it.turnLines()[0])
    expect(await it.said('agent:main:web:1')).toEqual(['user: a'])
  })

  test('without streaming: the turn is interrupted as well', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const client = new AbortController()
    const asked = it.ask({ messages: [user('a')] }, key, client.signal)
    const call = await held.call(0)
    call.say('half')
    client.abort()
    expect((await asked).status).toBe(499)
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half …'])
  })

  test('by reading nothing for long counts as gone', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model, readerStallMs: 30 })
    const response = await it.ask(stream('a'), key)
    const call = await held.call(0)
    call.say('half')
    call.say(' of it')
    await until(() => it.turnLines()[0])
    expect(it.turnLines()[0]).toMatchObject({ outcome: 'interrupted', error: { code: 'reader_stalled' } })
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half of it …'])
    await expect(response.text()).rejects.toThrow()
  })
})

describe('a model that fails', () => {
  test('before its first piece: a real status', async () => {
    it = await setUp({ model: () => Promise.reject(new ChatError(503, 'out_of_order', 'Come back later.', { retryAfterMs: 2_500 })) })
    const response = await it.ask({ messages: [user('a')] }, key)
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('3')
    expect(await response.json()).toMatchObject({ error: { code: 'out_of_order', message: 'Come back later.', effect: 'input' } })
  })

  test('in mid-stream: an error event and no [DONE]; what was said is kept and marked', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model })
    const response = await it.ask(stream('a'), key)
    const call = await held.call(0)
    call.say('half')
    call.fail(new Error('secret of the model'))
    const heard = await hear(response)
    expect(heard.done).toBe(false)
    expect(heard.error).toMatchObject({ code: 'model_failed', type: 'server_error' })
    expect(JSON.stringify(heard.error)).not.toContain('secret')
    expect(it.turnLines()[0]!.error!.detail).toContain('secret of the model')
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half …'])
  })

  test('by taking too long: 504, and what was said is kept', async () => {
    const held = heldModel()
    it = await setUp({ model: held.model, replyMs: 40 })
    const asked = it.ask({ messages: [user('a')] }, key)
    const call = await held.call(0)
    call.say('half')
    const response = await asked
    expect(response.status).toBe(504)
    expect(await response.json()).toMatchObject({ error: { code: 'model_timeout' } })
    expect(await it.said('agent:main:web:1')).toEqual(['user: a', 'assistant: half …'])
  })

  test('by ignoring its signal: the client is answered, the conversation stays busy until it has settled (F33)', async () => {
    let settle = (_: string) => {}
    let calls = 0
    it = await setUp({
      replyMs: 20,
      settleMs: 20,
      model: () =>
        ++calls === 1
          ? new Promise((resolve) => {
              settle = resolve
            })
          : Promise.resolve('second'),
    })
    expect((await it.ask({ messages: [user('a')] }, key)).status).toBe(504)
    expect((await it.ask({ messages: [user('b')] }, { ...key, 'x-when-busy': 'reject' })).status).toBe(409)
    settle('too late')
    const answer = await until(async () => {
      const response = await it.ask({ messages: [user('c')] }, { ...key, 'x-when-busy': 'reject' })
      return response.status === 200 ? response : undefined
    })
    expect(answer.status).toBe(200)
    expect(await it.said('agent:main:web:1')).toContain('assistant: too late …')
  })

  test('by saying too much: it is stopped, and what it said until then is kept', async () => {
    it = await setUp({
      replyBytesMax: 1_024,
      model: async (_, { onToken, signal }) => {
        for (;;) {
          onToken('0123456789')
          await new Promise((resolve) => setTimeout(resolve))
          signal.throwIfAborted()
        }
      },
    })
    const heard = await hear(await it.ask(stream('a'), key))
    expect(heard.error).toMatchObject({ code: 'reply_too_long' })
    expect((await it.said('agent:main:web:1')).at(-1)!.length).toBeLessThan(1_100)
  })

  test('by returning what is no reply: 502', async () => {
    it = await setUp({ model: (async () => ({ message: 7 })) as never })
    expect((await it.ask({ messages: [user('a')] }, key)).status).toBe(502)
  })
})

test('ids, models and creation times of a stream are those of the chat API', async () => {
  it = await setUp({ model: { one: echoModel(), two: echoModel() } })
  const { chunks } = await hear(await it.ask({ ...stream('a'), model: 'two' }, key))
  for (const chunk of chunks as (Chunk & Record<string, unknown>)[])
    expect(chunk).toMatchObject({ object: 'chat.completion.chunk', model: 'two', created: expect.closeTo(Date.now() / 1000, -1) })
})

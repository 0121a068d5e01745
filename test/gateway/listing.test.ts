/** What can be looked at over HTTP. */
import { afterEach, describe, expect, test } from 'vitest'
import { createChatHandler, echoModel } from '../../src/gateway/index.js'
import { StoreError } from '../../src/index.js'
import { heldModel, origin, type Setting, setUp, storeWith, user } from './setting.js'

let it: Setting
afterEach(() => it.close())
const ask = (key: string, text = 'a') => it.ask({ messages: [user(text)] }, { 'x-session-key': key })
const json = async (path: string) => (await (await it.look(path)).json()) as Record<string, never> & { data: Record<string, unknown>[] }

describe('models', () => {
  test('one model answers to any name and is listed under its own', async () => {
    it = await setUp({ modelName: 'mine' })
    expect(await json('/v1/models')).toEqual({
      object: 'list',
      data: [{ id: 'mine', object: 'model', created: expect.any(Number), owned_by: 'holdfast' }],
    })
    const body = (await (await it.ask({ messages: [user('a')], model: 'gpt-x' }, { 'x-session-key': 'k' })).json()) as { model: string }
    expect(body.model).toBe('gpt-x')
  })

  test('several are chosen by name; the first is for requests that name none; others are 404', async () => {
    it = await setUp({ model: { small: async () => 'small', large: async (_, { model }) => `large as ${model}` } })
    expect((await json('/v1/models')).data.map(({ id }) => id)).toEqual(['small', 'large'])
    expect(await json('/v1/models/large')).toMatchObject({ id: 'large' })
    expect((await it.look('/v1/models/huge')).status).toBe(404)
    const answer = async (model?: string) => {
      const response = await it.ask({ messages: [user('a')], model }, { 'x-session-key': 'k' })
      return response.status === 200
        ? ((await response.json()) as { choices: [{ message: { content: string } }] }).choices[0].message.content
        : response.status
    }
    expect(await answer()).toBe('small')
    expect(await answer('large')).toBe('large as large')
    expect(await answer('huge')).toBe(404)
    expect(await answer('toString')).toBe(404)
  })
})

describe('sessions', () => {
  test('are listed by key, in pages, with what goes on in them', async () => {
    const held = heldModel()
    it = await setUp({ model: { echo: echoModel(), held: held.model } })
    for (const key of ['b', 'a', 'd', 'c', 'other:1']) await ask(key)
    const first = await json('/sessions?limit=2')
    expect(first.data.map(({ key }) => key)).toEqual(['a', 'b'])
    expect(first.has_more).toBe(true)
    expect(first.data[0]).toEqual({
      key: 'a',
      sessionId: expect.any(String),
      createdAt: expect.any(Number),
      updatedAt: expect.any(Number),
      turns: [],
    })
    expect((await json('/sessions?limit=10&after=b')).data.map(({ key }) => key)).toEqual(['c', 'd', 'other:1'])
    expect((await json('/sessions?prefix=other:')).data).toHaveLength(1)
    const asked = it.ask({ messages: [user('x')], model: 'held' }, { 'x-session-key': 'a' })
    const call = await held.call(0)
    expect((await json('/sessions?limit=1')).data[0]!.turns).toMatchObject([{ key: 'a', state: 'active', turn: 2 }])
    call.finish()
    await asked
  })

  test('say nothing of the fields that others keep in their entries', async () => {
    it = await setUp()
    await it.store.update('k', () => ({ secret: 'hunter2' }))
    expect(await (await it.look('/sessions')).text()).not.toContain('hunter2')
  })

  test.each(['0', '1001', 'x', '-1', '1.5', ''])('limit=%s is refused', async (limit) => {
    it = await setUp()
    expect((await it.look(`/sessions?limit=${limit}`)).status).toBe(400)
  })
})

describe('turns of a session', () => {
  test('are listed by key, which may have any characters', async () => {
    it = await setUp()
    await ask('agent:main:a/b')
    await ask('agent:main:a/b')
    const { key, data, sessionId } = await json(`/sessions/${encodeURIComponent('agent:main:a/b')}/turns`)
    expect([key, sessionId]).toEqual(['agent:main:a/b', (await it.store.get('agent:main:a/b'))!.sessionId])
    expect(data).toMatchObject([
      { turn: 2, state: 'completed' },
      { turn: 1, state: 'completed' },
    ])
  })

  test('of a key that nobody has used are 404; a path that is not UTF-8 is 400; a key that is none is 400', async () => {
    it = await setUp()
    expect((await it.look('/sessions/nobody/turns')).status).toBe(404)
    expect((await it.look('/sessions/%ff/turns')).status).toBe(400)
    expect((await it.look('/sessions/%00/turns')).status).toBe(400)
    expect((await it.look(`/sessions/${'k'.repeat(10_240)}/turns`)).status).toBe(400)
  })
})

describe('health', () => {
  test('is ok while the store can be read', async () => {
    it = await setUp()
    const response = await it.look('/healthz')
    expect([response.status, await response.json()]).toEqual([200, { status: 'ok' }])
  })

  test('is 503 with our code when it cannot', async () => {
    it = await setUp()
    const store = storeWith(it.store, { get: () => Promise.reject(new StoreError('STORE_CORRUPT', '/srv/x')) })
    const response = await createChatHandler({ store, model: echoModel() })(new Request(`${origin}/healthz`))
    expect(response.status).toBe(503)
    expect(await response.json()).toMatchObject({ status: 'failing', error: { code: 'STORE_CORRUPT' } })
  })
})

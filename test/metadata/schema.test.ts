/** The caller's part of an entry is checked by any Standard Schema, under the lock, on every write. */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { dataIn, opened, refusal, storeDirectory } from './store-directory.js'

interface Model {
  readonly model: string
  readonly at?: { readonly depth: number }
}

const byZod = z.object({
  model: z.string().transform((name) => name.toLowerCase()),
  at: z.object({ depth: z.number().int() }).optional(),
})

/** A schema of nobody's library, with a transform. */
const byHand: StandardSchemaV1<Model, Model> = {
  '~standard': {
    version: 1,
    vendor: 'by hand',
    validate(value) {
      const { model, at } = value as Partial<Model>
      if (typeof model !== 'string') return { issues: [{ message: 'a model is a string', path: ['model'] }] }
      if (at && !Number.isInteger(at.depth)) return { issues: [{ message: 'a depth is whole', path: [{ key: 'at' }, { key: 'depth' }] }] }
      return { value: { model: model.toLowerCase(), ...(at && { at }) } }
    },
  },
}

describe.each([
  ['zod', byZod as StandardSchemaV1<Model, Model>],
  ['a schema made by hand', byHand],
])('with %s', (_, entry) => {
  test('what the schema makes of a value is what is stored, returned and read', async () => {
    // P4
    const directory = storeDirectory()
    const store = await opened(directory, { entry })
    expect(await store.update('k', () => ({ model: 'OPUS' }))).toMatchObject({ model: 'opus', revision: 1 })
    const inside = await store.withStoreLock((sessions) => [
      sessions.set('l', { model: 'SET' }).model,
      sessions.patch('k', { at: { depth: 2 } }).model,
    ])
    expect(inside).toEqual(['set', 'opus'])
    await store.close()
    const again = await opened(directory, { entry })
    expect(await again.get('k')).toMatchObject({ model: 'opus', at: { depth: 2 }, revision: 2 })
    expect(await again.get('l')).toMatchObject({ model: 'set' })
  })

  test('the store’s own fields are not shown to the schema, nor lost by it', async () => {
    // P4
    const store = await opened(storeDirectory(), { entry })
    const first = await store.update('k', () => ({ model: 'a' }))
    const second = await store.update('k', (before) => ({ ...before!, model: 'b' }))
    expect(second).toMatchObject({ sessionId: first.sessionId, createdAt: first.createdAt, revision: 2, model: 'b' })
  })

  test('INVALID_ENTRY names the key and the field, and nothing of the call is written', async () => {
    // F17, P2
    const directory = storeDirectory()
    const store = await opened(directory, { entry })
    await store.update('k', () => ({ model: 'a' }))
    const before = dataIn(directory)
    const wrong = { model: 7 } as unknown as Model
    const calls: [string, string, () => unknown][] = [
      ['k', 'model', () => store.update('k', () => wrong)],
      ['agent:new', 'at.depth', () => store.update('agent:new', () => ({ model: 'a', at: { depth: 0.5 } }))],
      [
        'l',
        'model',
        () =>
          store.withStoreLock((sessions) => {
            sessions.delete('k')
            sessions.set('m', { model: 'fine' })
            sessions.set('l', wrong)
          }),
      ],
      ['k', 'at.depth', () => store.withStoreLock((sessions) => void sessions.patch('k', { at: { depth: 0.5 } }))],
      // There is no model to lay it over.
      ['n', 'model', () => store.withStoreLock((sessions) => void sessions.patch('n', {}))],
    ]
    for (const [key, field, call] of calls) {
      const error = await refusal(call)
      expect(error).toMatchObject({ code: 'INVALID_ENTRY', kind: 'misuse', effect: 'none', details: { key } })
      expect(error.message).toContain(JSON.stringify(key))
      expect(error.message).toContain(`field ${field}`)
    }
    expect(dataIn(directory)).toEqual(before)
    expect(await store.get('k')).toMatchObject({ model: 'a', revision: 1 })
  })
})

describe('an asynchronous schema', () => {
  const rejecting = new Set<string>()
  const async: StandardSchemaV1<Model, Model> = {
    '~standard': {
      version: 1,
      vendor: 'by hand',
      async validate(value) {
        if (rejecting.has((value as Model).model)) throw new Error('refused later')
        return { value: value as Model }
      },
    },
  }
  const byZodAsync = z.object({ model: z.string().refine(async () => true) })

  test.each([
    ['zod', byZodAsync as unknown as StandardSchemaV1<Model, Model>],
    ['by hand', async],
  ])('%s is refused with INVALID_OPTION at the first write, and nothing is written', async (_, entry) => {
    // P8
    rejecting.add('later') // A rejection that comes too late must not end the process either.
    const directory = storeDirectory()
    const store = await opened(directory, { entry })
    const before = dataIn(directory)
    for (const model of ['now', 'later'])
      expect(await refusal(() => store.update('k', () => ({ model })))).toMatchObject({ code: 'INVALID_OPTION', effect: 'none' })
    await new Promise((resolve) => setImmediate(resolve))
    expect(dataIn(directory)).toEqual(before)
  })
})

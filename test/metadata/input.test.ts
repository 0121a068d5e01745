/** What is refused before anything happens (P2: effect none means that not a byte was written; P7: the error says what to do). */
import { mkdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/store.js'
import type { AppendOptions, ReadOptions, StoreOptions, WaitOptions } from '../../src/types.js'
import { dataIn, entriesOf, filesIn, opened, recordsOf, refusal, storeDirectory } from './store-directory.js'

const foreign = <T>(value: unknown) => value as T

async function stocked(options?: StoreOptions) {
  const directory = storeDirectory()
  const store = await opened(directory, options)
  await store.update('k', () => ({ n: 1 }))
  await store.session('k').append({ n: 1 })
  return { directory, store }
}

const badKeys: [string, unknown, RegExp][] = [
  ['empty', '', /empty/],
  ['513 characters', 'x'.repeat(513), /513 characters/],
  ['a newline', 'a\nb', /control/],
  ['NUL', 'a\0', /control/],
  ['DEL', '\u007f', /control/],
  ['a C1 control', '\u0085', /control/],
  ['a high surrogate alone', 'a\ud83d', /surrogate/],
  ['a low surrogate alone', '\ude00a', /surrogate/],
  ['a number', 7, /number/],
  ['undefined', undefined, /undefined/],
  ['an object', { toString: () => 'k' }, /object/],
]

describe('INVALID_KEY', () => {
  test.each(badKeys)('%s: refused by every method that takes a key, and nothing is written', async (_, given, says) => {
    // P2
    const { directory, store } = await stocked()
    const before = filesIn(directory)
    const key = foreign<string>(given)
    const calls: (() => unknown)[] = [
      () => store.get(key),
      () => store.update(key, () => ({})),
      () => store.delete(key),
      () => store.session(key),
      () => store.withStoreLock((sessions) => void sessions.set(key, {})),
      () => store.withStoreLock((sessions) => void sessions.patch(key, {})),
    ]
    for (const call of calls) {
      const error = await refusal(call)
      expect(error).toMatchObject({ code: 'INVALID_KEY', kind: 'misuse', effect: 'none', retryable: false })
      expect(error.message).toMatch(says)
      expect(error.hint).toContain('Nothing was done')
    }
    expect(dataIn(directory)).toEqual(new Map([...before].filter(([path]) => !path.startsWith('locks'))))
  })
})

const cyclic: Record<string, unknown> = {}
cyclic.self = cyclic
const badRecords: [string, unknown][] = [
  ['null', null],
  ['undefined', undefined],
  ['a string', 'hello'],
  ['a number', 1],
  ['a function', () => {}],
  ['no record at all', []],
  ['an array in an array', [[{}]]],
  ['1,001 records', Array.from({ length: 1_001 }, () => ({}))],
  ['a field $', { $: '0' }],
  ['a field $$', { a: 1, $$: {} }],
  ['a field $ that is undefined', { $: undefined }],
  ['a cycle', cyclic],
  ['a bigint', { n: 1n }],
  ['toJSON to no object', { toJSON: () => 'text' }],
  ['toJSON to nothing', { toJSON: () => undefined }],
  ['toJSON to a field $', { toJSON: () => ({ $: 1 }) }],
  ['toJSON to a field $$', { toJSON: () => ({ $$: 1 }) }],
  ['a date', new Date(0)],
  ['toJSON that throws', { toJSON: () => expect.fail('thrown') }],
  ['one bad among good ones', [{ n: 2 }, { $: 1 }, { n: 3 }]],
]

describe('INVALID_RECORD', () => {
  test.each(badRecords)('%s: nothing of the call is written, and a key that was not there is still not there', async (_, given) => {
    // P2
    const { directory, store } = await stocked()
    const before = dataIn(directory)
    for (const key of ['k', 'new']) {
      const error = await refusal(() => store.session(key).append(foreign<object>(given), { id: 'evt' }))
      expect(error).toMatchObject({ code: 'INVALID_RECORD', kind: 'misuse', effect: 'none' })
    }
    expect(dataIn(directory)).toEqual(before)
    expect((await store.session('k').append({ n: 2 }, { id: 'evt' })).duplicate).toBe(false)
  })

  test('$ and $$ further down are the caller’s own', async () => {
    // P1
    const { store } = await stocked()
    const record = { inner: { $: '1.0.0.x.0.0', $$: { seal: {} } }, list: [{ $: 1 }] }
    await store.session('k').append(record)
    expect((await store.session('k').tail(1))[0]?.record).toEqual(record)
  })

  test('the error names which record of the call', async () => {
    // P7
    const { store } = await stocked()
    expect(await refusal(() => store.session('k').append([{}, {}, { $$: 1 }]))).toMatchObject({ details: { index: 2 } })
  })
})

test('RECORD_TOO_LARGE: to the byte of the JSON text, in UTF-8; nothing is written', async () => {
  // P2
  const { directory, store } = await stocked({ recordBytesMax: 1_024 })
  const before = dataIn(directory)
  const ofBytes = (bytes: number) => ({ t: 'x'.repeat(bytes - 8) })
  const wide = { t: 'é'.repeat(509) } // 517 characters, 1,026 bytes
  for (const [records, index, bytes] of [
    [ofBytes(1_025), 0, 1_025],
    [[{ n: 1 }, ofBytes(5_000)], 1, 5_000],
    [wide, 0, 1_026],
  ] as const) {
    const error = await refusal(() => store.session('k').append(records))
    expect(error).toMatchObject({ code: 'RECORD_TOO_LARGE', effect: 'none', details: { index, bytes, recordBytesMax: 1_024 } })
  }
  expect(dataIn(directory)).toEqual(before)
  await store.session('k').append([ofBytes(1_024), { t: 'é'.repeat(508) }])
  expect(await store.session('k').tail(9)).toHaveLength(3)
})

test('RECORD_TOO_LARGE: one call is one write; what is too much for that is refused whole, and fits in two', async () => {
  // P2
  const { directory, store } = await stocked()
  const before = dataIn(directory)
  const many = Array.from({ length: 5 }, (_, n) => ({ n, t: 'x'.repeat(15 << 20) }))
  const error = await refusal(() => store.session('k').append(many))
  expect(error).toMatchObject({ code: 'RECORD_TOO_LARGE', effect: 'none', details: { records: 5, bytesMax: 64 << 20 } })
  expect(dataIn(directory)).toEqual(before)
  await store.session('k').append(many.slice(0, 2))
})

describe('INVALID_OPTION', () => {
  const forOpen: [string, unknown][] = [
    ['durability', { durability: 'sometimes' }],
    ['checkpoint', { checkpoint: 'never' }],
    ['entry', { entry: {} }],
    ['entry', { entry: { '~standard': { version: 1 } } }],
    ['lock.waitMs', { lock: { waitMs: -1 } }],
    ['lock.waitMs', { lock: { waitMs: Number.NaN } }],
    ['lock.maxHoldMs', { lock: { maxHoldMs: 9 } }],
    ['lock.maxHoldMs', { lock: { maxHoldMs: 3_600_001 } }],
    ['lock', { lock: { maxHold: 100 } }],
    ['recordBytesMax', { recordBytesMax: 1_023 }],
    ['recordBytesMax', { recordBytesMax: (256 << 20) + 1 }],
    ['readOnly', { readOnly: 'yes' }],
    ['lanes.main', { lanes: { main: 0 } }],
    ['', { readonly: true }],
    ['', null],
    ['', 'fast'],
  ]
  test.each(forOpen)('open: %s in %j is refused, and no directory is made', async (option, options) => {
    // P2
    const directory = storeDirectory()
    const error = await refusal(() => SessionStore.open(directory, foreign<StoreOptions>(options)))
    expect(error).toMatchObject({ code: 'INVALID_OPTION', effect: 'none', details: { option } })
    mkdirSync(directory)
    expect(filesIn(directory).size).toBe(0)
  })

  test('open: a path that is none', async () => {
    // P2
    for (const path of ['', undefined, 7])
      expect(await refusal(() => SessionStore.open(foreign<string>(path)))).toMatchObject({ code: 'INVALID_OPTION' })
  })

  test('every call: options out of bounds are refused, and nothing is written', async () => {
    // P2, P7
    const { directory, store } = await stocked()
    const before = dataIn(directory)
    const session = store.session('k')
    const wait = (options: unknown) => foreign<WaitOptions>(options)
    const add = (options: unknown) => session.append({}, foreign<AppendOptions>(options))
    const read = (options: unknown) => recordsOf(session.read(foreign<ReadOptions>(options)))
    const calls: [string, () => unknown][] = [
      ['no function', () => store.withStoreLock(foreign<() => void>(7))],
      ['no function', () => store.update('k', foreign<() => Record<string, unknown>>({ n: 2 }))],
      ['waitMs', () => store.withStoreLock((sessions) => void sessions.delete('k'), wait({ waitMs: -1 }))],
      ['waitMs', () => store.update('k', () => ({}), wait({ waitMs: 3_600_001 }))],
      ['signal', () => store.update('k', () => ({}), wait({ signal: {} }))],
      ['waitMs', () => store.delete('k', wait({ waitMs: 'long' }))],
      ['null', () => store.delete('k', wait(null))],
      ['waitMs', () => session.rotate(foreign<object>({ waitMs: Number.POSITIVE_INFINITY }))],
      ['id', () => add({ id: '' })],
      ['id', () => add({ id: 'x'.repeat(257) })],
      ['id', () => add({ id: 7 })],
      ['expectedSeq', () => add({ expectedSeq: -1 })],
      ['expectedSeq', () => add({ expectedSeq: 0.5 })],
      ['after', () => read({ after: -1 })],
      ['limit', () => read({ limit: 1.5 })],
      ['signal', () => read({ signal: true })],
      ['tail', () => session.tail(-1)],
      ['tail', () => session.tail(Number.NaN)],
      ['tail', () => session.tail(foreign<number>('50'))],
    ]
    for (const [what, call] of calls) expect(await refusal(call), what).toMatchObject({ code: 'INVALID_OPTION', effect: 'none' })
    expect(dataIn(directory)).toEqual(before)
  })
})

describe('INVALID_ENTRY', () => {
  const badEntries: [string, unknown][] = [
    ['null', null],
    ['undefined', undefined],
    ['a string', 'x'],
    ['an array', []],
    ['a cycle', cyclic],
    ['a bigint', { n: 1n }],
    ['a function toJSON', { toJSON: () => ({}) }],
  ]
  test.each(badEntries)('%s: nothing of the call is written, not what it had changed before either', async (_, given) => {
    // F17
    const { directory, store } = await stocked()
    const before = dataIn(directory)
    const calls = [
      () => store.update('k', () => foreign<object>(given) as Record<string, unknown>),
      () =>
        store.withStoreLock((sessions) => {
          sessions.set('other', { n: 2 })
          sessions.delete('k')
          sessions.set('new', foreign(given))
        }),
    ]
    for (const call of calls) {
      const error = await refusal(call)
      expect(error).toMatchObject({ code: 'INVALID_ENTRY', effect: 'none' })
      expect(['k', 'new']).toContain(error.details.key)
    }
    expect(dataIn(directory)).toEqual(before)
    expect((await entriesOf(store.entries())).map(([key]) => key)).toEqual(['k'])
  })
})

describe('hostile keys', () => {
  const hostile = [
    '__proto__',
    'constructor',
    'prototype',
    'hasOwnProperty',
    '7',
    '2',
    'x'.repeat(512),
    '🧵'.repeat(256),
    '"',
    '\\',
    '\\"',
    '{"op":"del","key":"k"}',
    '":{',
    '},',
    '\u2028',
    '\ufeff',
    'é',
    'e\u0301',
  ]

  test.each(['auto', 'always'] as const)('survive journal, checkpoint and reopening (checkpoint: %s)', async (checkpoint) => {
    // P1, P4
    const directory = storeDirectory()
    const first = await opened(directory, { checkpoint })
    for (const [at, key] of hostile.entries()) {
      await first.update(key, () => ({ at, key }))
      await first.session(key).append({ at, key })
    }
    const assertThere = async () => {
      const store = await opened(directory, { readOnly: true })
      const found = new Map((await entriesOf(store.entries())).map(([key, { at }]) => [key, at]))
      expect(found).toEqual(new Map(hostile.map((key, at) => [key, at])))
      for (const [at, key] of hostile.entries()) {
        expect(await store.get(key)).toMatchObject({ at, key })
        expect(await recordsOf(store.session(key).read())).toEqual([{ at, key }])
      }
      expect(await store.get('valueOf')).toBeUndefined()
    }
    await assertThere()
    await first.checkpoint()
    await assertThere()
    await first.close()
    await assertThere()
    const text = filesIn(directory).get('sessions.json')!
    expect(Object.keys(JSON.parse(text) as object)).toHaveLength(hostile.length)
    expect(({} as { at?: unknown }).at).toBeUndefined()
  })
})

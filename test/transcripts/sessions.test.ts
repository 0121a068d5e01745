/** One key is one conversation, from its first message on, through rotation and deletion; nothing of it is lost on the way (P1, P6). */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { SessionStore } from '../../src/store.js'
import { entriesOf, opened, recordsOf, refusal, storeDirectory } from '../metadata/store-directory.js'

const transcriptOf = (directory: string, sessionId: string) => join(directory, 'transcripts', `${sessionId}.jsonl`)
const archiveOf = (directory: string, sessionId: string) => join(directory, 'archive', `${sessionId}.jsonl`)
const idOf = async (store: SessionStore, key: string) => (await store.get(key))!.sessionId

describe.each(['power', 'process'] as const)('durability %s', (durability) => {
  test('the first user message is in the file when its append resolves', async () => {
    // F28
    const directory = storeDirectory()
    const store = await opened(directory, { durability })
    const { sessionId, seq } = await store.session('k').append({ type: 'message', message: { role: 'user', content: 'first!' } })
    expect(seq).toBe(1)
    const [header, message, rest] = readFileSync(transcriptOf(directory, sessionId), 'utf8').split('\n')
    expect(JSON.parse(header!)).toMatchObject({ $$: { header: { key: 'k', sessionId } } })
    expect(JSON.parse(message!)).toMatchObject({ type: 'message', message: { role: 'user', content: 'first!' } })
    expect(rest).toBe('')
    // And the entry that says whose file it is.
    expect(readFileSync(join(directory, 'sessions.journal.jsonl'), 'utf8')).toContain(sessionId)
  })

  test('twenty first appends by two handles, at once or a moment apart, meet in one session', async () => {
    // F31, P6
    const directory = storeDirectory()
    const handles = [await opened(directory, { durability }), await opened(directory, { durability })]
    for (let apart = 0; apart < 8; apart++) {
      const key = `k${apart}`
      const ten = (by: number) => Array.from({ length: 10 }, (_, n) => handles[by]!.session(key).append({ by, n }))
      const calls = ten(0)
      for (let turns = 0; turns < apart * 4; turns++) await new Promise((resolve) => setImmediate(resolve))
      const receipts = await Promise.all([...calls, ...ten(1)])
      const { sessionId } = receipts[0]!
      expect(new Set(receipts.map((receipt) => receipt.sessionId))).toEqual(new Set([sessionId]))
      expect(await idOf(handles[0]!, key)).toBe(sessionId)
      expect(readdirSync(join(directory, 'transcripts'))).toHaveLength(apart + 1)
      const found = await handles[0]!.session(key).tail(50)
      for (const [at, { seq }] of receipts.entries())
        expect(found.find((stored) => stored.seq === seq)?.record).toEqual({ by: Math.floor(at / 10), n: at % 10 })
      expect(found).toHaveLength(20)
    }
  })
})

/** Prefixes of each other, and names that look like the marks and files of a store. */
const keys = [
  'keep',
  'keep.deleted.keep',
  'keep.deleted.2026-01-01',
  'keep.reset',
  'keep.jsonl',
  'keep:1',
  'a',
  'a:b',
  'a:b:c',
  'A',
  'a ',
  '../a',
  'a/b',
  'archive/a',
  '__proto__',
  'constructor',
  'free.1',
  'header',
  '"$$"',
  '{"op":"del","key":"keep"}',
]

test('keys that are prefixes of each other or look like marks keep apart, whichever is rotated or deleted', async () => {
  // F30
  const directory = storeDirectory()
  const store = await opened(directory, { durability: 'process' })
  for (const key of keys) await store.session(key).append({ key }, { id: key })
  expect(new Set(await Promise.all(keys.map((key) => idOf(store, key)))).size).toBe(keys.length)
  const living = new Map(keys.map((key) => [key, [{ key }] as object[]]))
  const assertApart = async (what: string) => {
    const named = (await entriesOf(store.entries())).map(([key]) => key)
    expect(named.sort(), what).toEqual([...living.keys()].sort())
    for (const key of keys) expect(await recordsOf(store.session(key).read()), `${key} after ${what}`).toEqual(living.get(key) ?? [])
  }
  for (const [at, key] of keys.entries()) {
    if (at % 2 === 0) {
      expect(await store.delete(key)).toBe(true)
      living.delete(key)
    } else {
      await store.session(key).rotate()
      living.set(key, [])
    }
    await assertApart(`${at % 2 ? 'rotating' : 'deleting'} ${key}`)
  }
  expect(readdirSync(join(directory, 'archive'))).toHaveLength(keys.length)
  expect((await store.verify()).damage).toEqual([])
})

describe('lines that somebody else wrote before the store took over', () => {
  const foreign = [{ type: 'message', text: 'one' }, { type: 'message', text: 'two — 🧵' }, { n: 3 }]
  const text = (records: readonly object[]) => records.map((record) => JSON.stringify(record)).join('\n')

  /** A session that has an entry and no transcript yet, and the file that was put there. */
  async function adopted(bytes: string) {
    const directory = storeDirectory()
    const store = await opened(directory)
    const { sessionId } = await store.update('k', () => ({ model: 'x' }))
    const path = transcriptOf(directory, sessionId)
    writeFileSync(path, bytes, { mode: 0o600 })
    return { directory, store, path, session: store.session('k') }
  }

  test('are read, counted and gone on with, and stay as they are', async () => {
    // P1, P5
    const bytes = `${text(foreign)}\n`
    const { directory, store, path, session } = await adopted(bytes)
    expect(await recordsOf(session.read())).toEqual(foreign)
    expect((await session.tail(2)).map(({ record }) => record)).toEqual(foreign.slice(1))
    expect(await refusal(() => session.append({ n: 4 }, { expectedSeq: 0 }))).toMatchObject({ code: 'SEQ_CONFLICT', effect: 'none' })
    const { seq } = await session.append({ n: 4 }, { expectedSeq: 3 })
    for (const handle of [store, await opened(directory)]) {
      const found = await handle.session('k').tail(50)
      expect(found.map(({ record }) => record)).toEqual([...foreign, { n: 4 }])
      expect(found.slice(0, 3).map((stored) => stored.seq)).toEqual([1, 2, 3])
      expect(found[3]!.seq).toBe(seq)
      expect(await recordsOf(handle.session('k').read({ after: 1, limit: 2 }))).toEqual(foreign.slice(1))
    }
    expect(readFileSync(path, 'utf8').startsWith(bytes)).toBe(true)
    expect((await store.verify()).damage).toEqual([])
  })

  test('without a last newline the last of them shows from the first append on, and is not lost to it', async () => {
    // F20, P1: without its newline it may be half of something.
    const bytes = text(foreign)
    const { directory, store, path, session } = await adopted(bytes)
    expect(await recordsOf(session.read())).toEqual(foreign.slice(0, 2))
    await session.append({ n: 4 })
    for (const handle of [store, await opened(directory)]) {
      expect(await recordsOf(handle.session('k').read())).toEqual([...foreign, { n: 4 }])
    }
    expect(readFileSync(path, 'utf8').startsWith(`${bytes}\n`)).toBe(true)
    expect((await store.verify()).damage).toEqual([])
  })

  test('with half a line at the end, the half stays in the file and is no record', async () => {
    // F20
    const bytes = `${text(foreign)}\n{"type":"message","text":"cut o`
    const { directory, path, session } = await adopted(bytes)
    await session.append({ n: 4 })
    expect(await recordsOf((await opened(directory)).session('k').read())).toEqual([...foreign, { n: 4 }])
    expect(readFileSync(path, 'utf8').startsWith(bytes)).toBe(true)
  })

  test.each([
    ['half a line', '{"type":"mess'],
    ['a run of NULs', '\0'.repeat(40)],
    ['a line that is no object', '[1,2]'],
  ])('with %s in their middle are refused, for reading and for writing', async (_, broken) => {
    // F19, F29, P5
    const bytes = `${text(foreign)}\n${broken}\n${text(foreign)}\n`
    const { directory, store, path, session } = await adopted(bytes)
    for (const handle of [session, (await opened(directory)).session('k')]) {
      const seen: unknown[] = []
      const error = await refusal(async () => {
        for await (const { record } of handle.read()) seen.push(record)
      })
      expect(error).toMatchObject({ code: 'LOG_CORRUPT', kind: 'damaged', effect: 'none' })
      expect(seen).toEqual(foreign)
      expect(await refusal(() => handle.tail(1))).toMatchObject({ code: 'LOG_CORRUPT' })
      expect(await refusal(() => handle.append({ n: 9 }))).toMatchObject({ code: 'LOG_CORRUPT', effect: 'none' })
    }
    expect((await store.verify()).damage).toMatchObject([{ code: 'LOG_CORRUPT' }])
    expect(readFileSync(path, 'utf8')).toBe(bytes)
  })
})

describe('an idempotency id', () => {
  test('gives the first receipt again, after reopening, after rotation, and after both', async () => {
    // P1, P6
    const directory = storeDirectory()
    const first = await opened(directory)
    const one = await first.session('k').append({ n: 1 }, { id: 'evt-1' })
    const three = await first.session('k').append([{ n: 2 }, { n: 3 }, { n: 4 }], { id: 'evt-2' })
    const again = async (store: SessionStore) => {
      expect(await store.session('k').append({ other: true }, { id: 'evt-1' })).toEqual({ ...one, duplicate: true })
      expect(await store.session('k').append([{ n: 2 }, { n: 3 }, { n: 4 }], { id: 'evt-2' })).toEqual({ ...three, duplicate: true })
    }
    await again(first)
    await first.close()
    const second = await opened(directory)
    await again(second)
    expect(await recordsOf(second.session('k').read())).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }, { n: 4 }])
    await second.session('k').rotate()
    await again(second)
    await second.session('k').rotate()
    await second.close()
    const third = await opened(directory)
    await again(third)
    expect(await recordsOf(third.session('k').read())).toEqual([])
    expect(await third.session('k').append({ n: 5 }, { id: 'evt-3' })).toMatchObject({ duplicate: false })
    // Another session has ids of its own.
    expect(await third.session('other').append({ n: 1 }, { id: 'evt-1' })).toMatchObject({ duplicate: false })
  })
})

test('expectedSessionId: a number that fits the new session by chance does not let a decision in that was made on the old one', async () => {
  // F32, P1
  const store = await opened(storeDirectory())
  const session = store.session('k')
  const { sessionId, seq } = await session.append({ n: 1 })
  await session.rotate()
  const { seq: same, sessionId: next } = await session.append({ n: 2 })
  expect(same).toBe(seq)
  const stale = { expectedSeq: seq, expectedSessionId: sessionId }
  expect(await refusal(() => session.append({ stale: true }, stale))).toMatchObject({
    code: 'SEQ_CONFLICT',
    effect: 'none',
    details: { sessionId: next, expectedSessionId: sessionId },
  })
  await session.append({ n: 3 }, { expectedSeq: same, expectedSessionId: next })
  expect(await recordsOf(session.read())).toEqual([{ n: 2 }, { n: 3 }])
})

test('expectedSeq lets exactly one in, across handles, reopening and rotation', async () => {
  // F13, P1
  const directory = storeDirectory()
  const handles = [await opened(directory), await opened(directory)]
  const race = async (expectedSeq: number) => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, (_, n) => handles[n % 2]!.session('k').append({ expectedSeq, n }, { expectedSeq })),
    )
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
    expect(refused).toHaveLength(7)
    for (const { reason } of refused) expect(reason).toMatchObject({ code: 'SEQ_CONFLICT', kind: 'superseded', effect: 'none' })
    return outcomes.find((outcome) => outcome.status === 'fulfilled')!.value.seq
  }
  const first = await race(0)
  const second = await race(first)
  for (const handle of handles.splice(0)) await handle.close()
  handles.push(await opened(directory), await opened(directory))
  const third = await race(second)
  expect(await recordsOf(handles[0]!.session('k').read())).toHaveLength(3)
  await handles[0]!.session('k').rotate()
  // A decision made on what the old session held is refused in the new one.
  const error = await refusal(() => handles[1]!.session('k').append({ stale: true }, { expectedSeq: first }))
  expect(error).toMatchObject({ code: 'SEQ_CONFLICT', effect: 'none' })
  const base = Number(error.details.actualSeq)
  // The new session counts from its own beginning.
  const fourth = await race(base)
  expect(fourth).toBeGreaterThan(base)
  expect(third).toBeGreaterThan(second)
  expect(await recordsOf(handles[0]!.session('k').read())).toHaveLength(1)
})

test('deleted and made anew is another session; the old transcript is archived byte for byte, up to its seal', async () => {
  // F30, P1
  const directory = storeDirectory()
  const store = await opened(directory)
  const other = await opened(directory)
  const bytes = new Map<string, Buffer>()
  for (let life = 0; life < 3; life++) {
    for (let n = 0; n < 5; n++) await (n % 2 ? store : other).session('k').append({ life, n })
    const sessionId = await idOf(store, 'k')
    expect(bytes.has(sessionId)).toBe(false)
    bytes.set(sessionId, readFileSync(transcriptOf(directory, sessionId)))
    if (life < 2) expect(await store.delete('k')).toBe(true)
    else await store.withStoreLock((sessions) => sessions.delete('k'))
    for (const handle of [store, other]) {
      expect(await handle.get('k')).toBeUndefined()
      expect(await recordsOf(handle.session('k').read())).toEqual([])
    }
    expect(await other.delete('k')).toBe(false)
  }
  expect(readdirSync(join(directory, 'transcripts'))).toEqual([])
  expect(readdirSync(join(directory, 'archive')).sort()).toEqual([...bytes.keys()].map((id) => `${id}.jsonl`).sort())
  for (const [sessionId, before] of bytes) {
    const archived = readFileSync(archiveOf(directory, sessionId))
    expect(archived.subarray(0, before.length)).toEqual(before)
    const rest = archived.subarray(before.length).toString().split('\n')
    expect(rest).toHaveLength(2)
    expect(JSON.parse(rest[0]!)).toMatchObject({ $$: { seal: { reason: 'deleted', key: 'k' } } })
  }
  expect((await store.verify()).damage).toEqual([])
})

/** What a backend promises, whatever it keeps things in. Whoever passes keeps P1 to P6, as far as one process can tell; the folders crash,
 *  faults, processes and simulation have the rest.
 *
 *      describeBackend('file', async () => ({ open: () => openFileBackend(dir, …), remove: … })) */
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Backend, EncodedRecord, MaintenancePort } from '../../src/backend.js'
import { isStoreError } from '../../src/errors.js'
import type { Entry, StoredRecord } from '../../src/types.js'

/** A store that is not there yet. */
export interface Place {
  /** A handle on it; every call gives another one. */
  open(): Promise<Backend>
  /** Of a handle of this place. */
  care(handle: Backend): MaintenancePort
  remove(): Promise<void>
}

const numRuns = process.env.HOLDFAST_SOAK ? 2_000 : 60

export function describeBackend(name: string, makePlace: () => Promise<Place>): void {
  /** A fresh store and a first handle; all handles are closed, and the store removed, when the test ends. */
  async function begin(): Promise<{ backend: Backend; open(): Promise<Backend>; care: Place['care'] }> {
    const place = await makePlace()
    const handles: Backend[] = []
    onTestFinished(async () => {
      for (const handle of handles) await handle.close()
      await place.remove()
    })
    const open = async () => {
      const handle = await place.open()
      handles.push(handle)
      return handle
    }
    return { backend: await open(), open, care: place.care }
  }

  describe(`${name}: metadata`, () => {
    test('a new entry gets an identity, times and revision 1, and reads back as it was returned', async () => {
      const { backend } = await begin()
      const before = Date.now()
      const made = await backend.commitMetadata((sessions) => sessions.set('k', { model: 'x' }), {})
      expect(made).toMatchObject({ model: 'x', revision: 1 })
      expect(made.sessionId).toMatch(/^[0-9a-f-]{36}$/)
      expect(made.createdAt).toBeGreaterThanOrEqual(before)
      expect(made.updatedAt).toBe(made.createdAt)
      expect(await backend.get('k')).toEqual(made)
    })

    test('what the mutator returns is what the call resolves with', async () => {
      const { backend } = await begin()
      const value = { any: 'thing' }
      expect(await backend.commitMetadata(() => value, {})).toBe(value)
      expect(await backend.commitMetadata(() => undefined, {})).toBeUndefined()
    })

    test('revision grows by one per commit, however often the entry was changed in it', async () => {
      const { backend } = await begin()
      for (let revision = 1; revision <= 5; revision++) {
        await backend.commitMetadata((sessions) => {
          for (let n = 0; n < revision; n++) sessions.patch('k', { n })
        }, {})
        expect(await backend.get('k')).toMatchObject({ revision, n: revision - 1 })
      }
      await backend.commitMetadata((sessions) => sessions.get('k'), {})
      expect((await backend.get('k'))?.revision).toBe(5)
    })

    test('identity and birth stay, and what the caller puts into the store’s own fields counts for nothing', async () => {
      const { backend } = await begin()
      const first = await backend.commitMetadata((sessions) => sessions.set('k', {}), {})
      const forged = { sessionId: 'forged', createdAt: 1, updatedAt: 2, revision: 99, model: 'x' }
      const second = await backend.commitMetadata((sessions) => sessions.set('k', forged), {})
      expect(second).toMatchObject({ sessionId: first.sessionId, createdAt: first.createdAt, revision: 2, model: 'x' })
      expect(second.updatedAt).toBeGreaterThanOrEqual(first.updatedAt)
      const other = await backend.commitMetadata((sessions) => sessions.set('other', forged), {})
      expect(other.sessionId).not.toBe('forged')
      expect(other.revision).toBe(1)
    })

    test('set replaces the caller’s fields, patch lays over them, and a field that is undefined is removed', async () => {
      const { backend } = await begin()
      const fields = async () => fieldsOf(await backend.get('k'))
      await backend.commitMetadata((sessions) => sessions.set('k', { a: 1, b: { c: 2 } }), {})
      await backend.commitMetadata((sessions) => sessions.patch('k', { b: 3, d: 4 }), {})
      expect(await fields()).toEqual({ a: 1, b: 3, d: 4 })
      const returned = await backend.commitMetadata((sessions) => sessions.patch('k', { a: undefined }), {})
      expect(Object.keys(returned)).not.toContain('a')
      expect(await fields()).toEqual({ b: 3, d: 4 })
      await backend.commitMetadata((sessions) => sessions.set('k', { e: 5, f: undefined }), {})
      expect(await fields()).toEqual({ e: 5 })
    })

    test('what is kept is what JSON makes of it, at once and for good', async () => {
      const { backend, open } = await begin()
      const given = { at: new Date(0), none: Number.NaN, list: [undefined, 1], nested: { gone: undefined }, minus: -0 }
      const returned = await backend.commitMetadata((sessions) => sessions.set('k', given), {})
      const kept = { at: '1970-01-01T00:00:00.000Z', none: null, list: [null, 1], nested: {}, minus: 0 }
      expect(fieldsOf(returned)).toEqual(kept)
      expect(fieldsOf(await (await open()).get('k'))).toEqual(kept)
    })

    test('later changes of what was handed in change nothing', async () => {
      const { backend } = await begin()
      const given = { tags: ['a'] }
      await backend.commitMetadata((sessions) => sessions.set('k', given), {})
      given.tags.push('b')
      expect(await backend.get('k')).toMatchObject({ tags: ['a'] })
      await backend.commitMetadata((sessions) => {
        const inner = { n: 1 }
        sessions.set('l', { inner })
        inner.n = 2
      }, {})
      expect(await backend.get('l')).toMatchObject({ inner: { n: 1 } })
    })

    test('entries are frozen to their depths, wherever they come from (F18)', async () => {
      const { backend } = await begin()
      const frozen: (Entry | undefined)[] = []
      const given = { deep: { list: [{ n: 1 }] } }
      frozen.push(await backend.commitMetadata((sessions) => sessions.set('k', given), {}))
      frozen.push(await backend.commitMetadata((sessions) => sessions.get('k'), {}))
      frozen.push(await backend.get('k'))
      for await (const [, entry] of backend.entries('')) frozen.push(entry)
      await backend.commitMetadata((sessions) => {
        for (const [, entry] of sessions.entries()) frozen.push(entry)
      }, {})
      expect(frozen).toHaveLength(5)
      for (const entry of frozen as unknown as (Entry & { deep: { list: { n: number }[] } })[]) {
        expect(() => Object.assign(entry, { model: 'y' })).toThrow(TypeError)
        expect(() => Object.assign(entry.deep.list[0]!, { n: 2 })).toThrow(TypeError)
        expect(() => entry.deep.list.push({ n: 3 })).toThrow(TypeError)
      }
      expect(fieldsOf(await backend.get('k'))).toEqual({ deep: { list: [{ n: 1 }] } })
      expect(given.deep.list[0]).toEqual({ n: 1 })
      given.deep.list[0]!.n = 9 // The caller's own object is the caller's: nobody froze it.
    })

    test('a mutator that throws half-way leaves nothing, and its error comes through as it is (F17)', async () => {
      const { backend, open } = await begin()
      const before = await backend.commitMetadata((sessions) => sessions.set('k', { n: 1 }), {})
      const reason = new RangeError('half-way')
      const failed = backend.commitMetadata((sessions) => {
        sessions.set('new', { n: 1 })
        sessions.patch('k', { n: 2 })
        sessions.delete('k')
        throw reason
      }, {})
      await expect(failed).rejects.toBe(reason)
      for (const handle of [backend, await open()]) {
        expect(await handle.get('k')).toEqual(before)
        expect(await handle.get('new')).toBeUndefined()
      }
    })

    test('a mutator that returns a promise is refused, and nothing is written', async () => {
      const { backend } = await begin()
      const refused = backend.commitMetadata(async (sessions) => void sessions.set('k', {}), {})
      await expect(refused).rejects.toMatchObject({ code: 'ASYNC_MUTATOR', effect: 'none' })
      expect(await backend.get('k')).toBeUndefined()
    })

    test('a mutator sees its own changes laid over the rest', async () => {
      const { backend } = await begin()
      await backend.commitMetadata((sessions) => {
        for (const key of ['a', 'b', 'c']) sessions.set(key, { from: 'before' })
      }, {})
      await backend.commitMetadata((sessions) => {
        sessions.set('d', { from: 'now' })
        sessions.patch('b', { from: 'now' })
        expect(sessions.delete('a')).toBe(true)
        expect(sessions.delete('a')).toBe(false)
        expect(sessions.delete('never')).toBe(false)
        expect(sessions.size).toBe(3)
        expect([...sessions.keys()].sort()).toEqual(['b', 'c', 'd'])
        expect([...sessions.entries()].map(([key, entry]) => [key, entry.from]).sort()).toEqual([
          ['b', 'now'],
          ['c', 'before'],
          ['d', 'now'],
        ])
        expect(['a', 'b', 'd', 'e'].map((key) => sessions.has(key))).toEqual([false, true, true, false])
        expect(sessions.get('a')).toBeUndefined()
      }, {})
      expect(await keysOf(backend)).toEqual(['b', 'c', 'd'])
    })

    test('deleted and made again in one commit, an entry is a new session', async () => {
      const { backend } = await begin()
      const before = await backend.commitMetadata((sessions) => sessions.set('k', { old: true }), {})
      const after = await backend.commitMetadata((sessions) => {
        sessions.delete('k')
        return sessions.set('k', { old: false })
      }, {})
      expect(after.sessionId).not.toBe(before.sessionId)
      expect(after).toMatchObject({ revision: 1, old: false })
      expect(await backend.get('k')).toEqual(after)
    })

    test('made and deleted in one commit, it was never there', async () => {
      const { backend } = await begin()
      await backend.commitMetadata((sessions) => {
        sessions.set('k', {})
        sessions.delete('k')
      }, {})
      expect(await backend.get('k')).toBeUndefined()
      expect(await keysOf(backend)).toEqual([])
    })

    test('calls made together do not see each other’s failures, and each sees those before it', async () => {
      const { backend } = await begin()
      const outcomes = await Promise.allSettled(
        Array.from({ length: 60 }, (_, at) =>
          backend.commitMetadata((sessions) => {
            const n = Number(sessions.get('count')?.n ?? 0)
            sessions.set('count', { n: n + 1 })
            sessions.set(`own ${at}`, {})
            if (at % 3 === 0) throw new Error(`call ${at}`)
            return n
          }, {}),
        ),
      )
      const failed = outcomes.flatMap((outcome, at) => (outcome.status === 'rejected' ? [[at, String(outcome.reason)]] : []))
      expect(failed).toEqual(Array.from({ length: 20 }, (_, at) => [at * 3, `Error: call ${at * 3}`]))
      const seen = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
      expect(seen).toEqual(Array.from({ length: 40 }, (_, at) => at))
      expect(await backend.get('count')).toMatchObject({ n: 40, revision: 40 })
      expect((await keysOf(backend)).filter((key) => key.startsWith('own'))).toHaveLength(40)
    })

    test('a mutator may change thousands of entries, one after the other, all or nothing', async () => {
      const { backend, open } = await begin()
      const count = 3_000
      const change = (n: number) => (sessions: Parameters<Parameters<Backend['commitMetadata']>[0]>[0]) => {
        for (let at = 0; at < count; at++) sessions.patch(`k${at}`, { n })
      }
      await backend.commitMetadata(change(1), {})
      await (await open()).commitMetadata(change(2), {})
      const entries = await collect(backend.entries(''))
      expect(entries).toHaveLength(count)
      expect(entries.filter(([, { n, revision }]) => n !== 2 || revision !== 2)).toEqual([])
    })

    test('two handles that count together lose no count (F13, F14)', async () => {
      const { backend, open } = await begin()
      const handles = [backend, await open(), await open()]
      const increment = (handle: Backend) =>
        handle.commitMetadata((sessions) => sessions.patch('count', { n: Number(sessions.get('count')?.n ?? 0) + 1 }), {})
      await Promise.all(
        handles.map(async (handle) => {
          for (let n = 0; n < 20; n++) await increment(handle)
          await Promise.all(Array.from({ length: 20 }, () => increment(handle)))
        }),
      )
      for (const handle of handles) expect(await handle.get('count')).toMatchObject({ n: 120, revision: 120 })
    })

    test('entries gives those whose key begins with the prefix, no others', async () => {
      const { backend } = await begin()
      const keys = ['a', 'a:', 'a:1', 'a:2', 'ab', 'b', 'A:1', 'a%', 'a_1', 'a*']
      await backend.commitMetadata((sessions) => {
        for (const key of keys) sessions.set(key, {})
      }, {})
      expect(await keysOf(backend)).toEqual([...keys].sort())
      expect(await keysOf(backend, 'a:')).toEqual(['a:', 'a:1', 'a:2'])
      expect(await keysOf(backend, 'a_')).toEqual(['a_1'])
      expect(await keysOf(backend, 'a%')).toEqual(['a%'])
      expect(await keysOf(backend, 'zzz')).toEqual([])
    })

    test('entries shows one moment: what is committed while it is walked through does not show', async () => {
      const { backend } = await begin()
      await backend.commitMetadata((sessions) => {
        for (let n = 0; n < 10; n++) sessions.set(`k${n}`, { seen: 0 })
      }, {})
      const seen: unknown[] = []
      for await (const [key, entry] of backend.entries('')) {
        seen.push(entry.seen)
        await backend.commitMetadata((sessions) => {
          for (let n = 0; n < 10; n++) sessions.patch(`k${n}`, { seen: 1 })
          sessions.set(`more ${key}`, { seen: 2 })
        }, {})
      }
      expect(seen).toEqual(Array(10).fill(0))
    })
  })

  describe(`${name}: what keys and values may be`, () => {
    const hostile = [
      '__proto__',
      'constructor',
      'hasOwnProperty',
      'toString',
      '0',
      '10',
      '9',
      '-1',
      '.',
      '..',
      '../../etc/passwd',
      '/etc/passwd',
      'C:\\CON',
      'a/b/c',
      'a.jsonl',
      'a b',
      ' ',
      "'; drop table sessions; --",
      '"quoted\\"',
      '%00',
      '$',
      '$$',
      '{"op":"del"}',
      '\u2028\u2029',
      'é',
      'e\u0301',
      '🧵👩‍👩‍👧',
      'x'.repeat(512),
      '\ufeffbom',
      'keep.deleted.keep',
      'keep.deleted',
      'keep',
    ]

    test('keys are compared exactly, and none is special', async () => {
      const { backend, open } = await begin()
      await backend.commitMetadata((sessions) => {
        for (const key of hostile) sessions.set(key, { key })
      }, {})
      for (const key of hostile) await backend.append(key, [encoded({ key })], {})
      const again = await open()
      expect(await keysOf(again)).toEqual([...hostile].sort())
      const ids = new Set<string>()
      for (const key of hostile) {
        const entry = await again.get(key)
        expect(fieldsOf(entry)).toEqual({ key })
        ids.add(entry!.sessionId)
        expect(await recordsOf(again, key)).toEqual([{ key }])
      }
      expect(ids.size).toBe(hostile.length)
      expect(await again.get('toLocaleString')).toBeUndefined()
    })

    test('deleting one leaves those that are its prefix, or that it is a prefix of (F30)', async () => {
      const { backend } = await begin()
      for (const key of ['keep', 'keep.deleted', 'keep.deleted.keep', 'keep.deleted.keep2'])
        await backend.append(key, [encoded({ key })], {})
      expect(await backend.delete('keep.deleted', {})).toBe(true)
      expect(await keysOf(backend)).toEqual(['keep', 'keep.deleted.keep', 'keep.deleted.keep2'])
      for (const key of await keysOf(backend)) expect(await recordsOf(backend, key)).toEqual([{ key }])
    })

    const word = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('\u0000', '\ud83d\ude00', '\ud800', '__proto__', '$', '","$":"0.0.-1.a.00000000.00000000"}', '\n', '0'),
    )
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        word,
        fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
        fc.constantFrom(Number.MAX_SAFE_INTEGER, 1e308, 5e-324, 0.1 + 0.2, null, true, false),
        fc.array(tie('value'), { maxLength: 4 }),
        fc.array(fc.tuple(word, tie('value')), { maxLength: 4 }).map(Object.fromEntries),
      ),
    }))
    const own = new Set(['$', '$$', 'sessionId', 'createdAt', 'updatedAt', 'revision'])
    const fields = fc
      .array(
        fc.tuple(
          word.filter((candidate) => !own.has(candidate)),
          value,
        ),
        { maxLength: 5 },
      )
      .map((pairs) => JSON.stringify(Object.fromEntries(pairs)))

    test('entries and records come back as the same JSON, field order and all', async () => {
      const { backend, open } = await begin()
      const reader = await open()
      await fc.assert(
        fc.asyncProperty(
          fields,
          fields,
          fc.option(
            word.filter((id) => id !== ''),
            { nil: undefined },
          ),
          async (entry, record, id) => {
            const key = `k${Math.random()}`
            await backend.commitMetadata((sessions) => void sessions.set(key, JSON.parse(entry)), {})
            expect(JSON.stringify(fieldsOf(await reader.get(key)))).toBe(entry)
            await backend.append(key, [{ json: record }], { id })
            const [stored] = await collect(reader.read(key, {}))
            expect(JSON.stringify(stored!.record)).toBe(record)
            expect(stored!.id).toBe(id)
            expect(await reader.tail(key, 1)).toEqual([stored])
          },
        ),
        { numRuns },
      )
    })
  })

  describe(`${name}: transcripts`, () => {
    test('records come back in order, each with its own sequence number', async () => {
      const { backend } = await begin()
      const one = await backend.append('k', [encoded({ n: 1 })], {})
      expect(one).toEqual({ sessionId: (await backend.get('k'))!.sessionId, seq: one.seq, seqs: [one.seq], duplicate: false })
      expect(one.seq).toBeGreaterThan(0)
      const many = await backend.append(
        'k',
        [2, 3, 4].map((n) => encoded({ n })),
        {},
      )
      expect(many.seqs).toEqual([one.seq + 1, one.seq + 2, one.seq + 3])
      expect(many.seq).toBe(many.seqs[2])
      expect(await collect(backend.read('k', {}))).toEqual([1, 2, 3, 4].map((n) => ({ seq: one.seq - 1 + n, record: { n } })))
    })

    test('what does not exist reads as empty', async () => {
      const { backend } = await begin()
      await backend.commitMetadata((sessions) => sessions.set('named, but never written to', {}), {})
      for (const key of ['never', 'named, but never written to']) {
        expect(await collect(backend.read(key, {}))).toEqual([])
        expect(await backend.tail(key, 5)).toEqual([])
      }
      expect(await backend.get('never')).toBeUndefined()
      expect(await backend.delete('never', {})).toBe(false)
      await expect(backend.rotate('never', 'why', {})).rejects.toMatchObject({ code: 'NOT_FOUND', effect: 'none' })
    })

    test('twenty first messages for one key, by three handles at once, meet in one session (F31)', async () => {
      const { backend, open } = await begin()
      const handles = [backend, await open(), await open()]
      const receipts = await Promise.all(Array.from({ length: 21 }, (_, n) => handles[n % 3]!.append('k', [encoded({ n })], {})))
      expect(new Set(receipts.map(({ sessionId }) => sessionId))).toEqual(new Set([(await backend.get('k'))!.sessionId]))
      const records = await collect(backend.read('k', {}))
      expect(records.map(({ seq }) => seq)).toEqual(receipts.map(({ seq }) => seq).sort((a, b) => a - b))
      expect(new Set(records.map(({ record }) => record.n)).size).toBe(21)
      for (const [n, { seq }] of receipts.entries()) expect(records.find((found) => found.seq === seq)?.record).toEqual({ n })
    })

    test('a session that the metadata named first keeps that identity, and its metadata', async () => {
      const { backend } = await begin()
      const entry = await backend.commitMetadata((sessions) => sessions.set('k', { model: 'x' }), {})
      expect((await backend.append('k', [encoded({})], {})).sessionId).toBe(entry.sessionId)
      expect(await backend.get('k')).toEqual(entry)
    })

    test('one handle’s appends to a session keep their order, awaited or not', async () => {
      const { backend } = await begin()
      const receipts = await Promise.all(Array.from({ length: 200 }, (_, n) => backend.append('k', [encoded({ n })], {})))
      expect((await recordsOf(backend, 'k')).map(({ n }) => n)).toEqual(Array.from({ length: 200 }, (_, n) => n))
      expect(receipts.map(({ seq }) => seq)).toEqual([...receipts.map(({ seq }) => seq)].sort((a, b) => a - b))
    })

    test('a thousand records in one call are in together, in order', async () => {
      const { backend } = await begin()
      const { seqs } = await backend.append(
        'k',
        Array.from({ length: 1_000 }, (_, n) => encoded({ n })),
        {},
      )
      expect(seqs).toHaveLength(1_000)
      expect((await recordsOf(backend, 'k')).map(({ n }) => n)).toEqual(Array.from({ length: 1_000 }, (_, n) => n))
    })

    test('a large record comes back whole', async () => {
      const { backend } = await begin()
      const text = 'ä"\\\u0000🧵'.repeat(200_000)
      await backend.append('k', [encoded({ n: 1 }), encoded({ text }), encoded({ n: 3 })], {})
      expect((await backend.tail('k', 2))[0]!.record.text).toBe(text)
      expect((await recordsOf(backend, 'k')).map(({ n }) => n)).toEqual([1, undefined, 3])
    })

    test('expectedSeq: only on top of what the caller has seen, else SEQ_CONFLICT and nothing is written', async () => {
      const { backend, open } = await begin()
      const first = await backend.append('k', [encoded({ n: 1 })], { expectedSeq: 0 })
      const second = await backend.append('k', [encoded({ n: 2 }), encoded({ n: 3 })], { expectedSeq: first.seq })
      for (const expectedSeq of [0, first.seq, second.seq - 1, second.seq + 1, 10 ** 9]) {
        const error = await (await open()).append('k', [encoded({ n: 4 })], { expectedSeq }).catch((reason: unknown) => reason)
        expect(isStoreError(error, 'SEQ_CONFLICT') && error).toMatchObject({
          effect: 'none',
          details: { expectedSeq, actualSeq: second.seq },
        })
      }
      expect((await recordsOf(backend, 'k')).map(({ n }) => n)).toEqual([1, 2, 3])
      await backend.append('k', [encoded({ n: 4 })], { expectedSeq: second.seq })
    })

    test('of many who expect the same sequence number one wins (F16)', async () => {
      const { backend, open } = await begin()
      const handles = [backend, await open()]
      const { seq } = await backend.append('k', [encoded({ n: 0 })], {})
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => handles[n % 2]!.append('k', [encoded({ n: n + 1 })], { expectedSeq: seq })),
      )
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
      expect(await recordsOf(backend, 'k')).toHaveLength(2)
    })
  })

  describe(`${name}: idempotency ids`, () => {
    test('the same id again, from any handle, gives the first receipt, and nothing is written', async () => {
      const { backend, open } = await begin()
      const first = await backend.append(
        'k',
        [1, 2, 3].map((n) => encoded({ n })),
        { id: 'evt-7' },
      )
      expect(first.duplicate).toBe(false)
      await backend.append('k', [encoded({ n: 4 })], {})
      for (const handle of [backend, await open()]) {
        const again = await handle.append('k', [encoded({ other: true })], { id: 'evt-7' })
        expect(again).toEqual({ ...first, duplicate: true })
      }
      expect((await recordsOf(backend, 'k')).map(({ n }) => n)).toEqual([1, 2, 3, 4])
      const [stored] = await collect(backend.read('k', {}))
      expect(stored?.id).toBe('evt-7')
    })

    test('ten at once with one id, in one process and in two handles, are one append', async () => {
      const { backend, open } = await begin()
      const handles = [backend, await open()]
      const receipts = await Promise.all(
        Array.from({ length: 10 }, (_, n) => handles[n % 2]!.append('k', [encoded({ n })], { id: 'same' })),
      )
      expect(receipts.filter(({ duplicate }) => !duplicate)).toHaveLength(1)
      expect(new Set(receipts.map(({ seq }) => seq)).size).toBe(1)
      expect(await recordsOf(backend, 'k')).toHaveLength(1)
    })

    test('a duplicate is answered even when what it expects has passed', async () => {
      const { backend } = await begin()
      const first = await backend.append('k', [encoded({ n: 1 })], { id: 'a', expectedSeq: 0 })
      await backend.append('k', [encoded({ n: 2 })], {})
      expect(await backend.append('k', [encoded({ n: 1 })], { id: 'a', expectedSeq: 0 })).toEqual({ ...first, duplicate: true })
    })

    test('ids belong to one key each', async () => {
      const { backend } = await begin()
      await backend.append('k', [encoded({})], { id: 'a' })
      expect((await backend.append('l', [encoded({})], { id: 'a' })).duplicate).toBe(false)
    })

    test('an append that was refused leaves its id unused', async () => {
      const { backend } = await begin()
      await backend.append('k', [encoded({})], {})
      await expect(backend.append('k', [encoded({})], { id: 'a', expectedSeq: 99 })).rejects.toMatchObject({ code: 'SEQ_CONFLICT' })
      expect((await backend.append('k', [encoded({})], { id: 'a' })).duplicate).toBe(false)
    })

    test('no id is special', async () => {
      const { backend, open } = await begin()
      const ids = ['__proto__', 'constructor', '0', '"', '\\', '","count":9', '}', '\u0000', '\u2028', '🧵', 'x'.repeat(256), ' ']
      const receipts = []
      for (const id of ids) receipts.push(await backend.append('k', [encoded({ id })], { id }))
      const other = await open()
      for (const [at, id] of ids.entries())
        expect(await other.append('k', [encoded({ again: id })], { id })).toEqual({ ...receipts[at], duplicate: true })
      expect((await collect(other.read('k', {}))).map(({ id }) => id)).toEqual(ids)
    })

    test('are remembered across rotation, with the receipt of then', async () => {
      const { backend, open } = await begin()
      const first = await backend.append('k', [encoded({ n: 1 }), encoded({ n: 2 })], { id: 'a' })
      await backend.rotate('k', 'reset', {})
      expect(await backend.append('k', [encoded({})], { id: 'a' })).toEqual({ ...first, duplicate: true })
      await backend.append('k', [encoded({ n: 3 })], { id: 'b' })
      await (await open()).rotate('k', 'reset', {})
      for (const handle of [backend, await open()]) {
        expect(await handle.append('k', [encoded({})], { id: 'a' })).toEqual({ ...first, duplicate: true })
        expect((await handle.append('k', [encoded({})], { id: 'b' })).duplicate).toBe(true)
      }
      expect(await recordsOf(backend, 'k')).toEqual([])
    })

    test('the last 10,000 are remembered, by whoever opens the store, across rotation', async () => {
      const { backend, open } = await begin()
      const count = 10_500
      const receipts = await Promise.all(Array.from({ length: count }, (_, n) => backend.append('k', [{ json: '{}' }], { id: `evt-${n}` })))
      const askAll = async (handle: Backend) => {
        const again = await Promise.all(
          Array.from({ length: 10_000 }, (_, at) => handle.append('k', [{ json: '{"again":1}' }], { id: `evt-${count - 1 - at}` })),
        )
        expect(again.filter(({ duplicate }) => !duplicate)).toEqual([])
        for (const [at, receipt] of again.entries()) expect(receipt.seq).toBe(receipts[count - 1 - at]!.seq)
      }
      await askAll(await open())
      await backend.rotate('k', 'reset', {})
      await askAll(backend)
      expect(await recordsOf(backend, 'k')).toEqual([])
    })
  })

  describe(`${name}: reading`, () => {
    async function withRecords(count: number): Promise<{ backend: Backend; open(): Promise<Backend>; seqs: readonly number[] }> {
      const begun = await begin()
      const { seqs } = await begun.backend.append(
        'k',
        Array.from({ length: count }, (_, n) => encoded({ n })),
        {},
      )
      return { ...begun, seqs }
    }

    test('after and limit cut out what they say', async () => {
      const { backend, seqs } = await withRecords(20)
      const seen = async (options: { after?: number; limit?: number }) => (await collect(backend.read('k', options))).map(({ seq }) => seq)
      for (const after of [0, seqs[0]!, seqs[9]!, seqs[18]!, seqs[19]!, seqs[19]! + 1, 10 ** 9])
        for (const limit of [undefined, 0, 1, 7, 20, 21, 10 ** 9]) {
          const wanted = seqs.filter((seq) => seq > after).slice(0, limit)
          expect(await seen(limit === undefined ? { after } : { after, limit })).toEqual(wanted)
        }
    })

    test('tail gives the last ones, oldest first', async () => {
      const { backend, seqs } = await withRecords(20)
      for (const count of [1, 2, 19, 20, 21, 10_000])
        expect((await backend.tail('k', count)).map(({ seq }) => seq)).toEqual(seqs.slice(-count))
    })

    // Not met by the file backend: `slice(-0)` is everything.
    test('the last none are none', async () => {
      const { backend } = await withRecords(3)
      expect(await backend.tail('k', 0)).toEqual([])
    })

    test('what one reader does with its records, another does not see', async () => {
      const { backend } = await withRecords(1)
      const [mine] = await backend.tail('k', 1)
      mine!.record.n = 'changed'
      expect((await backend.tail('k', 1))[0]!.record.n).toBe(0)
    })

    test('what was acknowledged before a read began is in it, whichever handle wrote and whichever reads (P4)', async () => {
      const { backend, open } = await begin()
      const other = await open()
      for (let n = 1; n <= 40; n++) {
        const [writer, reader] = n % 2 ? [backend, other] : [other, backend]
        await writer.append('k', [encoded({ n })], {})
        await writer.commitMetadata((sessions) => sessions.patch('k', { n }), {})
        expect((await reader.tail('k', 1))[0]?.record).toEqual({ n })
        expect(await reader.get('k')).toMatchObject({ n })
        expect(await collect(reader.read('k', {}))).toHaveLength(n)
        if (n % 10 === 0) await writer.checkpoint()
        if (n % 13 === 0) expect(await keysOf(reader)).toEqual(['k'])
      }
    })

    test('a reader beside writers sees a prefix, in order, without a gap', async () => {
      const { backend, open } = await begin()
      const reader = await open()
      let writing = true
      const writer = (async () => {
        for (let n = 0; n < 150; n++) await backend.append('k', [encoded({ n, part: 0 }), encoded({ n, part: 1 })], {})
        writing = false
      })()
      while (writing) {
        const seen = await recordsOf(reader, 'k')
        expect(seen).toEqual(Array.from({ length: seen.length }, (_, at) => ({ n: at >> 1, part: at & 1 })))
        expect(seen.length % 2).toBe(0)
        await new Promise((resolve) => setImmediate(resolve))
      }
      await writer
      expect(await recordsOf(reader, 'k')).toHaveLength(300)
    })

    test('an aborted read rejects with the reason as it is', async () => {
      const { backend } = await withRecords(5)
      await expect(collect(backend.read('k', { signal: AbortSignal.abort('no') }))).rejects.toBe('no')
      const stop = new AbortController()
      const seen: StoredRecord[] = []
      const reading = (async () => {
        for await (const record of backend.read('k', { signal: stop.signal })) {
          seen.push(record)
          if (seen.length === 2) stop.abort('enough')
        }
      })()
      await expect(reading).rejects.toBe('enough')
      expect(seen).toHaveLength(2)
    })

    test('a read that is left half-way lets go of everything', async () => {
      const { backend } = await withRecords(5)
      for await (const { record } of backend.read('k', {})) if (record.n === 2) break
      expect(await recordsOf(backend, 'k')).toHaveLength(5)
    })
  })

  describe(`${name}: rotating and deleting`, () => {
    test('a rotated key goes on in a new, empty session, and its metadata stays', async () => {
      const { backend, open } = await begin()
      await backend.commitMetadata((sessions) => sessions.set('k', { model: 'x' }), {})
      await backend.append('k', [encoded({ n: 1 })], {})
      const before = (await backend.get('k'))!
      const receipt = await backend.rotate('k', 'reset', {})
      expect(receipt.previousSessionId).toBe(before.sessionId)
      for (const handle of [backend, await open()]) {
        const after = await handle.get('k')
        expect(after).toMatchObject({ sessionId: receipt.sessionId, model: 'x', createdAt: before.createdAt })
        expect(after!.revision).toBe(before.revision + 1)
        expect(await recordsOf(handle, 'k')).toEqual([])
      }
      const next = await backend.append('k', [encoded({ n: 2 })], { expectedSeq: 0 })
      expect(next.sessionId).toBe(receipt.sessionId)
      expect(await recordsOf(backend, 'k')).toEqual([{ n: 2 }])
    })

    test('a session without any record can be rotated too', async () => {
      const { backend } = await begin()
      const entry = await backend.commitMetadata((sessions) => sessions.set('k', {}), {})
      expect((await backend.rotate('k', 'reset', {})).previousSessionId).toBe(entry.sessionId)
    })

    test('a handle that knew the old session appends to the new one (F32)', async () => {
      const { backend, open } = await begin()
      const other = await open()
      await other.append('k', [encoded({ n: 1 })], {})
      for (let n = 2; n < 12; n++) {
        const { sessionId } = await backend.rotate('k', 'reset', {})
        expect((await other.append('k', [encoded({ n })], {})).sessionId).toBe(sessionId)
        expect(await recordsOf(backend, 'k')).toEqual([{ n }])
      }
    })

    // Not met by the file backend: seals that one handle writes in one batch are all acknowledged, and only the last of them is carried out.
    // The receipts of the others name sessions that never come to be.
    test('rotations at once follow one another: none is lost, none forks the key', async () => {
      const { backend, open } = await begin()
      const handles = [backend, await open()]
      const { sessionId: first } = await backend.append('k', [encoded({})], {})
      const receipts = await Promise.all(Array.from({ length: 8 }, (_, n) => handles[n % 2]!.rotate('k', `${n}`, {})))
      const nextOf = new Map(receipts.map(({ previousSessionId, sessionId }) => [previousSessionId, sessionId]))
      expect(nextOf.size).toBe(8)
      let at: string | undefined = first
      for (let steps = 0; steps < 8; steps++) at = nextOf.get(at!)
      expect(at).toBe((await backend.get('k'))!.sessionId)
    })

    test('appends beside rotations land in the session that their receipt names', async () => {
      const { backend, open } = await begin()
      const other = await open()
      await backend.append('k', [encoded({ n: -1 })], {})
      const appended = Promise.all(
        Array.from({ length: 60 }, async (_, n) => {
          if (n % 3) await new Promise((resolve) => setImmediate(resolve))
          return backend.append('k', [encoded({ n })], {})
        }),
      )
      for (let n = 0; n < 6; n++) await other.rotate('k', 'reset', {})
      const receipts = await appended
      const current = (await backend.get('k'))!.sessionId
      const there = await collect(backend.read('k', {}))
      const claimed = receipts.map((receipt, n) => ({ ...receipt, n })).filter(({ sessionId }) => sessionId === current)
      expect(there.map(({ seq, record }) => ({ seq, n: record.n }))).toEqual(claimed.map(({ seq, n }) => ({ seq, n })))
    })

    test('a deleted key is gone for everybody, and a new one is another session', async () => {
      const { backend, open } = await begin()
      const other = await open()
      const before = await other.append('k', [encoded({ n: 1 })], {})
      expect(await backend.delete('k', {})).toBe(true)
      expect(await backend.delete('k', {})).toBe(false)
      for (const handle of [backend, other]) {
        expect(await handle.get('k')).toBeUndefined()
        expect(await recordsOf(handle, 'k')).toEqual([])
        expect(await handle.tail('k', 1)).toEqual([])
      }
      const after = await other.append('k', [encoded({ n: 2 })], { expectedSeq: 0 })
      expect(after.sessionId).not.toBe(before.sessionId)
      expect(await recordsOf(backend, 'k')).toEqual([{ n: 2 }])
      expect(await backend.get('k')).toMatchObject({ revision: 1 })
    })

    test('a key deleted by a mutator takes its transcript with it', async () => {
      const { backend, open } = await begin()
      const other = await open()
      await other.append('k', [encoded({ n: 1 })], {})
      await backend.commitMetadata((sessions) => sessions.delete('k'), {})
      expect(await recordsOf(other, 'k')).toEqual([])
      await other.append('k', [encoded({ n: 2 })], {})
      expect(await recordsOf(backend, 'k')).toEqual([{ n: 2 }])
    })

    // Not met by the file backend, for the same reason: a delete that was acknowledged has not happened.
    test('a delete that says true has deleted, whatever is rotated meanwhile', async () => {
      const { backend } = await begin()
      const before = await backend.append('k', [encoded({ n: 1 })], {})
      const [deleted, rotated] = await Promise.allSettled([backend.delete('k', {}), backend.rotate('k', 'reset', {})])
      expect(deleted).toMatchObject({ status: 'fulfilled', value: true })
      // Either the delete came first, and there was nothing to rotate; or it came second, and deleted what the rotation had made.
      if (rotated.status === 'rejected') expect(rotated.reason).toMatchObject({ code: 'NOT_FOUND' })
      expect(await backend.get('k')).toBeUndefined()
      expect((await backend.append('k', [encoded({ n: 2 })], {})).sessionId).not.toBe(before.sessionId)
    })

    // Not met by the file backend: the same again.
    test('of two who delete one key at once, one has done it', async () => {
      const { backend, open } = await begin()
      const other = await open()
      await backend.append('k', [encoded({})], {})
      const done = await Promise.all([backend, other, backend, other].map((handle) => handle.delete('k', {})))
      expect(done.filter(Boolean)).toHaveLength(1)
    })
  })

  describe(`${name}: aborting and closing`, () => {
    test('a signal that is aborted already: nothing is written, and the reason comes through as it is', async () => {
      const { backend } = await begin()
      await backend.append('k', [encoded({ n: 1 })], {})
      const before = await backend.get('k')
      const reason = { why: 'not an error at all' }
      const signal = AbortSignal.abort(reason)
      await expect(backend.append('k', [encoded({ n: 2 })], { signal })).rejects.toBe(reason)
      await expect(backend.append('new', [encoded({ n: 2 })], { signal })).rejects.toBe(reason)
      await expect(backend.commitMetadata((sessions) => sessions.set('k', { n: 2 }), { signal })).rejects.toBe(reason)
      await expect(backend.rotate('k', 'why', { signal })).rejects.toBe(reason)
      await expect(backend.delete('k', { signal })).rejects.toBe(reason)
      expect(await backend.get('k')).toEqual(before)
      expect(await backend.get('new')).toBeUndefined()
      expect(await recordsOf(backend, 'k')).toEqual([{ n: 1 }])
    })

    test('a call that is aborted before its turn never runs; its neighbours do (F41)', async () => {
      const { backend } = await begin()
      await backend.append('k', [encoded({ n: 0 })], {})
      const stop = new AbortController()
      const calls = Array.from({ length: 9 }, (_, n) =>
        backend.append('k', [encoded({ n: n + 1 })], n % 3 === 1 ? { signal: stop.signal } : {}),
      )
      let ran = false
      const mutation = backend.commitMetadata(
        () => {
          ran = true
        },
        { signal: stop.signal },
      )
      stop.abort('gone')
      await expect(mutation).rejects.toBe('gone')
      const outcomes = await Promise.allSettled(calls)
      expect(outcomes.map(({ status }) => status === 'fulfilled')).toEqual(calls.map((_, n) => n % 3 !== 1))
      expect((await recordsOf(backend, 'k')).map(({ n }) => n)).toEqual([0, 1, 3, 4, 6, 7, 9])
      expect(ran).toBe(false)
    })

    test('an abort after the fact changes nothing, and leaves no listener behind', async () => {
      const { backend } = await begin()
      const stop = new AbortController()
      for (let n = 0; n < 20; n++) await backend.append('k', [encoded({ n })], { signal: stop.signal })
      stop.abort()
      expect(await recordsOf(backend, 'k')).toHaveLength(20)
    })

    test('everything is there for whoever opens the store after it was closed', async () => {
      const { backend, open } = await begin()
      await backend.commitMetadata((sessions) => sessions.set('k', { model: 'x' }), {})
      await backend.append('k', [encoded({ n: 1 })], { id: 'a' })
      const entry = await backend.get('k')
      await backend.close()
      const again = await open()
      expect(await again.get('k')).toEqual(entry)
      expect(await recordsOf(again, 'k')).toEqual([{ n: 1 }])
      expect((await again.append('k', [encoded({})], { id: 'a' })).duplicate).toBe(true)
    })
  })

  describe(`${name}: looking after`, () => {
    test('a checkpoint changes nothing that can be seen', async () => {
      const { backend, open } = await begin()
      await backend.checkpoint()
      for (let n = 0; n < 20; n++) await backend.commitMetadata((sessions) => sessions.set(`k${n % 7}`, { n }), {})
      const before = await collect(backend.entries(''))
      await backend.checkpoint()
      await backend.checkpoint()
      expect(new Map(await collect(backend.entries('')))).toEqual(new Map(before))
      expect(new Map(await collect((await open()).entries('')))).toEqual(new Map(before))
      await backend.commitMetadata((sessions) => sessions.patch('k0', { later: true }), {})
      expect(await backend.get('k0')).toMatchObject({ n: 14, later: true })
    })

    test('verify finds a sound store sound, beside writers too', async () => {
      const { backend, open, care } = await begin()
      const writing = (async () => {
        for (let n = 0; n < 30; n++) {
          await backend.append(`k${n % 3}`, [encoded({ n })], {})
          await backend.commitMetadata((sessions) => sessions.patch('k0', { n }), {})
          if (n % 10 === 5) await backend.rotate('k1', 'reset', {})
          if (n % 10 === 7) await backend.checkpoint()
        }
      })()
      const reader = await open()
      for (let n = 0; n < 5; n++) expect(await care(reader).verify({})).toMatchObject({ ok: true, damage: [] })
      await writing
      expect(await care(reader).verify({})).toMatchObject({ ok: true, damage: [] })
      await expect(care(reader).verify({ signal: AbortSignal.abort('no') })).rejects.toBe('no')
    })

    test('the counters count', async () => {
      const { backend } = await begin()
      const before = backend.stats()
      await backend.append('k', [encoded({}), encoded({})], {})
      await backend.commitMetadata((sessions) => sessions.set('k', { n: 1 }), {})
      const after = backend.stats()
      expect(after.commits).toBeGreaterThanOrEqual(before.commits + 2)
      expect(after.recordsWritten).toBeGreaterThanOrEqual(before.recordsWritten + 3)
      expect(after.bytesWritten).toBeGreaterThan(before.bytesWritten)
    })

    test('no lock is held by anybody when nothing is going on', async () => {
      const { backend } = await begin()
      await backend.append('k', [encoded({})], {})
      expect((await backend.locks()).filter(({ state }) => state === 'held')).toEqual([])
    })
  })
}

export function encoded(record: object): EncodedRecord {
  return { json: JSON.stringify(record) }
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

async function recordsOf(backend: Backend, key: string): Promise<Record<string, unknown>[]> {
  return (await collect(backend.read(key, {}))).map(({ record }) => record)
}

async function keysOf(backend: Backend, prefix = ''): Promise<string[]> {
  return (await collect(backend.entries(prefix))).map(([key]) => key).sort()
}

/** The caller's own fields of an entry. */
function fieldsOf(entry: Entry | undefined): Record<string, unknown> {
  if (!entry) throw new Error('no such entry')
  const { sessionId, createdAt, updatedAt, revision, ...fields } = entry
  return fields
}

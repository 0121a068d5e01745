/** Stores that the first version of format 1 has written open with this one, and nothing of them is lost (make-format-1.ts wrote them). */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { type Contents, contentsOf } from './contents.js'

const fixtures = join(import.meta.dirname, 'format-1')
const names = ['lived-in', 'sealed-journal', 'replaced-snapshot']

/** A copy to work on; the original is never opened. */
function copyOf(name: string): string {
  const directory = fs.mkdtempSync(join(tmpdir(), 'holdfast-compat-'))
  onTestFinished(() => fs.rmSync(directory, { recursive: true, force: true }))
  const store = join(directory, 'store')
  fs.cpSync(join(fixtures, name), store, { recursive: true })
  return store
}

function expected(name: string): Contents {
  return JSON.parse(fs.readFileSync(join(fixtures, `${name}.expected.json`), 'utf8')) as Contents
}

function readAll(store: SessionStore): Promise<Contents> {
  return contentsOf({ entries: (prefix) => store.entries({ prefix }), read: (key) => store.session(key).read() })
}

/** Every name below the directory, with its bytes. */
function bytesOf(directory: string): Record<string, string> {
  const found = fs.readdirSync(directory, { withFileTypes: true, recursive: true }).map((entry) => {
    const path = join(entry.parentPath, entry.name)
    return [relative(directory, path), entry.isFile() ? fs.readFileSync(path, 'latin1') : 'a directory'] as const
  })
  return Object.fromEntries(found.sort())
}

describe.each(names)('%s', (name) => {
  test('is read exactly as its own version read it, and is sound', async () => {
    await using store = await SessionStore.open(copyOf(name))
    expect(same(await readAll(store))).toEqual(same(expected(name)))
    expect(await store.verify()).toMatchObject({ ok: true, damage: [] })
  })

  test('is read the same without a byte being changed', async () => {
    const path = copyOf(name)
    const before = bytesOf(path)
    const store = await SessionStore.open(path, { readOnly: true })
    expect(same(await readAll(store))).toEqual(same(expected(name)))
    expect((await store.verify()).ok).toBe(true)
    await store.close()
    expect(bytesOf(path)).toEqual(before)
  })

  test('is written to: what was there stays, what is added follows it, also after opening it again', async () => {
    const path = copyOf(name)
    const before = expected(name)
    const store = await SessionStore.open(path)
    for (const key of Object.keys(before.entries)) {
      const { seq } = await store.session(key).append({ type: 'added' }, { id: `added to ${key}` })
      expect(seq).toBeGreaterThan(before.records[key]?.at(-1)?.seq ?? 0)
      await store.update(key, (entry) => ({ ...entry, visited: true }))
    }
    await store.session('agent:main:new').append({ type: 'first' })
    await store.close()

    await using again = await SessionStore.open(path)
    const after = await readAll(again)
    expect(Object.keys(after.entries).sort()).toEqual([...Object.keys(before.entries), 'agent:main:new'].sort())
    for (const [key, entry] of Object.entries(before.entries)) {
      expect(after.entries[key]).toEqual({
        ...entry,
        visited: true,
        revision: entry.revision + 1,
        updatedAt: after.entries[key]!.updatedAt,
      })
      // A last line without newline counts from when something follows it.
      const pending = key === 'agent:main:foreign' ? [{ seq: 3, record: { type: 'last', text: 'without a newline' } }] : []
      expect(after.records[key]!.slice(0, -1)).toEqual([...before.records[key]!, ...pending])
      expect(after.records[key]!.at(-1)).toMatchObject({ id: `added to ${key}`, record: { type: 'added' } })
    }
    expect((await again.verify()).ok).toBe(true)
  })

  test('is folded by this version without a change of content', async () => {
    const path = copyOf(name)
    const store = await SessionStore.open(path)
    await store.checkpoint()
    await store.close()
    expect(Object.keys(JSON.parse(fs.readFileSync(join(path, 'sessions.json'), 'utf8')) as object).sort()).toEqual(
      Object.keys(expected(name).entries).sort(),
    )
    await using again = await SessionStore.open(path)
    expect(same(await readAll(again))).toEqual(same(expected(name)))
  })
})

describe('what the old version promised, this one keeps', () => {
  test('an idempotency id means the same append, across two rotations', async () => {
    await using store = await SessionStore.open(copyOf('lived-in'))
    const direct = store.session('agent:main:direct:42')
    const [first, second] = [
      await direct.append({ again: true }, { id: 'direct-1' }),
      await direct.append({ again: true }, { id: 'direct-2' }),
    ]
    expect([first, second]).toMatchObject([
      { duplicate: true, seq: 1 },
      { duplicate: true, seq: 1 },
    ])
    expect(first.sessionId).not.toBe(second.sessionId)
    expect(await store.session('agent:main:main').append([{}, {}, {}], { id: 'evt-2' })).toMatchObject({ duplicate: true, seqs: [2, 3, 4] })
    expect(await store.session('agent:main:adopted').append({}, { id: 'adopted-1' })).toMatchObject({ duplicate: true })
    expect(same(await readAll(store))).toEqual(same(expected('lived-in')))
  })

  test('lines of another program come first, in their order, and stay when ours follow', async () => {
    const path = copyOf('lived-in')
    await using store = await SessionStore.open(path)
    const texts = async (key: string) => (await store.session(key).tail(10)).map(({ record }) => record.type)
    expect(await texts('agent:main:adopted')).toEqual(['session', 'message', 'message'])
    await store.session('agent:main:foreign').append({ type: 'ours' })
    expect(await texts('agent:main:foreign')).toEqual(['session', 'message', 'last', 'ours'])
  })

  test('rotated and deleted transcripts are in the archive; a deleted key is gone and may be used anew', async () => {
    const path = copyOf('lived-in')
    await using store = await SessionStore.open(path)
    expect(await store.get('agent:main:gone')).toBeUndefined()
    const archived = fs.readdirSync(join(path, 'archive')).map((file) => fs.readFileSync(join(path, 'archive', file), 'utf8'))
    for (const content of ['before', 'between', 'forget this'])
      expect(archived.filter((text) => text.includes(`"${content}"`))).toHaveLength(1)
    await store.session('agent:main:gone').append({ type: 'anew' })
    expect((await store.session('agent:main:gone').tail(10)).map(({ record }) => record.type)).toEqual(['anew'])
  })

  test('what killed writers left is void, and counted', async () => {
    await using store = await SessionStore.open(copyOf('lived-in'))
    const { files } = await store.verify()
    expect(files.filter(({ voidLines, tornTailBytes }) => voidLines === 2 && tornTailBytes === 9)).toHaveLength(1)
    expect((await store.session('agent:main:later').tail(10)).map(({ record }) => record)).toEqual([1, 2, 3, 4].map((n) => ({ n })))
  })
})

describe('the stores are what they are said to be', () => {
  const textOf = (name: string, file: string) => fs.readFileSync(join(fixtures, name, file), 'utf8')

  test('one has commits in its journal that are not in its snapshot', () => {
    expect(textOf('lived-in', 'sessions.journal.jsonl')).toContain('"agent:main:late"')
    expect(textOf('lived-in', 'sessions.json')).not.toContain('"agent:main:late"')
  })

  test('two were killed inside a checkpoint: the journal is sealed, the snapshot still the old one or already the new', () => {
    for (const name of ['sealed-journal', 'replaced-snapshot'])
      expect(textOf(name, 'sessions.journal.jsonl').trimEnd().split('\n').at(-1)).toMatch(/^\{"\$\$":\{"seal":\{"reason":"checkpoint"/)
    expect(textOf('sealed-journal', 'sessions.json')).not.toContain('"agent:main:bare"')
    expect(textOf('replaced-snapshot', 'sessions.json')).toContain('"agent:main:bare"')
  })

  test('nobody has touched up their line ends', () => {
    for (const [file, text] of Object.entries(bytesOf(fixtures))) expect(text.includes('\r'), file).toBe(false)
  })
})

describe('a store of a later format', () => {
  test.each([
    ['by a writer', {}],
    ['by a reader', { readOnly: true }],
  ])('is refused when opened %s, and not touched', async (_, options) => {
    const path = copyOf('lived-in')
    const format = JSON.parse(fs.readFileSync(join(path, 'holdfast.json'), 'utf8')) as object
    fs.writeFileSync(join(path, 'holdfast.json'), JSON.stringify({ ...format, format: 2, unheardOf: [] }))
    const before = bytesOf(path)
    await expect(SessionStore.open(path, options)).rejects.toMatchObject({
      code: 'STORE_FORMAT_UNSUPPORTED',
      effect: 'none',
      details: { found: 2, supported: 1 },
    })
    expect(bytesOf(path)).toEqual(before)
  })

  test('is refused even when nothing else in it is as this version knows it', async () => {
    const path = copyOf('lived-in')
    for (const file of fs.readdirSync(path)) fs.rmSync(join(path, file), { recursive: true })
    fs.writeFileSync(join(path, 'holdfast.json'), '{"format":2,"storeId":"x","createdAt":0}')
    await expect(SessionStore.open(path)).rejects.toMatchObject({ code: 'STORE_FORMAT_UNSUPPORTED' })
    expect(fs.readdirSync(path)).toEqual(['holdfast.json'])
  })
})

/** Comparable in every field: a key may be `__proto__`, which an object literal or `toEqual` may take for something else. */
function same({ entries, records }: Contents): unknown {
  const listed = (object: object) => Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1))
  return { entries: listed(entries), records: listed(records) }
}

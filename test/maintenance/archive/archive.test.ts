/** Archives: nothing that was said is hidden for good by a reset, a deletion or a compaction (F51, F49), and what is archived can be read and
 *  brought back. */
import fs from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { FileBackend } from '../../../src/file/backend.js'
import { openFileBackend } from '../../../src/file/backend.js'
import { checkKey } from '../../../src/input.js'
import { compressArchives } from '../../../src/maintenance/archive/compress.js'
import { archiveDeleted } from '../../../src/maintenance/archive/deleted.js'
import { FinishStep } from '../../../src/maintenance/leader/finish-step.js'
import { Pace } from '../../../src/maintenance/pace.js'
import type { StoredRecord } from '../../../src/types.js'
import { opened } from '../../metadata/store-directory.js'
import { freshStore, said, staying, textsOf } from '../../turns/conversation.js'

async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

/** The store once more, as maintenance sees it. */
async function inside<R>(directory: string, work: (backend: FileBackend) => Promise<R>): Promise<R> {
  const options = { durability: 'process', checkpoint: 'auto', waitMs: 2_000, maxHoldMs: 15_000, readOnly: false, checkKey } as const
  const backend = await openFileBackend(directory, options)
  try {
    return await work(backend)
  } finally {
    await backend.close()
  }
}

const compressed = (directory: string) => inside(directory, ({ inside: it }) => collected(compressArchives(it, 0)))
const finished = (directory: string) =>
  inside(directory, async ({ inside: it }) => {
    const pace = new Pace(it.host.clock)
    const closed = await collected(new FinishStep(it).run(pace))
    return [...closed, ...(await collected(archiveDeleted(it, pace)))].map(({ key, sessionId }) => ({ key, sessionId }))
  })

/** A key that was rotated, compacted and deleted, and another. */
async function lived() {
  const { directory, store } = await freshStore()
  const session = store.session('k')
  await session.append([said('a1'), said('a2')], { id: 'first' })
  await session.rotate({ reason: 'reset' })
  await session.append([said('b1'), said('b2'), said('b3')])
  await session.compact({ keepLast: 1, summarize: () => 'sum' })
  await session.compactBytes()
  await session.append(said('b4'))
  await store.session('other').append(said('o1'))
  await store.session('other').rotate()
  await store.delete('k')
  return { directory, store }
}

const texts = async (records: AsyncIterable<StoredRecord>) => textsOf(await collected(records))

describe('archives', () => {
  test('tell what was closed, when and why; of a key that is deleted, too, back to its first session (F51)', async () => {
    const { store } = await lived()
    const [deleted, compacted, rotated] = await store.archives('k')
    expect(await store.archives('k')).toHaveLength(3)
    expect(deleted).toMatchObject({ key: 'k', reason: 'deleted', compressed: false, unfinished: false, previous: rotated!.sessionId })
    expect(compacted).toMatchObject({ key: 'k', reason: 'compacted', sessionId: deleted!.sessionId })
    expect(rotated).toMatchObject({ key: 'k', reason: 'rotated', why: 'reset', next: deleted!.sessionId, previous: undefined, firstSeq: 1 })
    expect((await store.archives()).map(({ key }) => key).sort()).toEqual(['k', 'k', 'k', 'other'])
    expect(await store.archives('never')).toEqual([])
    expect(await texts(store.readArchive(rotated!.archive))).toEqual(['a1', 'a2'])
    expect(await texts(store.readArchive(compacted!.archive))).toEqual(['b1', 'b2', 'b3'])
    expect(await texts(store.readArchive(deleted!.archive))).toEqual(['b3', 'b4'])
    expect(await texts(store.readArchive(compacted!.archive, { after: 1, limit: 1 }))).toEqual(['b2'])
  })

  test('compressed they tell and hold the same, and zcat reads them; the plain file is gone, a note stands beside', async () => {
    const { directory, store } = await lived()
    const before = await store.archives()
    const plain = new Map(before.map(({ archive, file }) => [archive, fs.readFileSync(join(directory, file))]))
    expect((await compressed(directory)).map(({ outcome }) => outcome)).toEqual(Array.from(before, () => 'compressed'))
    const after = await store.archives()
    expect(after).toEqual(before.map((info) => ({ ...info, compressed: true, file: `${info.file}.gz` })))
    for (const { archive, file } of after) {
      expect(gunzipSync(fs.readFileSync(join(directory, file))).equals(plain.get(archive)!)).toBe(true)
      expect(fs.existsSync(join(directory, file.slice(0, -3)))).toBe(false)
      expect((await texts(store.readArchive(archive))).length).toBeGreaterThan(0)
    }
    expect(await compressed(directory)).toEqual([])
    fs.rmSync(join(directory, 'archive', `${after[0]!.archive}.json`))
    expect(await store.archives()).toEqual(after)
    expect(fs.readdirSync(join(directory, 'locks', 'prepared'))).toEqual([])
  })

  test('a compressed one that is cut short or altered is damaged, and says so; the others are read', async () => {
    const { directory, store } = await lived()
    await compressed(directory)
    const [first, second] = await store.archives('k')
    const bytes = fs.readFileSync(join(directory, first!.file))
    fs.writeFileSync(join(directory, first!.file), bytes.subarray(0, bytes.length - 20))
    await expect(texts(store.readArchive(first!.archive))).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    expect((await texts(store.readArchive(second!.archive))).length).toBe(3)
    await expect(store.restoreArchive(first!.archive, { key: 'back' })).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    expect(await store.get('back')).toBeUndefined()
  })

  test('names are compared whole: no prefix, no path, no session in use (F30)', async () => {
    const { store } = await lived()
    const { sessionId } = (await store.get('other'))!
    const [archive] = await store.archives('k')
    for (const name of [
      '',
      '.',
      '../sessions',
      archive!.archive.slice(0, 35),
      `${archive!.archive}.jsonl`,
      `${archive!.archive}.7`,
      sessionId,
    ])
      await expect(texts(store.readArchive(name)), name).rejects.toMatchObject({ code: 'NOT_FOUND' })
  })

  test('what an earlier request was answered with is found in a compressed archive, too', async () => {
    const { directory, store } = await freshStore()
    const ask = () => store.runTurn('k', { requestId: 'r-1', input: said('q') }, () => ({ answer: 42 }))
    await ask()
    await store.session('k').compact({ keepLast: 0, summarize: () => 's' })
    await store.session('k').append(said('x'))
    await store.session('k').compact({ keepLast: 1, summarize: () => 's' })
    expect(await store.session('k').compactBytes()).toMatchObject({ compacted: true })
    await compressed(directory)
    expect(await ask()).toMatchObject({ outcome: 'duplicate', value: { answer: 42 } })
    await store.session('k').rotate()
    await compressed(directory)
    expect(await ask()).toMatchObject({ outcome: 'duplicate', value: { answer: 42 } })
  })
})

test('one that is just being compressed, and stands there twice, is one of the last that stay (F49)', async () => {
  const { directory, store } = await freshStore()
  const ids: string[] = []
  for (const text of ['a', 'b', 'c']) {
    ids.push((await store.session('k').append(said(text))).sessionId)
    if (text !== 'c') await store.session('k').rotate()
  }
  const last = join(directory, 'archive', `${ids[1]}.jsonl`)
  const plain = fs.readFileSync(last)
  await compressed(directory)
  // As whoever compresses it leaves it, when it dies before the plain one is gone.
  fs.writeFileSync(last, plain)
  const { removed } = await store.retain({ rules: { archives: { maxAgeMs: 0, keepLast: 2 } } })
  expect(removed).toEqual([])
  expect(await texts(store.readArchive(ids[0]!))).toEqual(['a'])
  const kept = await store.retain({ rules: { archives: { maxAgeMs: 0, keepLast: 1 } } })
  expect(kept.removed).toMatchObject([{ file: `archive/${ids[0]}.jsonl.gz` }])
  // What has been found to be there twice is not removed under the one who is about to unlink the other.
  expect(fs.existsSync(`${last}.gz`)).toBe(true)
  expect(fs.existsSync(last)).toBe(true)
})

describe('an archive that is brought back', () => {
  test('is a session of its own: records, numbers and ids, under a fresh session id; the archive stays', async () => {
    const { directory, store } = await lived()
    for (const compress of [false, true]) {
      if (compress) await compressed(directory)
      const rotated = (await store.archives('k')).find(({ reason }) => reason === 'rotated')!
      const before = fs.readFileSync(join(directory, rotated.file))
      const key = `back-${compress}`
      const receipt = await store.restoreArchive(rotated.archive, { key })
      expect(receipt).toMatchObject({ key, archive: rotated.archive, records: 2 })
      expect((await store.get(key))!.sessionId).toBe(receipt.sessionId)
      expect(receipt.sessionId).not.toBe(rotated.sessionId)
      expect(await collected(store.session(key).read())).toEqual(await collected(store.readArchive(rotated.archive)))
      const other = (await opened(directory)).session(key)
      expect(await other.append(said('x'), { id: 'first' })).toMatchObject({ duplicate: true, seq: 2, sessionId: receipt.sessionId })
      await other.append(said('new'))
      expect(textsOf(await store.session(key).tail(2))).toEqual(['a2', 'new'])
      expect(fs.readFileSync(join(directory, rotated.file)).equals(before)).toBe(true)
    }
    expect((await store.verify()).damage).toEqual([])
  })

  test('goes under a key that names none: else INVALID_KEY, and nothing is written', async () => {
    const { directory, store } = await lived()
    const [archive] = await store.archives('k')
    const files = fs.readdirSync(join(directory, 'transcripts'))
    await expect(store.restoreArchive(archive!.archive, { key: 'other' })).rejects.toMatchObject({ code: 'INVALID_KEY', effect: 'none' })
    await expect(store.restoreArchive(archive!.archive, {} as never)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await expect(store.restoreArchive('nothing', { key: 'x' })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    expect(fs.readdirSync(join(directory, 'transcripts'))).toEqual(files)
    // Of several at once, one.
    const all = await Promise.allSettled([1, 2, 3].map(() => store.restoreArchive(archive!.archive, { key: 'x' })))
    expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(fs.readdirSync(join(directory, 'transcripts'))).toHaveLength(files.length + 1)
  })

  test('has the entry that is asked for, as the schema wants it', async () => {
    const { directory } = await lived()
    const store = await opened(directory, { entry: z.object({ model: z.string() }) })
    const [archive] = await store.archives('k')
    await expect(store.restoreArchive(archive!.archive, { key: 'x' })).rejects.toMatchObject({ code: 'INVALID_ENTRY' })
    await store.restoreArchive(archive!.archive, { key: 'x', entry: { model: 'm' } })
    expect(await store.get('x')).toMatchObject({ model: 'm', revision: 1 })
  })

  test.each(['delete', 'withStoreLock', 'retain'] as const)('has the entry that it had, when %s had removed it (F51)', async (how) => {
    const { directory, store } = await freshStore()
    const fields = { model: 'm', label: 'Grüße', nested: { list: [1, null], $: 'mine' } }
    await store.update('k', () => fields)
    await store.session('k').append(said('a'))
    // With a mark of the store's own in the stored entry.
    await store.checkpoint()
    if (how === 'delete') await store.delete('k')
    else if (how === 'retain') await store.retain({ rules: { maxCount: 0 } })
    else
      await store.withStoreLock((sessions) => {
        sessions.patch('k', { model: 'never stored' })
        sessions.patch('k', fields)
        sessions.delete('k')
        sessions.set('k', { model: 'another' })
      })
    for (const compress of [false, true]) {
      if (compress) await compressed(directory)
      const [archive] = await store.archives('k')
      expect(archive!.entry).toEqual(fields)
      await store.restoreArchive(archive!.archive, { key: `x-${compress}` })
      const { sessionId: _, createdAt: __, updatedAt: ___, revision, ...entry } = (await store.get(`x-${compress}`))!
      expect({ revision, entry }).toEqual({ revision: 1, entry: fields })
      await store.restoreArchive(archive!.archive, { key: `y-${compress}`, entry: { other: 1 } })
      expect(await store.get(`y-${compress}`)).not.toHaveProperty('model')
    }
    // What stands in `$` would be taken for how far its transcript is on the disk, and the session refused.
    const [first] = await store.archives('k')
    const marked = { $: '99.9999.00000000.00000000' }
    await expect(store.restoreArchive(first!.archive, { key: 'm', entry: marked })).rejects.toMatchObject({ code: 'INVALID_ENTRY' })
    expect(await store.get('m')).toBeUndefined()
    const strict = await opened(directory, { entry: z.object({ owner: z.string() }) })
    const [archive] = await strict.archives('k')
    await expect(strict.restoreArchive(archive!.archive, { key: 'z' })).rejects.toMatchObject({ code: 'INVALID_ENTRY' })
    expect(fs.readdirSync(join(directory, 'locks', 'prepared'))).toEqual([])
  })

  test('an entry of more than 64 KiB is not kept: the deletion goes on without', async () => {
    const { directory, store } = await freshStore()
    for (const [key, bytes] of Object.entries({ large: (64 << 10) - 10, fits: (64 << 10) - 11 })) {
      await store.update(key, () => ({ note: 'x'.repeat(bytes) }))
      await store.session(key).append(said('a'))
      await store.delete(key)
    }
    const [fits] = await store.archives('fits')
    expect((await store.archives('large'))[0]).toMatchObject({ reason: 'deleted', entry: undefined })
    expect(fits!.entry?.note).toHaveLength((64 << 10) - 11)
    // Its seal is found when its closer died over it.
    fs.renameSync(join(directory, fits!.file), join(directory, 'transcripts', `${fits!.sessionId}.jsonl`))
    expect(await finished(directory)).toMatchObject([{ key: 'fits' }])
    // And its note tells whose it is: of two, the last one stays.
    await store.restoreArchive(fits!.archive, { key: 'fits' })
    await store.delete('fits')
    await compressed(directory)
    const { removed } = await store.retain({ rules: { archives: { maxAgeMs: 0, keepLast: 1 } } })
    expect(removed).toMatchObject([{ file: `archive/${fits!.archive}.jsonl.gz`, key: 'fits' }])
  })

  test('has no turn that goes on and no input that waits, though the archive had; a new turn begins behind them', async () => {
    const { store } = await freshStore()
    const active = await staying(store, 'k', { input: said('a') })
    await store.runTurn('k', { input: said('left'), whenBusy: 'coalesce' }, () => expect.fail('it ran'))
    await store.delete('k')
    active.go()
    await active.result.catch(() => {})
    const [archive] = await store.archives('k')
    await store.restoreArchive(archive!.archive, { key: 'x' })
    const result = await store.runTurn('x', { input: said('b') }, async (turn) => [await turn.pending(), textsOf(await turn.tail(9))])
    expect(result).toMatchObject({ turn: 2, value: [[], ['a', 'b']] })
    expect(textsOf(await store.session('x').tail(9))).toEqual(['a', 'left', 'b'])
  })

  test('holds lines of another program as records', async () => {
    const { directory, store } = await freshStore()
    const { sessionId } = await store.update('k', () => ({}))
    fs.writeFileSync(join(directory, 'transcripts', `${sessionId}.jsonl`), '{"text":"f1"}\n{"text": "f2" }\r\n')
    await store.session('k').append(said('a'))
    await store.delete('k')
    const [archive] = await store.archives('k')
    expect(await texts(store.readArchive(archive!.archive))).toEqual(['f1', 'f2', 'a'])
    await store.restoreArchive(archive!.archive, { key: 'x' })
    expect(await collected(store.session('x').read())).toMatchObject([{ seq: 1 }, { seq: 2 }, { seq: 4 }])
    await store.session('x').append(said('b'))
    expect(await texts(store.session('x').read())).toEqual(['f1', 'f2', 'a', 'b'])
  })
})

describe('what somebody died over', () => {
  /** Puts a closed transcript back where its closer would have left it. */
  function unarchive(directory: string, archive: string): void {
    fs.renameSync(join(directory, 'archive', `${archive}.jsonl`), join(directory, 'transcripts', `${archive}.jsonl`))
  }

  test.each(['rotated', 'deleted'] as const)(
    'a transcript that was %s and not moved is listed, read, and moved by maintenance',
    async (reason) => {
      const { directory, store } = await lived()
      const before = (await store.archives('k')).find((info) => info.reason === reason)!
      const records = await collected(store.readArchive(before.archive))
      unarchive(directory, before.archive)
      const found = (await store.archives('k')).find((info) => info.reason === reason)!
      expect(found).toEqual({ ...before, file: `transcripts/${before.archive}.jsonl`, unfinished: true })
      expect(await collected(store.readArchive(before.archive))).toEqual(records)
      expect(await finished(directory)).toMatchObject([{ key: 'k', sessionId: before.sessionId }])
      expect((await store.archives('k')).find((info) => info.reason === reason)).toEqual(before)
      expect(await finished(directory)).toEqual([])
    },
  )

  test('a transcript whose key a mutator has deleted, and that nobody has closed, is archived', async () => {
    const { directory, store } = await freshStore()
    await store.session('k').append(said('a'))
    const { sessionId } = (await store.get('k'))!
    const path = join(directory, 'transcripts', `${sessionId}.jsonl`)
    const bytes = fs.readFileSync(path)
    await store.delete('k')
    fs.rmSync(join(directory, 'archive', `${sessionId}.jsonl`))
    fs.writeFileSync(path, bytes)
    expect(await finished(directory)).toMatchObject([{ key: 'k', sessionId }])
    expect(await texts(store.readArchive(sessionId))).toEqual(['a'])
  })

  test('a transcript that no key names for no known reason stays where it is: verify tells of it', async () => {
    const { directory, store } = await freshStore()
    await store.session('k').append(said('a'))
    const { sessionId } = (await store.get('k'))!
    const stray = '019b7703-e400-7000-8000-0000000000ff'
    fs.copyFileSync(join(directory, 'transcripts', `${sessionId}.jsonl`), join(directory, 'transcripts', `${stray}.jsonl`))
    expect(await finished(directory)).toEqual([])
    expect(fs.existsSync(join(directory, 'transcripts', `${stray}.jsonl`))).toBe(true)
  })
})

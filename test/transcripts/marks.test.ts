/** High-water marks: the metadata remembers how far each transcript is on the disk, so that what is gone without a trace is missed (F29, F19,
 *  F21; P5). */
import diagnostics from 'node:diagnostics_channel'
import { copyFileSync, cpSync, existsSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { encodeLine, hex8, readMark, systemBody } from '../../src/file/log/record.js'
import { type HighWaterMark, parseMark } from '../../src/file/metadata/mark.js'
import type { SessionStore } from '../../src/store.js'
import type { StoreOptions } from '../../src/types.js'
import { entriesOf, opened, recordsOf, refusal, storeDirectory } from '../metadata/store-directory.js'

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => ({ n: from + at }))
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** What `$` holds in sessions.json and the journal, by key, the latest word last. */
function storedMarks(directory: string): Map<string, HighWaterMark | undefined> {
  const marks = new Map<string, HighWaterMark | undefined>()
  const read = (entry: { $?: string }) => (entry.$ === undefined ? undefined : parseMark(entry.$))
  for (const [key, entry] of Object.entries(JSON.parse(readFileSync(join(directory, 'sessions.json'), 'utf8'))))
    marks.set(key, read(entry as object))
  for (const line of readFileSync(join(directory, 'sessions.journal.jsonl'), 'utf8').split('\n').slice(0, -1)) {
    const { op, key, entry } = JSON.parse(line)
    if (op === 'put') marks.set(key, read(entry))
    if (op === 'del') marks.delete(key)
  }
  return marks
}

/** Two sessions, ten records in the first; closed, so marked. */
async function marked(options?: StoreOptions) {
  const directory = storeDirectory()
  const store = await opened(directory, options)
  for (let n = 1; n <= 10; n++) await store.session('hurt').append({ n })
  await store.session('well').append({ n: 1 })
  const { sessionId } = (await store.get('hurt'))!
  await store.close()
  const file = `transcripts/${sessionId}.jsonl`
  return { directory, sessionId, file, path: join(directory, file) }
}

/** The file as its first `lines` lines. */
function cut(path: string, lines: number): void {
  const kept = readFileSync(path, 'utf8').split('\n').slice(0, lines)
  truncateSync(path, Buffer.byteLength(kept.map((line) => `${line}\n`).join('')))
}

async function assertRefused(store: SessionStore, file: string): Promise<void> {
  const session = store.session('hurt')
  const refused = { code: 'LOG_CORRUPT', effect: 'none', details: { file } }
  expect(await refusal(() => session.append({ n: 11 }))).toMatchObject(refused)
  expect(await refusal(() => session.append({ n: 11 }, { id: 'once' }))).toMatchObject(refused)
  expect(await refusal(() => session.tail(3))).toMatchObject(refused)
  expect(await refusal(() => recordsOf(session.read()))).toMatchObject(refused)
  expect(await refusal(() => recordsOf(session.read({ after: 7 })))).toMatchObject(refused)
  expect(await refusal(() => session.rotate())).toMatchObject(refused)
  expect(await refusal(() => store.delete('hurt'))).toMatchObject(refused)
  expect(await refusal(() => store.runTurn('hurt', { input: { n: 11 } }, () => 'answer'))).toMatchObject(refused)
  expect(await refusal(() => store.runTurn('hurt', {}, () => 'answer'))).toMatchObject(refused)
}

async function assertWell(store: SessionStore): Promise<void> {
  await store.session('well').append({ n: 2 })
  await store.session('new').append({ n: 1 })
  expect((await store.runTurn('well', { input: { n: 3 } }, (turn) => turn.append({ n: 4 }))).outcome).toBe('completed')
  expect(await recordsOf(store.session('well').read())).toEqual(numbers(1, 4))
  // Its entry is none of the transcript's business.
  expect(await store.update('hurt', (entry) => ({ ...entry, seen: true }))).toMatchObject({ seen: true })
}

describe.each(['power', 'process'] as const)('durability %s: what is gone without a trace is missed', (durability) => {
  test.each<[how: string, damage: (path: string) => void, before: number]>([
    ['cut at the end of a line', (path) => cut(path, 9), 8],
    ['cut by one record', (path) => cut(path, 10), 9],
    ['cut in mid-line', (path) => truncateSync(path, readFileSync(path).length - 1), 9],
    ['cut to its header', (path) => cut(path, 1), 0],
    ['empty', (path) => truncateSync(path, 0), 0],
    ['removed', (path) => unlinkSync(path), 0],
  ])('a transcript that is %s: LOG_CORRUPT for its session, and all others go on', async (_, damage, before) => {
    // F29, F21
    const { directory, file, path } = await marked({ durability })
    damage(path)
    const left = existsSync(path) ? readFileSync(path) : undefined
    for (const options of [{}, { durability }]) {
      const store = await opened(directory, options)
      const read: unknown[] = []
      const reading = async () => {
        for await (const { record } of store.session('hurt').read()) read.push(record)
      }
      expect(await refusal(reading)).toMatchObject({ code: 'LOG_CORRUPT' })
      expect(read, 'what stands before is handed out').toEqual(numbers(1, before))
      await assertRefused(store, file)
      await store.close()
    }
    const store = await opened(directory, { durability })
    await assertWell(store)
    expect(existsSync(path) ? readFileSync(path) : undefined, 'nothing is written to it').toEqual(left)
  })
})

test('an older version of a transcript in its place is missed, and so is another session’s', async () => {
  const { directory, file, path } = await marked()
  const whole = readFileSync(path)
  const store = await opened(directory)
  await store.session('hurt').append({ n: 11 })
  const { sessionId } = (await store.get('well'))!
  await store.close()
  writeFileSync(path, whole)
  await assertRefused(await opened(directory), file)
  copyFileSync(join(directory, `transcripts/${sessionId}.jsonl`), path)
  await assertRefused(await opened(directory), file)
})

test('a handle that had not yet heard of the mark misses what is gone, too', async () => {
  const directory = storeDirectory()
  const store = await opened(directory)
  for (let n = 1; n <= 10; n++) await store.session('hurt').append({ n })
  const other = await opened(directory)
  await other.get('hurt')
  await store.close()
  const { sessionId } = (await other.get('hurt'))!
  const file = `transcripts/${sessionId}.jsonl`
  cut(join(directory, file), 9)
  expect(await refusal(() => other.session('hurt').append({ n: 11 }))).toMatchObject({ code: 'LOG_CORRUPT', details: { file } })
  unlinkSync(join(directory, file))
  expect(await refusal(() => other.session('hurt').append({ n: 11 }))).toMatchObject({ code: 'LOG_CORRUPT', details: { file } })
})

test('put back, it is as if nothing had been', async () => {
  const { directory, path } = await marked()
  const whole = readFileSync(path)
  const store = await opened(directory)
  unlinkSync(path)
  expect(await refusal(() => store.session('hurt').tail(1))).toMatchObject({ code: 'LOG_CORRUPT' })
  expect(await refusal(() => store.session('hurt').append({ n: 11 }))).toMatchObject({ code: 'LOG_CORRUPT' })
  writeFileSync(path, whole)
  await store.session('hurt').append({ n: 11 })
  expect(await recordsOf(store.session('hurt').read())).toEqual(numbers(1, 11))
})

describe('a repair', () => {
  test.each<[how: string, damage: (path: string) => void, kept: number]>([
    ['cut by one record', (path) => cut(path, 10), 9],
    ['cut in mid-line', (path) => truncateSync(path, readFileSync(path).length - 3), 9],
    ['cut to its header', (path) => cut(path, 1), 0],
    ['empty', (path) => truncateSync(path, 0), 0],
    ['removed', (path) => unlinkSync(path), 0],
  ])('of a transcript that is %s keeps its numbers: what is lost is said, and the next record comes behind it', async (_, damage, kept) => {
    // F22, F29
    const { directory, path } = await marked()
    damage(path)
    const store = await opened(directory)
    const plan = await store.planRepair()
    expect(plan.actions.map(({ loses }) => loses.seqs)).toEqual([[{ from: kept + 1, to: 10 }]])
    expect(await store.repair(plan)).toMatchObject({ ok: true })
    expect((await store.verify()).damage).toEqual([])
    expect((await store.planRepair()).actions).toEqual([])
    expect(await recordsOf(store.session('hurt').read())).toEqual(numbers(1, kept))
    expect(await store.session('hurt').append({ n: 11 })).toMatchObject({ seq: 11 })
    await store.close()
    const again = await opened(directory)
    expect(await recordsOf(again.session('hurt').read())).toEqual([...numbers(1, kept), { n: 11 }])
    expect((await again.verify()).damage).toEqual([])
  })
})

describe('a file that was made from the marked one', () => {
  /** The same records in a file of its own, from `from` on. */
  function remade(path: string, from: number, header: object): void {
    let prev = 0
    const line = (body: string, seq: number) => {
      const encoded = encodeLine(body, { seq, left: 0, synced: seq - 1, writer: '0000remade00', prev })
      prev = encoded.crc
      return encoded.line
    }
    const old = readFileSync(path, 'utf8')
      .split('\n')
      .slice(1, -1)
      .slice(from - 1)
    const bodies = old.map((text) => text.replace(/,"\$":"[^"]*"\}$/, '}'))
    const base = { log: 'transcript' as const, version: 1 as const, createdAt: 1, ...header }
    writeFileSync(path, [systemBody({ header: base }), ...bodies].map((body, at) => line(body, from - 1 + at)).join(''))
  }
  const headerCrcOf = (path: string) => {
    const bytes = readFileSync(path)
    return hex8(readMark(bytes, 0, bytes.indexOf(0x0a))!.crc)
  }

  test('says so in its header: then it only has to reach as far', async () => {
    const { directory, path } = await marked()
    const replaces = [headerCrcOf(path)]
    remade(path, 7, { replaces })
    const store = await opened(directory)
    expect(await recordsOf(store.session('hurt').read())).toEqual(numbers(7, 10))
    expect(await store.session('hurt').append({ n: 11 })).toMatchObject({ seq: 11 })
    await store.close()
    const again = await opened(directory)
    expect(await recordsOf(again.session('hurt').read())).toEqual(numbers(7, 11))
    expect(storedMarks(directory).get('hurt')).toMatchObject({ seq: 11, header: Number.parseInt(headerCrcOf(path), 16) })
    await again.close()
    cut(path, 5)
    expect(await refusal(async () => (await opened(directory)).session('hurt').tail(1))).toMatchObject({ code: 'LOG_CORRUPT' })
  })

  test('and that does not say so is another file', async () => {
    const { directory, file, path } = await marked()
    remade(path, 7, { replaces: ['00000000'] })
    await assertRefused(await opened(directory), file)
  })

  test('and that ends before the mark has lost something, whatever it says', async () => {
    const { directory, file, path } = await marked()
    remade(path, 7, { replaces: [headerCrcOf(path)] })
    cut(path, 4)
    await assertRefused(await opened(directory), file)
  })
})

describe('a mark', () => {
  test('is not in an entry, however one looks at it, and users can neither set nor lose it', async () => {
    const { directory } = await marked()
    const before = storedMarks(directory).get('hurt')
    expect(before).toMatchObject({ seq: 10 })
    const store = await opened(directory)
    const fields = ['sessionId', 'createdAt', 'updatedAt', 'revision']
    const entry = (await store.get('hurt'))!
    expect(Object.keys(entry)).toEqual(fields)
    expect(entry.revision).toBe(1)
    for (const [, listed] of await entriesOf(store.entries())) expect(Object.keys(listed)).toEqual(fields)
    await store.withStoreLock((sessions) => {
      expect(Object.keys(sessions.get('hurt')!)).toEqual(fields)
      for (const [, listed] of sessions.entries()) expect(Object.keys(listed)).toEqual(fields)
      expect(sessions.patch('hurt', { patched: 1 })).not.toHaveProperty('$')
      expect(sessions.set('well', { fresh: 1 })).not.toHaveProperty('$')
    })
    expect(await store.update('hurt', (was) => ({ ...was, model: 'x' }))).toEqual({
      ...entry,
      patched: 1,
      model: 'x',
      revision: 3,
      updatedAt: expect.any(Number),
    })
    expect(storedMarks(directory).get('hurt')).toEqual(before)
    expect(storedMarks(directory).get('well')).toMatchObject({ seq: 1 })
    for (const set of [
      () => store.update('hurt', (was) => ({ ...was, $: '1.1.00000000.00000000' })),
      () => store.withStoreLock((sessions) => void sessions.patch('hurt', { $: 1 })),
      () => store.withStoreLock((sessions) => void sessions.set('other', { $: undefined })),
    ])
      expect(await refusal(set)).toMatchObject({ code: 'INVALID_ENTRY', effect: 'none' })
    await store.checkpoint()
    expect(storedMarks(directory).get('hurt')).toEqual(before)
  })

  test('is another one with another session: after a rotation, a deletion and a new beginning', async () => {
    const { directory } = await marked()
    const store = await opened(directory)
    await store.session('hurt').rotate()
    expect(storedMarks(directory).get('hurt')).toBeUndefined()
    expect(await recordsOf(store.session('hurt').read())).toEqual([])
    await store.session('hurt').append({ n: 1 })
    await store.withStoreLock((sessions) => {
      sessions.delete('well')
      sessions.set('well', { anew: true })
    })
    expect(storedMarks(directory).get('well')).toBeUndefined()
    expect(await recordsOf(store.session('well').read())).toEqual([])
    await store.delete('well')
    await store.session('well').append([{ n: 1 }, { n: 2 }])
    await store.close()
    expect(storedMarks(directory).get('hurt')).toMatchObject({ seq: 1 })
    expect(storedMarks(directory).get('well')).toMatchObject({ seq: 2 })
  })

  test('follows a turn within a second, in a commit that nobody is told of, and changes no revision', async () => {
    const directory = storeDirectory()
    const store = await opened(directory)
    const told: unknown[] = []
    const maintained: unknown[] = []
    const onCommit = (message: unknown) => void told.push(message)
    const onMaintenance = (message: unknown) => void maintained.push(message)
    await Promise.all(Array.from({ length: 5 }, (_, n) => store.runTurn(`k${n}`, { input: { n } }, (turn) => turn.append({ n }))))
    diagnostics.subscribe('holdfast:commit', onCommit)
    diagnostics.subscribe('holdfast:maintenance', onMaintenance)
    onTestFinished(() => {
      diagnostics.unsubscribe('holdfast:commit', onCommit)
      diagnostics.unsubscribe('holdfast:maintenance', onMaintenance)
    })
    expect([...storedMarks(directory).values()]).toEqual(Array(5).fill(undefined))
    await sleep(1_000)
    const marks = [...storedMarks(directory).values()]
    for (const mark of marks) expect(mark?.seq).toBeGreaterThanOrEqual(3)
    expect(told).toEqual([])
    expect(maintained).toEqual([{ event: 'marks', sessions: 5 }])
    for (const [, { revision }] of await entriesOf(store.entries())) expect(revision).toBe(1)
    // Nothing has been added: nothing is to be said.
    await sleep(700)
    expect(maintained).toHaveLength(1)
  })

  test('of a session that has had to make room for others is written all the same', async () => {
    const directory = storeDirectory()
    const store = await opened(directory)
    for (let n = 0; n < 300; n++) await store.session(`k${n}`).append({ n })
    await store.close()
    const marks = [...storedMarks(directory).values()]
    expect(marks).toHaveLength(300)
    for (const mark of marks) expect(mark).toMatchObject({ seq: 1 })
  })

  test('with durability process is written at a checkpoint, after a sync, and not before', async () => {
    const directory = storeDirectory()
    const store = await opened(directory, { durability: 'process' })
    await store.runTurn('k', { input: { n: 1 } }, (turn) => turn.append({ n: 2 }))
    await sleep(700)
    expect(storedMarks(directory).get('k')).toBeUndefined()
    const { syncs } = store.stats()
    await store.checkpoint()
    expect(storedMarks(directory).get('k')?.seq).toBeGreaterThanOrEqual(3)
    expect(store.stats().syncs).toBeGreaterThan(syncs)
  })

  test('speaks of the record that it names: seq, end of the line, crc, and crc of the header', async () => {
    const { directory, path } = await marked()
    const bytes = readFileSync(path)
    const header = readMark(bytes, 0, bytes.indexOf(0x0a))!
    const last = readMark(bytes, bytes.lastIndexOf(0x0a, bytes.length - 2) + 1, bytes.length - 1)!
    expect(storedMarks(directory).get('hurt')).toEqual({ seq: 10, bytes: bytes.length, crc: last.crc, header: header.crc })
  })

  test('is missed by nobody: a copy of the store without marks opens, and gets them', async () => {
    const { directory } = await marked()
    const old = storeDirectory()
    cpSync(directory, old, { recursive: true })
    rmSync(join(old, 'locks'), { recursive: true })
    // As a version before marks would have left it: the journal is empty, and names the snapshot's hash.
    const { createHash } = await import('node:crypto')
    const snapshot = readFileSync(join(old, 'sessions.json'), 'utf8').replace(/,"\$":"[^"]*"/g, '')
    writeFileSync(join(old, 'sessions.json'), snapshot)
    const base = createHash('sha256').update(snapshot).digest('hex')
    const body = systemBody({ header: { log: 'journal', version: 1, base, createdAt: 1 } })
    writeFileSync(
      join(old, 'sessions.journal.jsonl'),
      encodeLine(body, { seq: 0, left: 0, synced: -1, writer: '000000000000', prev: 0 }).line,
    )
    const store = await opened(old)
    expect(await recordsOf(store.session('hurt').read())).toEqual(numbers(1, 10))
    await store.session('hurt').append({ n: 11 })
    await store.close()
    expect(storedMarks(old).get('hurt')).toMatchObject({ seq: 11 })
    expect(storedMarks(old).get('well')).toBeUndefined()
  })
})

/** Compaction of bytes: the transcript is written anew without what can go, the whole of the old one is kept, and nobody who uses the session
 *  can tell (P1, P4; F29). */
import fs from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { SessionStore } from '../../../src/store.js'
import type { StoredRecord } from '../../../src/types.js'
import { readLog } from '../../log/log-text.js'
import { opened } from '../../metadata/store-directory.js'
import { freshStore, said, staying, textsOf } from '../../turns/conversation.js'

const numbered = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => said(`${from + at}`))

async function collected(records: AsyncIterable<StoredRecord>): Promise<StoredRecord[]> {
  const all: StoredRecord[] = []
  for await (const record of records) all.push(record)
  return all
}

async function transcriptOf(directory: string, store: SessionStore, key = 'k'): Promise<string> {
  return join(directory, 'transcripts', `${(await store.get(key))!.sessionId}.jsonl`)
}

/** Ten records, of which eight are behind a summary; then a line that its writer could not finish. */
async function worn() {
  const { directory, store } = await freshStore()
  const session = store.session('k')
  await session.append(numbered(1, 4), { id: 'first' })
  await session.append(numbered(5, 10))
  await session.compact({ keepLast: 2, summarize: (records) => `${records.length} records` })
  const path = await transcriptOf(directory, store)
  fs.appendFileSync(path, '{"type":"message","text":"cut of')
  await session.append(said('11'))
  return { directory, store, session, path }
}

describe('a compacted transcript', () => {
  test('holds what stays, under the numbers that it had; the whole of the old file is in the archive', async () => {
    const { directory, store, session, path } = await worn()
    const before = fs.readFileSync(path)
    const receipt = await session.compactBytes()
    expect(receipt).toMatchObject({ compacted: true, from: 9, bytesBefore: expect.any(Number), archive: expect.any(String) })
    const archived = fs.readFileSync(join(directory, 'archive', receipt.archive!))
    expect(archived.subarray(0, before.length).equals(before)).toBe(true)
    expect(readLog(archived, { boot: '0000' }).chain.seal).toMatchObject({ reason: 'compacted', from: 9 })
    const after = fs.readFileSync(path)
    expect(after.length).toBe(receipt.bytesAfter)
    const { chain, damage, seqs } = readLog(after, { boot: '0000' })
    expect(damage).toBeUndefined()
    expect(chain.voidLines).toBe(0)
    expect(seqs[0]).toBe(8)
    expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, at) => 8 + at))
    expect(textsOf(await collected(session.read()))).toEqual(['9', '10', '11'])
    expect(textsOf(await collected(session.read({ compacted: true })))).toEqual(['8 records', '9', '10', '11'])
    expect(fs.readdirSync(join(directory, 'locks', 'prepared'))).toEqual([])
    expect((await store.verify()).damage).toEqual([])
  })

  test('takes what comes: appends, turns, rotations, by handles that had it open and by those that had not', async () => {
    const { directory, store, session } = await worn()
    const other = await opened(directory)
    const before = await other.session('k').append(said('12'))
    await session.compactBytes()
    const { seq } = await other.session('k').append(said('13'))
    expect(seq).toBeGreaterThan(before.seq + 1)
    await expect(other.session('k').append(said('x'), { expectedSeq: before.seq })).rejects.toMatchObject({ code: 'SEQ_CONFLICT' })
    await other.session('k').append(said('14'), { expectedSeq: seq })
    const third = await opened(directory)
    await third.session('k').append(said('15'))
    await third.runTurn('k', { input: said('16') }, (turn) => turn.append(said('17')))
    expect(textsOf(await collected(session.read()))).toEqual(['9', '10', '11', '12', '13', '14', '15', '16', '17'])
    expect(textsOf(await third.session('k').tail(2))).toEqual(['16', '17'])
    await store.session('k').rotate()
    expect(fs.readdirSync(join(directory, 'archive'))).toHaveLength(2)
    expect((await store.verify()).damage).toEqual([])
  })

  test('whoever knows the last number may append on the strength of it, though everything was summarized', async () => {
    const { directory, store } = await freshStore()
    const session = store.session('k')
    const { seq } = await session.append(numbered(1, 5))
    await session.compact({ keepLast: 0, summarize: () => 'all' })
    expect(await session.compactBytes()).toMatchObject({ compacted: true, from: 5 })
    await (await opened(directory)).session('k').append(said('6'), { expectedSeq: seq })
    expect(textsOf(await session.tail(9, { compacted: true }))).toEqual(['all', '6'])
  })

  test('remembers the ids of records that are gone, as often as it is compacted', async () => {
    const { directory, session } = await worn()
    const first = await session.append(said('again'), { id: 'first' })
    expect(first).toMatchObject({ duplicate: true, seq: 4, seqs: [1, 2, 3, 4] })
    for (let n = 0; n < 3; n++) {
      await session.append(said('more'), { id: `more-${n}` })
      await session.compact({ keepLast: 0, summarize: () => 's' })
      expect(await session.compactBytes()).toMatchObject({ compacted: true })
      for (const handle of [session, (await opened(directory)).session('k')])
        expect(await handle.append(said('again'), { id: 'first' })).toEqual(first)
    }
    expect(await session.append(said('again'), { id: 'more-0' })).toMatchObject({ duplicate: true })
    expect(fs.readdirSync(join(directory, 'archive')).length).toBe(3)
  })

  test('answers a request that was answered before, with its value, though its turn is in the archive', async () => {
    const { directory, store } = await freshStore()
    const session = store.session('k')
    const ask = (handle: SessionStore, requestId: string) =>
      handle.runTurn('k', { requestId, input: said(requestId) }, (turn) => ({ n: turn.turn }))
    const [one, two] = [await ask(store, 'r-1'), await ask(store, 'r-2')]
    await session.compact({ keepLast: 1, summarize: () => 's' })
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    await session.append(said('x'))
    await session.compact({ keepLast: 1, summarize: () => 's' })
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    for (const handle of [store, await opened(directory)]) {
      expect(await ask(handle, 'r-1')).toMatchObject({ outcome: 'duplicate', turn: one.turn, value: { n: 1 } })
      expect(await ask(handle, 'r-2')).toMatchObject({ outcome: 'duplicate', turn: two.turn, value: { n: 2 } })
    }
    expect((await ask(store, 'r-3')).turn).toBe(3)
  })
})

describe('what stays', () => {
  test('an active turn and all that belongs to it: it goes on', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await session.append(numbered(1, 3))
    const active = await staying(store, 'k', { input: said('a') })
    await active.turn.append(numbered(4, 6))
    await session.compact({ keepLast: 0, summarize: () => 's' })
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    await active.turn.append(said('7'))
    expect(textsOf(await active.turn.tail(9, { compacted: true }))).toEqual(['s', '7'])
    active.go('done')
    expect(await active.result).toMatchObject({ outcome: 'completed', value: 'done' })
  })

  test('an input that no turn has taken: it is answered afterwards, by whoever comes', async () => {
    const { directory, store } = await freshStore()
    const session = store.session('k')
    await session.append(numbered(1, 3))
    const active = await staying(store, 'k')
    await store.runTurn('k', { input: said('left'), whenBusy: 'coalesce' }, () => expect.fail('it ran'))
    await active.turn.append(said('4'))
    await session.compact({ keepLast: 0, summarize: () => 's' })
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    expect(textsOf(await active.turn.pending())).toEqual(['left'])
    active.go()
    await active.result
    const seen = await (await opened(directory)).runTurn('k', {}, async (turn) => textsOf(await turn.tail(9, { compacted: true })))
    expect(seen.value).toEqual(['s', '4', 'left'])
  })

  test('everything, when nothing can go: then nothing is written', async () => {
    const { directory, store } = await freshStore()
    const session = store.session('k')
    expect(await session.compactBytes()).toMatchObject({ compacted: false, sessionId: undefined })
    await session.append(numbered(1, 3))
    const path = await transcriptOf(directory, store)
    const before = fs.statSync(path)
    expect(await session.compactBytes()).toMatchObject({ compacted: false, archive: undefined })
    expect(fs.statSync(path)).toMatchObject({ ino: before.ino, size: before.size })
    await session.compact({ keepLast: 1, summarize: () => 's' })
    expect(await session.compactBytes({ minBytes: 1 << 20 })).toMatchObject({ compacted: false })
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    expect(await session.compactBytes()).toMatchObject({ compacted: false })
  })

  test('lines of another program in front, until a summary stands for all of them', async () => {
    const { directory, store } = await freshStore()
    const { sessionId } = await store.update('k', () => ({}))
    const path = join(directory, 'transcripts', `${sessionId}.jsonl`)
    fs.writeFileSync(path, '{"text":"f1"}\n{"text":"f2"}\n')
    const session = store.session('k')
    await session.append(said('a'))
    fs.appendFileSync(path, '{"type":"mess')
    await session.append(said('b'))
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    expect(textsOf(await collected(session.read()))).toEqual(['f1', 'f2', 'a', 'b'])
    await session.compact({ keepLast: 1, summarize: () => 's' })
    expect(await session.compactBytes()).toMatchObject({ compacted: true })
    expect(textsOf(await collected(session.read()))).toEqual(['b'])
    expect((await store.verify()).damage).toEqual([])
  })
})

test('a damaged transcript is not compacted: LOG_CORRUPT, and every byte stays', async () => {
  const { session, path } = await worn()
  const bytes = fs.readFileSync(path)
  bytes[bytes.indexOf('"5"') + 1]! ^= 1
  fs.writeFileSync(path, bytes)
  await expect(session.compactBytes()).rejects.toMatchObject({ code: 'LOG_CORRUPT', effect: 'none' })
  expect(fs.readFileSync(path).equals(bytes)).toBe(true)
})

test('readers that have begun before it read to the end of what they began with', async () => {
  const { session } = await worn()
  const reading = session.read()[Symbol.asyncIterator]()
  const first = await reading.next()
  await session.compactBytes()
  const rest: StoredRecord[] = []
  for (let next = await reading.next(); !next.done; next = await reading.next()) rest.push(next.value)
  expect(textsOf([first.value as StoredRecord, ...rest])).toEqual(['1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11'])
})

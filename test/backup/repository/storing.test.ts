/** What goes into a repository comes out again, and goes in only once. */
import fs from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createRepository, openRepository } from '../../../src/backup/repository/open.js'
import type { PreviousFile, Repository } from '../../../src/backup/repository/repository.js'
import {
  contentsOf,
  digest,
  digested,
  factsOf,
  noise,
  objectsIn,
  piecesOf,
  plainFacts,
  readAll,
  snapshotOf,
  temporaryDirectory,
  transcript,
} from './depot.js'

let place: string
let repository: Repository

beforeEach(async () => {
  place = temporaryDirectory()
  repository = (await createRepository(place)).repository
})

afterEach(async () => {
  await repository.close()
  fs.rmSync(place, { recursive: true, force: true })
})

const bytesIn = (directory: string) => objectsIn(directory).reduce((sum, name) => sum + fs.statSync(`${directory}/${name}`).size, 0)

describe('a snapshot', () => {
  test('gives every file back as it was, after the repository has been opened again', async () => {
    const files = { empty: Buffer.alloc(0), 'one/byte': Buffer.from('x'), text: transcript(3_000_000), noise: noise(2_500_000) }
    const { info } = await snapshotOf(repository, files)
    const again = await openRepository(place)
    expect(await contentsOf(again, info.id)).toEqual(digested(files))
    expect((await again.snapshots()).map((it) => it)).toEqual([info])
    expect(info).toMatchObject({ files: 4, sessions: 0, bytes: 5_500_001, damaged: false })
    expect((await again.check({ deep: true })).ok).toBe(true)
    await again.close()
  })

  test('does not exist before it is committed, nor when it is given up', async () => {
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    await writer.file(factsOf('a'), piecesOf(transcript(10_000)))
    expect(await repository.snapshots()).toEqual([])
    await writer.abandon()
    expect(await repository.snapshots()).toEqual([])
    expect(objectsIn(place, 'running/')).toEqual([])
  })

  test('carries all facts of its rows', async () => {
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    const session = { key: 'agent:main:"x"', sessionId: 'id', lastSeq: 7, lastCrc: '0000abcd', headerCrc: '00000001', settledBytes: 10 }
    const facts = factsOf('a', { session, identity: { dev: 1, ino: 2, size: 10, ctimeMs: 3.5 }, findings: ['torn-tail'] })
    await writer.file(facts, piecesOf(Buffer.from('0123456789')))
    await writer.file(factsOf('d', { type: 'directory', role: 'included' }))
    await writer.file(factsOf('l', { type: 'symlink', linkTo: '../x', role: 'included' }))
    const { id } = await writer.commit({ ...plainFacts, damaged: true, findings: ['one'], extra: { note: 1 } })
    const { info, files } = await repository.manifest(id.slice(0, -2))
    expect(info).toMatchObject({ damaged: true, findings: ['one'], extra: { note: 1 }, sessions: 1 })
    expect(files).toMatchObject([facts, { path: 'd', type: 'directory', bytes: 0 }, { path: 'l', linkTo: '../x' }])
  })

  test('refuses paths that could lead out of a restored directory, and the same path twice', async () => {
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    for (const path of ['', '/a', '../a', 'a/../b', 'a//b', './a', 'a/', 'a\0b'])
      await expect(writer.file(factsOf(path), piecesOf(Buffer.from('x')))).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await writer.file(factsOf('a'), piecesOf(Buffer.from('x')))
    await expect(writer.file(factsOf('a'), piecesOf(Buffer.from('x')))).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await writer.abandon()
  })

  test('goes on without a file that could not be read', async () => {
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    const broken = async function* () {
      yield transcript(100_000)
      throw new Error('EIO')
    }
    await expect(writer.file(factsOf('a'), broken)).rejects.toThrow('EIO')
    await writer.file(factsOf('b'), piecesOf(Buffer.from('b')))
    const { id } = await writer.commit(plainFacts)
    expect(await contentsOf(repository, id)).toEqual(digested({ b: Buffer.from('b') }))
  })
})

describe('what is there already is not stored again', () => {
  test('the same files cost a manifest', async () => {
    const files = { a: noise(1_000_000), b: noise(300_000) }
    await snapshotOf(repository, files)
    const before = bytesIn(place)
    const { info, stored } = await snapshotOf(repository, files)
    expect(bytesIn(place) - before).toBeLessThan(2_000)
    expect([...stored.values()].map(({ newBytes }) => newBytes)).toEqual([0, 0])
    expect(await contentsOf(repository, info.id)).toEqual(digested(files))
  })

  test('a file that has grown costs its new end, and only that is read', async () => {
    const whole = noise(2_000_000)
    const { stored } = await snapshotOf(repository, { a: whole.subarray(0, 1_980_000) })
    const previous = new Map<string, PreviousFile>([['a', { row: stored.get('a')!.row, keepBytes: 1_980_000 }]])
    const before = bytesIn(place)
    const second = await snapshotOf(repository, { a: whole }, { previous })
    expect(second.stored.get('a')).toMatchObject({ readFrom: 1_980_000, readBytes: 20_000, newBytes: 20_000 })
    expect(bytesIn(place) - before).toBeLessThan(24_000)
    expect(await contentsOf(repository, second.info.id)).toEqual(digested({ a: whole }))
  })

  test('bytes put into the middle of a file cost the chunks around them', async () => {
    const whole = noise(4_000_000)
    await snapshotOf(repository, { a: whole })
    const changed = Buffer.concat([whole.subarray(0, 2_000_000), Buffer.from('something new'), whole.subarray(2_000_000)])
    const { stored } = await snapshotOf(repository, { a: changed })
    expect(stored.get('a')!.newBytes).toBeLessThan(2_100_000)
  })

  test('a file that grows by a little fifty times has few chunks, and costs little each time', async () => {
    const whole = noise(150_000)
    let previous: PreviousFile | undefined
    let newBytes = 0
    for (let bytes = 3_000; bytes <= whole.length; bytes += 3_000) {
      const writer = await repository.begin({ storeId: 's', host: 'h' })
      const stored = await writer.file(factsOf('a'), piecesOf(whole.subarray(0, bytes)), previous)
      await writer.commit(plainFacts)
      previous = { row: stored.row, keepBytes: bytes }
      newBytes += stored.newBytes
    }
    expect(previous!.row.chunks.length).toBeLessThan(25)
    expect(newBytes).toBeLessThan(4 * whole.length)
    expect(digest(await readAll(repository, previous!.row))).toBe(digest(whole))
    expect(digest(await readAll(repository, previous!.row, 73_456))).toBe(digest(whole.subarray(73_456)))
  })

  test('an unchanged file is not even opened, unless its chunks are gone', async () => {
    const bytes = transcript(400_000)
    const { stored } = await snapshotOf(repository, { a: bytes })
    const previous = { row: stored.get('a')!.row, keepBytes: bytes.length, whole: true }
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    const second = await writer.file(factsOf('a'), () => expect.fail('opened'), previous)
    expect(second).toMatchObject({ readFrom: undefined, readBytes: 0, row: { sha256: previous.row.sha256 } })
    await writer.commit(plainFacts)
    for (const name of objectsIn(place, 'packs/')) fs.rmSync(`${place}/${name}`)
    const third = await repository.begin({ storeId: 's', host: 'h' })
    expect(await third.file(factsOf('a'), piecesOf(bytes), previous)).toMatchObject({ readFrom: 0, newBytes: bytes.length })
    const { id } = await third.commit(plainFacts)
    expect(await contentsOf(repository, id)).toEqual(digested({ a: bytes }))
  })

  test('reading again what is thought unchanged finds where it is not', async () => {
    const bytes = noise(3_000_000)
    const { stored } = await snapshotOf(repository, { a: bytes })
    const previous = { row: stored.get('a')!.row, keepBytes: bytes.length, reread: true }
    const again = await snapshotOf(repository, { a: bytes }, { previous: new Map([['a', previous]]) })
    expect(again.stored.get('a')).toMatchObject({ changed: undefined, newBytes: 0, readBytes: bytes.length })
    const altered = Buffer.concat([bytes, Buffer.from('and more')])
    altered[1_500_000]! ^= 1
    const third = await snapshotOf(repository, { a: altered }, { previous: new Map([['a', previous]]) })
    const { changed, row } = third.stored.get('a')!
    expect(changed!.from).toBeLessThanOrEqual(1_500_000)
    expect(changed!.to).toBeGreaterThan(1_500_000)
    expect(changed!.to - changed!.from).toBeLessThanOrEqual(1 << 20)
    expect(digest(await readAll(repository, row))).toBe(digest(altered))
    const short = await snapshotOf(repository, { a: bytes.subarray(0, 1_000_000) }, { previous: new Map([['a', previous]]) })
    expect(short.stored.get('a')!.changed!.to).toBe(bytes.length)
    expect(digest(await readAll(repository, short.stored.get('a')!.row))).toBe(digest(bytes.subarray(0, 1_000_000)))
  })

  test('an interrupted backup sends nothing twice', async () => {
    const files = Array.from({ length: 12 }, () => noise(1_000_000))
    const small = await createRepository(`${place}/small`, { packBytes: 200_000 })
    const first = await small.repository.begin({ storeId: 's', host: 'h' })
    for (const [number, bytes] of files.slice(0, 10).entries()) await first.file(factsOf(`f${number}`), piecesOf(bytes))
    await first.abandon()
    const second = await small.repository.begin({ storeId: 's', host: 'h' })
    let newBytes = 0
    for (const [number, bytes] of files.entries()) newBytes += (await second.file(factsOf(`f${number}`), piecesOf(bytes))).newBytes
    await second.commit(plainFacts)
    expect(newBytes).toBeLessThan(2_000_000 + 3_500_000)
    await small.repository.close()
  })
})

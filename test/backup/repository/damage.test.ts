/** A repository that has been damaged says where, and gives back everything else. */
import fs from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { EncryptionOptions } from '../../../src/backup/repository/access.js'
import { createRepository, openRepository } from '../../../src/backup/repository/open.js'
import type { Repository } from '../../../src/backup/repository/repository.js'
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

beforeEach(() => {
  place = temporaryDirectory()
})

afterEach(() => {
  fs.rmSync(place, { recursive: true, force: true })
})

const shared = noise(150_000)
const first = { shared, one: transcript(150_000, 1) }
const second = { shared, two: transcript(150_000, 2) }

/** Two snapshots that share a file. Small packs, so that one flip does not hit all. */
async function made(encryption?: EncryptionOptions): Promise<{ repository: Repository; ids: [string, string] }> {
  const { repository } = await createRepository(place, { packBytes: 20_000, encryption })
  const one = await snapshotOf(repository, first)
  const two = await snapshotOf(repository, second)
  return { repository, ids: [one.info.id, two.info.id] }
}

function alter(name: string, change: (bytes: Buffer) => Uint8Array): void {
  fs.writeFileSync(`${place}/${name}`, change(fs.readFileSync(`${place}/${name}`)))
}

/** Those of lists of files are smaller. */
const contentsPacks = () => objectsIn(place, 'packs/').filter((name) => fs.statSync(`${place}/${name}`).size > 10_000)

const flip = (bytes: Buffer) => {
  bytes[bytes.length >> 1]! ^= 0x10
  return bytes
}
const cut = (bytes: Buffer) => bytes.subarray(0, bytes.length - 20)
const nuls = (bytes: Buffer) => bytes.fill(0, bytes.length >> 1)

/** Every file that can be read is as it was; which ones cannot. */
async function survivors(repository: Repository, ids: readonly string[]): Promise<string[]> {
  const lost: string[] = []
  for (const [at, id] of ids.entries()) {
    const expected = digested([first, second][at]!)
    try {
      for (const row of (await repository.manifest(id)).files) {
        try {
          expect(digest(await readAll(repository, row))).toBe(expected[row.path])
        } catch (error) {
          expect(error).toMatchObject({ code: 'BACKUP_MISMATCH' })
          lost.push(`${at}:${row.path}`)
        }
      }
    } catch (error) {
      expect(error).toMatchObject({ code: 'BACKUP_MISMATCH' })
      lost.push(`${at}`)
    }
  }
  return lost
}

const keys: EncryptionOptions = { passphrase: 'a passphrase', passphraseWork: 4 }

describe.each([
  ['without encryption', undefined],
  ['with encryption', keys],
])('%s', (_, encryption) => {
  test('flipped bits, a cut end or NUL bytes in any one object are named by a deep check, and cost only what is in it', async () => {
    const { repository, ids } = await made(encryption)
    await repository.close()
    const names = objectsIn(place).filter((name) => !name.startsWith('tmp/'))
    expect(new Set(names.map((name) => name.split('/')[0]))).toEqual(
      new Set(['holdfast-backup.json', 'holdfast-backup.copy.json', 'packs', 'index', 'snapshots']),
    )
    for (const [at, name] of names.entries()) {
      const pristine = fs.readFileSync(`${place}/${name}`)
      alter(name, [flip, cut, nuls][at % 3]!)
      const again = await openRepository(place, { encryption: encryption && { passphrase: encryption.passphrase } })
      const report = await again.check({ deep: true })
      expect(report.ok, name).toBe(false)
      const isNamed = report.objects.some(({ object }) => object === name)
      const isManifest = name.startsWith('snapshots/')
      expect(isNamed || (isManifest && report.snapshots.some(({ id, problem }) => name.includes(id) && problem)), name).toBe(true)
      const lost = await survivors(again, ids)
      // What the check says of files is what reading says.
      const told = report.snapshots.flatMap(({ id, files, problem }) => {
        const number = ids.indexOf(id as never)
        return problem === undefined ? files.map(({ path }) => `${number}:${path}`) : [`${number}`]
      })
      expect(new Set(told), name).toEqual(new Set(lost))
      if (isManifest) expect(lost).toHaveLength(1)
      // One pack has chunks of one file, or the list of one snapshot.
      else if (name.startsWith('packs/')) expect(new Set(lost.map((it) => it.split(':')[1] ?? it)).size, name).toBeLessThanOrEqual(1)
      else if (name.startsWith('holdfast-backup')) expect(lost).toEqual([])
      await again.close()
      fs.writeFileSync(`${place}/${name}`, pristine)
    }
  })
})

test('an object that is missing is named without reading contents', async () => {
  const { repository, ids } = await made()
  const pack = contentsPacks()[0]!
  fs.rmSync(`${place}/${pack}`)
  const report = await (await openRepository(place)).check()
  expect(report.objects).toEqual([{ object: pack, problem: 'it is missing' }])
  expect(report.snapshots.some(({ ok }) => !ok)).toBe(true)
  // The next backup stores again what is gone: both are whole then.
  await snapshotOf(repository, { ...first, ...second })
  expect((await repository.check({ deep: true })).snapshots.map(({ ok }) => ok)).toEqual([true, true, true])
  expect(await survivors(repository, ids)).toEqual([])
})

test('an index that is lost is made anew from the packs', async () => {
  const { repository, ids } = await made()
  for (const name of objectsIn(place, 'index/')) fs.rmSync(`${place}/${name}`)
  const again = await openRepository(place)
  expect((await again.check()).ok).toBe(false)
  await again.prune()
  expect((await again.check({ deep: true })).ok).toBe(true)
  expect(await survivors(again, ids)).toEqual([])
  await repository.close()
})

test('one valid object in the place of another is noticed', async () => {
  const { repository, ids } = await made()
  const pristine = fs.readFileSync(`${place}/snapshots/${ids[1]}.json.gz`)
  fs.copyFileSync(`${place}/snapshots/${ids[0]}.json.gz`, `${place}/snapshots/${ids[1]}.json.gz`)
  await expect(repository.manifest(ids[1])).rejects.toMatchObject({ code: 'BACKUP_MISMATCH' })
  fs.writeFileSync(`${place}/snapshots/${ids[1]}.json.gz`, pristine)
  const [one, other] = objectsIn(place, 'packs/')
  fs.copyFileSync(`${place}/${one}`, `${place}/${other}`)
  const again = await openRepository(place)
  expect((await again.check({ deep: true })).objects.map(({ object }) => object)).toContain(other)
  await repository.close()
})

test('a whole pack of the same shape in the place of another yields nothing of its own', async () => {
  const { repository } = await createRepository(place, { packBytes: 10_000 })
  const { info } = await snapshotOf(repository, { a: noise(15_000), b: noise(15_000) })
  const [one, other] = contentsPacks()
  // Each has one chunk, of the same length as the other's; their tables and trailers stay where they are.
  const source = fs.readFileSync(`${place}/${one}`)
  const member = source.length - 16 - Number(source.subarray(-16).toString())
  alter(other!, (bytes) => Buffer.concat([source.subarray(0, member), bytes.subarray(member)]))
  const again = await openRepository(place)
  const outcomes = await Promise.allSettled((await again.manifest(info.id)).files.map((row) => readAll(again, row)))
  expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  expect((await again.check()).ok).toBe(true)
  expect((await again.check({ deep: true })).snapshots[0]!.files).toHaveLength(1)
  await repository.close()
})

test('what a deep check has found damaged can be condemned: the next backup stores it anew, and old snapshots are whole again', async () => {
  const { repository, ids } = await made()
  const pack = contentsPacks()[0]!
  alter(pack, flip)
  expect((await repository.check({ deep: true })).ok).toBe(false)
  expect((await repository.check({ deep: true, condemn: true })).ok).toBe(false)
  const again = await openRepository(place)
  await snapshotOf(again, { ...first, ...second })
  expect((await again.check({ deep: true })).snapshots.map(({ ok }) => ok)).toEqual([true, true, true])
  expect(await survivors(again, ids)).toEqual([])
  await again.prune()
  expect(await again.check({ deep: true })).toMatchObject({ ok: true })
  expect(fs.existsSync(`${place}/${pack}`)).toBe(false)
  await repository.close()
})

test('while a manifest cannot be read, nothing is pruned; it can be forgotten by its id', async () => {
  const { repository, ids } = await made()
  alter(`snapshots/${ids[0]}.json.gz`, flip)
  await expect(repository.prune()).rejects.toMatchObject({ code: 'BACKUP_MISMATCH', details: { snapshot: ids[0] } })
  await repository.forget({ keepLast: 0 })
  expect((await repository.snapshots()).map(({ id }) => id)).toEqual([ids[1], ids[0]])
  await repository.forget({ snapshots: [ids[0]] })
  expect((await repository.prune()).packsRemoved).toBeGreaterThan(0)
  expect(await contentsOf(repository, ids[1])).toEqual(digested(second))
  expect((await repository.check({ deep: true })).ok).toBe(true)
})

test('bytes that unpack to more than they should are refused, not unpacked', async () => {
  const { repository } = await made()
  const { gzipSync } = await import('node:zlib')
  const writer = await repository.begin({ storeId: 's', host: 'h' })
  await writer.file(factsOf('a'), piecesOf(Buffer.from('small')))
  const { id } = await writer.commit(plainFacts)
  const bomb = gzipSync(Buffer.alloc(80 << 20), { level: 1 })
  fs.writeFileSync(`${place}/snapshots/${id}.json.gz`, bomb)
  await expect(repository.manifest(id)).rejects.toMatchObject({ code: 'BACKUP_MISMATCH' })
})

test('a place without a repository, one made by a newer version, and one whose description is lost are told apart', async () => {
  await expect(openRepository(place)).rejects.toMatchObject({ code: 'NOT_FOUND' })
  const { repository } = await made()
  await repository.close()
  await expect(createRepository(place)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  for (const name of ['holdfast-backup.json', 'holdfast-backup.copy.json']) alter(name, flip)
  await expect(openRepository(place)).rejects.toMatchObject({ code: 'BACKUP_MISMATCH' })
  const { encodeConfig } = await import('../../../src/backup/repository/config.js')
  const newer = encodeConfig({ format: 2 as 1, repository: 'x', createdAt: '', packBytes: 1, encryption: null })
  fs.writeFileSync(`${place}/holdfast-backup.json`, newer)
  await expect(openRepository(place)).rejects.toMatchObject({ code: 'STORE_FORMAT_UNSUPPORTED' })
})

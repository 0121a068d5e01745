/** Whoever dies, at whatever call to the target, leaves complete snapshots only; and a disk that fails, or is full, leaves nothing half. */
import fs from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { plainKeyring } from '../../../src/backup/encryption/keyring.js'
import { ObjectRepository } from '../../../src/backup/repository/object-repository.js'
import { DirectoryTarget } from '../../../src/backup/targets/directory.js'
import type { Target } from '../../../src/backup/targets/target.js'
import { type Disk, nodeDisk } from '../../../src/file/durable.js'
import { faultyDisk } from '../../faults/faulty-disk.js'
import { mayMount, mountTmpfs } from '../../faults/mounts.js'
import { contentsOf, digested, factsOf, noise, objectsIn, piecesOf, plainFacts, snapshotOf, temporaryDirectory } from './depot.js'
import { MemoryTarget, type Shared } from './memory-target.js'

const over = (target: Target) => new ObjectRepository({ repositoryId: 'r', target, keyring: plainKeyring(), packBytes: 20_000 })

const files = { a: noise(50_000), b: noise(50_000), c: noise(100) }
const more = { a: files.a, d: noise(50_000) }

class Dead extends Error {}

/** A machine that dies at its n-th call: before it takes effect, or after. */
function mortal(shared: Shared, nth: number, isAfter: boolean): { target: MemoryTarget; died: () => boolean } {
  let calls = 0
  let isDead = false
  const target = new MemoryTarget(shared, '', async () => {
    if (isDead) throw new Dead()
    if (++calls < nth) return
    isDead = true
    if (!isAfter) throw new Dead()
  })
  return { target, died: () => isDead }
}

const copyOf = (shared: Shared): Shared => ({ objects: new Map(shared.objects), nowMs: shared.nowMs })

/** Everything that is complete is whole; a later backup and prune put everything in order. */
async function assertSound(shared: Shared, expected: Readonly<Record<string, Readonly<Record<string, Buffer>>>>): Promise<string[]> {
  const repository = over(new MemoryTarget(shared))
  const complete = (await repository.snapshots()).map(({ id }) => id)
  expect((await repository.check({ deep: true })).snapshots.every(({ ok }) => ok)).toBe(true)
  for (const id of complete) expect(await contentsOf(repository, id)).toEqual(digested(expected[id] ?? more))
  const { info } = await snapshotOf(repository, more)
  shared.nowMs += 10_000_000
  await repository.prune({ staleMs: 1_000, repackBelow: 1 })
  await repository.prune({ staleMs: 1_000, repackBelow: 1 })
  expect(await repository.check({ deep: true })).toMatchObject({ ok: true, unusedBytes: 0 })
  expect(await contentsOf(repository, info.id)).toEqual(digested(more))
  expect([...shared.objects.keys()].filter((name) => /^(running|condemned)/.test(name))).toEqual([])
  return complete
}

describe('a machine that dies at any call', () => {
  test('of a backup leaves the snapshots before, and its own whole or not at all', async () => {
    const start: Shared = { objects: new Map(), nowMs: 0 }
    const before = (await snapshotOf(over(new MemoryTarget(start)), files)).info.id
    const committed: boolean[] = []
    for (let nth = 1; ; nth++) {
      const shared = copyOf(start)
      const { target, died } = mortal(shared, nth, nth % 2 === 0)
      await snapshotOf(over(target), more).catch((error: unknown) => expect(error).toBeInstanceOf(Dead))
      const complete = await assertSound(shared, { [before]: files })
      expect(complete).toContain(before)
      committed.push(complete.length === 2)
      if (!died()) break
    }
    // Not there, not there, …, there: it comes into being at one call.
    expect(committed.length).toBeGreaterThan(10)
    expect(committed.lastIndexOf(false)).toBeLessThan(committed.indexOf(true))
  })

  test('of a prune leaves every snapshot whole, and the next one finishes its work', async () => {
    const start: Shared = { objects: new Map(), nowMs: 0 }
    const first = over(new MemoryTarget(start))
    const forgotten = (await snapshotOf(first, files)).info.id
    const kept = (await snapshotOf(first, more)).info.id
    await first.forget({ snapshots: [forgotten] })
    for (let nth = 1; ; nth++) {
      const shared = copyOf(start)
      const { target, died } = mortal(shared, nth, nth % 2 === 0)
      await over(target)
        .prune({ repackBelow: 1 })
        .catch((error: unknown) => expect(error).toBeInstanceOf(Dead))
      expect(await assertSound(shared, {})).toEqual([kept])
      if (!died()) break
      expect(nth).toBeLessThan(200)
    }
  })
})

describe('a directory', () => {
  let place: string

  beforeEach(() => {
    place = temporaryDirectory()
  })

  afterEach(() => {
    fs.rmSync(place, { recursive: true, force: true })
  })

  const faults = [
    ['write', 'ENOSPC', 'DISK_FULL'],
    ['write', 'short', undefined],
    ['write', 'torn', 'IO_FAILED'],
    ['sync', 'EIO', 'IO_FAILED'],
    ['link', 'EIO', 'IO_FAILED'],
    ['rename', 'EACCES', 'IO_FAILED'],
    ['open', 'EMFILE', 'IO_FAILED'],
    ['mkdir', 'ENOSPC', 'DISK_FULL'],
    ['syncDirectory', 'EIO', 'IO_FAILED'],
  ] as const

  test.each(faults)(
    'whose %s fails with %s once, at whatever moment, has complete snapshots only, and says so',
    async (call, how, code) => {
      let fired = 0
      for (const nth of [1, 2, 3, 5, 8, 13]) {
        const inside = `${place}/${call}-${nth}`
        fs.mkdirSync(inside)
        const whole = over(new DirectoryTarget(inside))
        const before = (await snapshotOf(whole, files)).info.id
        const faulty = faultyDisk(nodeDisk, { call, nth, how })
        const outcome = await snapshotOf(over(new DirectoryTarget(inside, faulty.disk)), more).then(
          ({ info }) => info.id,
          (error: unknown) => error,
        )
        if (!faulty.fired()) continue
        fired++
        const complete = (await whole.snapshots()).map(({ id }) => id)
        if (typeof outcome === 'string') expect(complete).toEqual([outcome, before])
        else expect(outcome).toMatchObject({ code })
        expect(await contentsOf(whole, before)).toEqual(digested(files))
        for (const id of complete.filter((it) => it !== before)) expect(await contentsOf(whole, id)).toEqual(digested(more))
        expect((await whole.check({ deep: true })).ok).toBe(true)
        // Nothing half made is left, but for what is left of the sign.
        expect(objectsIn(inside, 'tmp/')).toEqual([])
      }
      expect(fired).toBeGreaterThan(0)
    },
  )

  test('on a file system without hard links is told by trying, and works', async () => {
    const linkless: Disk = {
      ...nodeDisk,
      link() {
        throw Object.assign(new Error('EPERM: operation not permitted, link'), { code: 'EPERM' })
      },
    }
    const target = new DirectoryTarget(place, linkless)
    expect(await target.isExclusive()).toBe(false)
    const repository = over(target)
    const { info } = await snapshotOf(repository, files)
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    await writer.file(factsOf('a'), piecesOf(noise(30_000)))
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect((await repository.prune({ staleMs: 0 })).givenUp).toEqual([writer.id])
    await expect(writer.commit(plainFacts)).rejects.toMatchObject({ code: 'LOCK_LOST' })
    expect(await contentsOf(repository, info.id)).toEqual(digested(files))
    expect(objectsIn(place, 'tmp/')).toEqual([])
  })

  test.runIf(mayMount())('that is full keeps what it has, says DISK_FULL, and goes on when there is room', async () => {
    const disk = mountTmpfs('1m')
    // A prune frees space, but needs a little itself, for its marks.
    fs.writeFileSync(`${disk}/ballast`, noise(50_000))
    const repository = over(new DirectoryTarget(disk))
    const { info } = await snapshotOf(repository, files)
    for (let tries = 0; tries < 3; tries++)
      await expect(snapshotOf(repository, { big: noise(2_000_000) })).rejects.toMatchObject({ code: 'DISK_FULL' })
    expect(await contentsOf(repository, info.id)).toEqual(digested(files))
    expect((await repository.check({ deep: true })).ok).toBe(true)
    fs.rmSync(`${disk}/ballast`)
    // What the failed ones have left makes room.
    for (const name of objectsIn(disk, 'running/')) fs.rmSync(`${disk}/${name}`)
    expect((await repository.prune()).packsRemoved).toBeGreaterThan(0)
    const second = await snapshotOf(repository, more)
    expect(await contentsOf(repository, second.info.id)).toEqual(digested(more))
  })
})

test('a directory that a put has made is synced into the one above it, before the put returns', async () => {
  const place = temporaryDirectory()
  const made: string[] = []
  const synced = new Set<string>()
  const watched: Disk = {
    ...nodeDisk,
    mkdir(path) {
      nodeDisk.mkdir(path)
      made.push(path)
    },
    async syncDirectory(path) {
      await nodeDisk.syncDirectory(path)
      synced.add(path)
    },
  }
  const target = new DirectoryTarget(`${place}/new/repository`, watched)
  await target.put('packs/ab/one', Buffer.from('1'))
  expect(made.map((path) => path.slice(place.length))).toEqual(
    expect.arrayContaining(['/new', '/new/repository', '/new/repository/tmp', '/new/repository/packs', '/new/repository/packs/ab']),
  )
  for (const path of made) expect(synced.has(path.slice(0, path.lastIndexOf('/'))), path).toBe(true)
  fs.rmSync(place, { recursive: true, force: true })
})

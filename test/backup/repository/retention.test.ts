/** Which snapshots stay, and that the rest gives its bytes back. */
import fs from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { chooseKept } from '../../../src/backup/repository/forget.js'
import { createRepository } from '../../../src/backup/repository/open.js'
import type { ForgetPolicy, SnapshotInfo } from '../../../src/backup/repository/repository.js'
import { contentsOf, digested, noise, objectsIn, snapshotOf, temporaryDirectory } from './depot.js'

const dayMs = 86_400_000
const monday = Date.UTC(2026, 0, 5)

function info(number: number, time: number, more: Partial<SnapshotInfo> = {}): SnapshotInfo {
  const nothing = { host: '', source: [], findings: [], files: 0, sessions: 0, bytes: 0, addedBytes: 0, extra: {} }
  return { id: `s${String(number).padStart(4, '0')}`, time, storeId: 'a', damaged: false, ...nothing, ...more }
}

const keptOf = (snapshots: readonly SnapshotInfo[], policy: ForgetPolicy) =>
  chooseKept([...snapshots].reverse(), policy)
    .kept.map(({ snapshot }) => snapshot.id)
    .sort()
const ids = (...numbers: number[]) => numbers.map((number) => `s${String(number).padStart(4, '0')}`)

describe('a policy', () => {
  const hourly = Array.from({ length: 40 }, (_, at) => info(at, monday + at * 3_600_000))

  test('keeps 30 when nothing is said, and never fewer than one good one', () => {
    expect(keptOf(hourly, {})).toEqual(hourly.slice(10).map(({ id }) => id))
    expect(keptOf(hourly, { keepLast: 0 })).toEqual(ids(39))
    expect(keptOf(hourly, { keepDamaged: 5 })).toHaveLength(30)
  })

  test('damaged ones are counted apart: they push no good one out (F53)', () => {
    // Somebody notices after 35 damaged snapshots.
    const noticedLate = [
      ...hourly,
      ...Array.from({ length: 35 }, (_, at) => info(40 + at, monday + (40 + at) * 3_600_000, { damaged: true })),
    ]
    const kept = keptOf(noticedLate, {})
    expect(kept.filter((id) => id < 's0040')).toHaveLength(30)
    expect(kept.filter((id) => id >= 's0040')).toHaveLength(30)
    expect(keptOf(noticedLate, { keepLast: 3, keepDamaged: 0 })).toEqual(ids(37, 38, 39))
  })

  test('keeps the newest of each day, week (from Monday) and month that has one', () => {
    const days = Array.from({ length: 70 }, (_, at) => [
      info(2 * at, monday + at * dayMs),
      info(2 * at + 1, monday + at * dayMs + 7_200_000),
    ]).flat()
    expect(keptOf(days, { keepDaily: 3 })).toEqual(ids(135, 137, 139))
    // The 70th day is a Sunday.
    expect(keptOf(days, { keepWeekly: 3 })).toEqual(ids(111, 125, 139))
    expect(keptOf(days, { keepMonthly: 9 })).toEqual(ids(53, 109, 139))
    expect(keptOf(days, { keepLast: 2, keepDaily: 2, keepMonthly: 2 })).toEqual(ids(109, 137, 138, 139))
  })

  test('counts each store by itself, and may be about one only', () => {
    const two = hourly.flatMap((it, at) => [it, info(100 + at, it.time, { storeId: 'b' })]).sort((a, b) => a.time - b.time)
    expect(keptOf(two, { keepLast: 2 })).toEqual(ids(38, 39, 138, 139))
    expect(keptOf(two, { keepLast: 2, storeId: 'b' })).toHaveLength(42)
  })

  test('never removes what cannot be read, unless it is named', () => {
    const broken = [...hourly, info(41, monday, { unreadable: 'why', damaged: true })]
    expect(keptOf(broken, { keepLast: 1, keepDamaged: 0 })).toEqual(ids(39, 41))
    expect(keptOf(broken, { snapshots: ids(41, 3) })).toEqual(hourly.map(({ id }) => id).filter((id) => id !== 's0003'))
  })

  test('must be one', () => {
    for (const policy of [{ keepLast: -1 }, { keepDaily: 1.5 }, { keepWeekly: Number.NaN }])
      expect(() => chooseKept(hourly, policy)).toThrow(/INVALID_OPTION/)
  })
})

describe('40 snapshots', () => {
  let place: string

  beforeEach(() => {
    place = temporaryDirectory()
  })

  afterEach(() => {
    fs.rmSync(place, { recursive: true, force: true })
  })

  test('become 30, every one of them whole, and what only the others named is gone from the disk', async () => {
    const { repository } = await createRepository(place, { packBytes: 60_000 })
    const log = noise(200_000)
    const made: { id: string; files: Record<string, Buffer> }[] = []
    for (let at = 0; at < 40; at++) {
      const files = { log: log.subarray(0, 5_000 * (at + 1)), changing: noise(10_000) }
      made.push({ id: (await snapshotOf(repository, files, { time: monday + at * dayMs })).info.id, files })
    }
    const bytes = () => objectsIn(place, 'packs/').reduce((sum, name) => sum + fs.statSync(`${place}/${name}`).size, 0)
    const dry = await repository.forget({}, { dryRun: true })
    expect((await repository.snapshots()).length).toBe(40)
    const { removed, kept } = await repository.forget({})
    expect([removed.map(({ id }) => id).sort(), kept.length]).toEqual([made.slice(0, 10).map(({ id }) => id), 30])
    expect(dry.removed).toEqual(removed)
    const before = bytes()
    const foreseen = await repository.prune({ dryRun: true })
    expect(bytes()).toBe(before)
    const report = await repository.prune()
    expect(report.packsRemoved).toBe(foreseen.packsRemoved)
    expect(before - bytes()).toBeGreaterThan(80_000)
    expect(report.bytesStored).toBe(bytes())
    // Of more than eighty: one for what each of the thirty has of its own, up to 16 small ones that are left alone, and one with all lists.
    expect(objectsIn(place, 'packs/').length).toBeLessThanOrEqual(30 + 16 + 1)
    expect(objectsIn(place).filter((name) => /^(running|condemned|tmp)/.test(name))).toEqual([])
    for (const { id, files } of made.slice(10)) expect(await contentsOf(repository, id)).toEqual(digested(files))
    expect(await repository.check({ deep: true })).toMatchObject({ ok: true, unusedBytes: 0 })
    expect((await repository.prune()).packsRemoved).toBe(0)
    await repository.close()
  })

  test('the bytes of a running backup stay, and those that it only may name', async () => {
    const { repository } = await createRepository(place, { packBytes: 20_000 })
    const files = { a: noise(100_000), b: noise(100_000) }
    const { info: first } = await snapshotOf(repository, files)
    const writer = await repository.begin({ storeId: 'a store', host: 'here' })
    const { factsOf, piecesOf, plainFacts } = await import('./depot.js')
    expect((await writer.file(factsOf('a'), piecesOf(files.a))).newBytes).toBe(0)
    await writer.file(factsOf('c'), piecesOf(noise(50_000)))
    await repository.forget({ snapshots: [first.id] })
    expect(await repository.prune()).toMatchObject({ packsRemoved: 0, running: [writer.id], givenUp: [] })
    const { id } = await writer.commit(plainFacts)
    expect((await repository.prune()).packsRemoved).toBeGreaterThan(0)
    expect(Object.keys(await contentsOf(repository, id))).toEqual(['a', 'c'])
    expect((await repository.check({ deep: true })).ok).toBe(true)
    await repository.close()
  })
})

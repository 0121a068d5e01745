/** What happens to a store between the reading of its metadata and the reading of its transcripts. F52. */
import fs from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { restoreBackup } from '../../../src/backup/restore/restore.js'
import { createBackup } from '../../../src/backup/snapshot/backup.js'
import { Capture } from '../../../src/backup/snapshot/capture.js'
import { readMetadata } from '../../../src/backup/snapshot/metadata-reading.js'
import { StoreCapture } from '../../../src/backup/snapshot/store-capture.js'
import { type Disk, nodeDisk } from '../../../src/file/durable.js'
import { placesIn } from '../../../src/file/format.js'
import { readIdentity } from '../../../src/file/lock/identity.js'
import { bootTag } from '../../../src/file/log/chain.js'
import type { SessionStore } from '../../../src/index.js'
import { MemoryRepository } from '../memory-repository.js'
import { inStore, recordsIn, type Setting, setting } from '../settings.js'

let at: Setting
beforeEach(() => {
  at = setting('moving')
})
afterEach(() => at.remove())

/** A snapshot whose metadata is read, then things happen, then the rest is read; restored, rolled forward by its writers, read. */
async function snapshotAround(before: (store: SessionStore) => Promise<void>, meanwhile: (store: SessionStore) => Promise<void>) {
  const repository = new MemoryRepository()
  const writer = await repository.begin({ storeId: 's', host: 'h' })
  const place = { disk: nodeDisk, places: placesIn(at.dir), tag: bootTag(readIdentity().boot) }
  const capture = new Capture({
    disk: nodeDisk,
    writer,
    previous: new Map(),
    rereads: () => false,
    signal: undefined,
    onBytes() {},
    nowMs: Date.now,
  })
  await inStore(at.dir, async (store) => {
    await before(store)
    const moment = await readMetadata(place)
    await meanwhile(store)
    await new StoreCapture(capture, place, { sessions: new Map(), pieces: new Map() }, []).run(moment)
  })
  const { id } = await writer.commit({ source: [], damaged: false, findings: [] })
  const into = at.path('restored')
  await restoreBackup({ repository, snapshot: id, into })
  return { into, findings: capture.findings, paths: (await repository.manifest(id)).files.map(({ path }) => path) }
}

const five = async (store: SessionStore) => {
  for (let n = 1; n <= 5; n++) await store.session('k').append({ n })
}
const all = [1, 2, 3, 4, 5].map((n) => ({ n }))

describe('between metadata and transcripts', () => {
  test('appended to: what came later may be in it, what came before is', async () => {
    const { into, findings } = await snapshotAround(five, (store) =>
      store
        .session('k')
        .append({ n: 6 })
        .then(() => {}),
    )
    expect(findings).toEqual([])
    expect(await recordsIn(into)).toEqual({ k: [...all, { n: 6 }] })
  })

  test('rotated, again and again: found in the archive, and rolled forward by who writes to the restored store', async () => {
    const { into, findings } = await snapshotAround(five, async (store) => {
      for (let times = 1; times <= 3; times++) {
        await store.session('k').rotate({ reason: 'reset' })
        await store.session('k').append({ after: times })
      }
    })
    expect(findings).toEqual([])
    expect((await recordsIn(into)).k).toEqual(all)
    await inStore(into, (store) => store.session('k').append({ last: true }))
    expect(await recordsIn(into)).toEqual({ k: [{ after: 3 }, { last: true }] })
    const archived = fs.readdirSync(`${into}/archive`).map((name) => fs.readFileSync(`${into}/archive/${name}`, 'utf8'))
    expect(archived).toHaveLength(3)
    for (const text of ['"n":5', '"after":1', '"after":2']) expect(archived.some((log) => log.includes(text))).toBe(true)
    await inStore(into, async (store) => expect((await store.verify()).ok).toBe(true))
  })

  test('deleted: there it is still, and can be written to', async () => {
    const { into } = await snapshotAround(five, async (store) => void (await store.delete('k')))
    await inStore(into, (store) => store.session('k').append({ n: 6 }))
    expect(await recordsIn(into)).toEqual({ k: [...all, { n: 6 }] })
  })

  test('deleted and begun anew: the old one is the one of the moment', async () => {
    const { into } = await snapshotAround(five, async (store) => {
      await store.delete('k')
      await store.session('k').append({ other: true })
    })
    expect(await recordsIn(into)).toEqual({ k: all })
  })

  test('begun since: left for the next snapshot', async () => {
    const { into, paths } = await snapshotAround(five, async (store) => void (await store.session('new').append({ n: 1 })))
    expect(paths.filter((path) => path.startsWith('transcripts/'))).toHaveLength(1)
    expect(await recordsIn(into)).toEqual({ k: all })
  })

  test('folded by a checkpoint: the pair that was read is the pair that is kept', async () => {
    const { into } = await snapshotAround(five, async (store) => {
      await store.update('other', () => ({ late: true }))
      await store.checkpoint()
    })
    expect(await recordsIn(into)).toEqual({ k: all })
  })

  test('an orphan, which the metadata has lost, is kept and not taken for a later one', async () => {
    const orphan = '01980000-0000-7000-8000-000000000001'
    const { paths } = await snapshotAround(five, async () => {
      const [name] = fs.readdirSync(`${at.dir}/transcripts`)
      fs.copyFileSync(`${at.dir}/transcripts/${name}`, `${at.dir}/transcripts/${orphan}.jsonl`)
    })
    expect(paths).toContain(`transcripts/${orphan}.jsonl`)
  })
})

test('the metadata is never newer than the transcripts: what it names, and the marks in it, are covered by what is read after it', async () => {
  const later = at.path('later')
  await inStore(at.dir, five)
  fs.cpSync(at.dir, later, { recursive: true })
  await inStore(later, async (store) => {
    await store.session('k').append(Array.from({ length: 50 }, (_, n) => ({ n: 6 + n })))
    await store.session('new').append({ n: 1 })
  })
  const before = await recordsIn(at.dir)
  let left = 1
  // The store moves on when the transcripts have been read.
  const disk: Disk = {
    ...nodeDisk,
    readdir(path) {
      if (path.endsWith('/archive') && left-- > 0) fs.cpSync(later, at.dir, { recursive: true, filter: (name) => !name.includes('/locks') })
      return nodeDisk.readdir(path)
    },
  }
  const repository = new MemoryRepository()
  const report = await createBackup({ repository, store: at.dir, disk })
  expect(left).toBeLessThanOrEqual(0)
  expect(report.findings).toEqual([])
  const into = at.path('restored')
  await restoreBackup({ repository, snapshot: report.snapshot.id, into })
  await inStore(into, async (store) => expect(await store.verify()).toMatchObject({ ok: true, damage: [] }))
  expect(await recordsIn(into)).toEqual(before)
})

/** What a repair makes of what was going on when the damage came: a deletion cut short, a commit in the last moment, a copy that is old. */
import fs from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openFileBackend } from '../../../src/file/backend.js'
import { encodeBatch } from '../../../src/file/batch.js'
import { nodeDisk } from '../../../src/file/durable.js'
import { systemHost } from '../../../src/file/host.js'
import { bootTag } from '../../../src/file/log/chain.js'
import { LogFile } from '../../../src/file/log/log-file.js'
import { newCounters } from '../../../src/file/stats.js'
import { SessionStore } from '../../../src/store.js'
import { careOf } from '../../backend/care.js'
import { storeOptions } from '../../simulation/store-on-disk.js'
import { copyStore } from '../store-copy.js'
import { scratchDirectory } from './damaged-store.js'

const options = { durability: 'process' } as const

/** With sessions a, b and c, at rest in its snapshot, and not closed. */
async function storeIn(dir: string): Promise<SessionStore> {
  const store = await SessionStore.open(dir, options)
  for (const key of ['a', 'b', 'c']) await store.session(key).append({ key })
  await store.checkpoint()
  return store
}

async function transcriptOf(store: SessionStore, dir: string, key: string): Promise<string> {
  return join(dir, 'transcripts', `${(await store.get(key))!.sessionId}.jsonl`)
}

async function keysIn(store: SessionStore): Promise<string[]> {
  const keys: string[] = []
  for await (const [key] of store.entries()) keys.push(key)
  return keys.sort()
}

// F19
test('a session that was deleted stays deleted when metadata are rebuilt, although its deleter died before it could archive it', async () => {
  const dir = join(scratchDirectory(), 'store')
  const store = await storeIn(dir)
  const log = await transcriptOf(store, dir, 'b')
  const open = fs.readFileSync(log)
  await store.withStoreLock((sessions) => sessions.delete('b'))
  const dead = `${dir}.dead`
  copyStore(dir, dead)
  await store.close()
  // The commit stands in the journal; nothing that follows it has been done.
  fs.rmSync(join(dead, 'archive'), { recursive: true })
  fs.writeFileSync(log.replace(dir, dead), open, { mode: 0o600 })
  fs.writeFileSync(join(dead, 'sessions.json'), '')
  fs.rmSync(join(dead, 'sessions.prev.json'), { force: true })
  const mender = await SessionStore.open(dead, { ...options, repair: true })
  onTestFinished(() => mender.close())
  expect(await mender.repair(await mender.planRepair())).toMatchObject({ ok: true })
  expect((await mender.verify()).damage).toEqual([])
  expect((await mender.planRepair()).actions).toEqual([])
  expect(await keysIn(mender)).toEqual(['a', 'c'])
})

// F1: whoever has lost the lock while frozen may wake at any moment.
test('a commit that lands while a repair stages new metadata is not lost: the repair is refused, and the next one has it', async () => {
  const dir = join(scratchDirectory(), 'store')
  const store = await storeIn(dir)
  await store.update('a', () => ({ model: 'x' }))
  const dead = `${dir}.dead`
  copyStore(dir, dead)
  await store.close()
  fs.writeFileSync(join(dead, 'sessions.json'), fs.readFileSync(join(dead, 'sessions.json'), 'utf8').replace('"b":{', '"b":<'))
  fs.rmSync(join(dead, 'sessions.prev.json'), { force: true })
  const host = systemHost()
  const place = { disk: nodeDisk, path: join(dead, 'sessions.journal.jsonl'), label: 'journal', tag: bootTag(host.identity.boot) }
  const looked = LogFile.open({ ...place, counters: newCounters() }, 'appendExisting', 'whole')
  const entry = { sessionId: '01900000-0000-7000-8000-000000000001', createdAt: 1, updatedAt: 1, revision: 1, late: true }
  const batch = encodeBatch(host, looked, [JSON.stringify({ op: 'put', key: 'late', entry })], true)
  let landed: boolean | undefined
  const disk = {
    ...nodeDisk,
    open(path: string, flags: Parameters<typeof nodeDisk.open>[1]) {
      if (landed === undefined && flags === 'create' && path.includes('/locks/metadata/')) {
        nodeDisk.write(looked.fd, batch.bytes)
        landed = looked.landed(batch)
      }
      return nodeDisk.open(path, flags)
    },
  }
  const backend = await openFileBackend(dead, { ...storeOptions, durability: 'process', repair: true }, { ...host, disk })
  onTestFinished(() => backend.close())
  const care = careOf(backend)
  const { actions } = await care.repair(await care.planRepair({}), {})
  expect(landed).toBe(true)
  expect(actions).toMatchObject([{ outcome: 'refused', error: { code: 'SEQ_CONFLICT', effect: 'none' } }])
  expect(await care.repair(await care.planRepair({}), {})).toMatchObject({ ok: true })
  expect((await care.verify({})).damage).toEqual([])
  const again = await SessionStore.open(dead, options)
  onTestFinished(() => again.close())
  expect(await again.get('late')).toMatchObject({ late: true })
  expect(await keysIn(again)).toEqual(['a', 'b', 'c', 'late'])
})

// F29
test('a copy that is older than what was lost is put back, and the plan says which records are not in it', async () => {
  const dir = join(scratchDirectory(), 'store')
  const store = await storeIn(dir)
  const log = await transcriptOf(store, dir, 'a')
  const copy = fs.readFileSync(log)
  for (let n = 0; n < 4; n++) await store.session('a').append({ n })
  await store.close()
  fs.rmSync(log)
  fs.mkdirSync(join(dir, 'archive'), { recursive: true })
  fs.writeFileSync(log.replace('/transcripts/', '/archive/'), copy, { mode: 0o600 })
  const mender = await SessionStore.open(dir, { ...options, repair: true })
  onTestFinished(() => mender.close())
  const plan = await mender.planRepair()
  expect(plan.actions).toMatchObject([{ kind: 'restore-transcript', loses: { seqs: [{ from: 2, to: 5 }] } }])
  for (const next of [plan, undefined]) expect(await mender.repair(next ?? (await mender.planRepair()))).toMatchObject({ ok: true })
  expect((await mender.verify()).damage).toEqual([])
  expect((await mender.session('a').append({ after: true })).seq).toBe(6)
})

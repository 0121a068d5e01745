import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { compareBackups } from '../../../src/backup/compare/compare.js'
import { createBackup } from '../../../src/backup/snapshot/backup.js'
import { SessionStore } from '../../../src/index.js'
import { MemoryRepository } from '../memory-repository.js'

let root: string
let dir: string
let repository: MemoryRepository
let first: string
beforeEach(async () => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-compare-'))
  dir = path.join(root, 'store')
  repository = new MemoryRepository()
  await inStore(async (store) => {
    for (let s = 0; s < 4; s++) for (let n = 1; n <= 6; n++) await store.session(`agent:${s}`).append({ n, text: `text ${n}` })
  })
  first = (await createBackup({ repository, store: dir })).snapshot.id
})
afterEach(() => fs.rmSync(root, { recursive: true, force: true }))

async function inStore(work: (store: SessionStore) => Promise<void>): Promise<void> {
  const store = await SessionStore.open(dir)
  await work(store)
  await store.close()
}

async function fileOf(key: string): Promise<string> {
  let id = ''
  await inStore(async (store) => {
    id = (await store.get(key))!.sessionId
  })
  return path.join(dir, 'transcripts', `${id}.jsonl`)
}

const compare = () => compareBackups({ repository, from: first, to: { store: dir } })
const kinds = async () => (await compare()).sessions.map(({ what, key, alarming }) => ({ what, key, alarming }))

describe('compare', () => {
  test('what grew, was added, rotated and deleted is in order', async () => {
    await inStore(async (store) => {
      await store.session('agent:0').append({ n: 7 })
      await store.session('agent:1').rotate({ reason: 'reset' })
      await store.delete('agent:2')
      await store.session('new').append({ n: 1 })
    })
    const report = await compare()
    expect(report).toEqual(expect.objectContaining({ ok: true, same: 1, findings: [] }))
    expect((await kinds()).map(({ what }) => what).sort()).toEqual(['added', 'added', 'closed', 'closed', 'extended'])
  })

  test('nothing has changed: nothing is told', async () => {
    expect(await compare()).toEqual(expect.objectContaining({ ok: true, same: 4, sessions: [], files: [] }))
  })

  // F29: everything still parses.
  test('a transcript that lost its end is told, with the first record that is missing', async () => {
    const file = await fileOf('agent:1')
    fs.writeFileSync(file, `${fs.readFileSync(file, 'utf8').split('\n').slice(0, 4).join('\n')}\n`)
    const report = await compare()
    expect(report.ok).toBe(false)
    expect(report.sessions).toEqual([
      expect.objectContaining({
        what: 'shrunk',
        key: 'agent:1',
        firstDifference: { seq: 4, before: '{"n":4,"text":"text 4"}', now: undefined },
      }),
    ])
  })

  // F21: a damaged header makes a writer start the file afresh.
  test('a transcript that was begun anew under the same name is told', async () => {
    const file = await fileOf('agent:1')
    fs.rmSync(file)
    await inStore(async (store) => {
      for (let n = 1; n <= 9; n++)
        await store
          .session('agent:1')
          .append({ n, text: 'other' })
          .catch(() => {})
    })
    const [change] = (await compare()).sessions
    expect(['rewritten', 'gone']).toContain(change!.what)
    expect(change!.alarming).toBe(true)
  })

  test('an altered record is told with what it was and where', async () => {
    const file = await fileOf('agent:2')
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('"text 3"', '"text 8"'))
    const [change] = (await compare()).sessions
    expect(change).toEqual(expect.objectContaining({ what: 'damaged', alarming: true }))
    expect(change!.firstDifference).toEqual({ seq: 3, before: '{"n":3,"text":"text 3"}', now: undefined })
  })

  // F30: a sweep removes a live session.
  test('a transcript that is gone is told', async () => {
    fs.rmSync(await fileOf('agent:3'))
    expect((await compare()).sessions).toEqual([expect.objectContaining({ what: 'gone', alarming: true })])
  })

  // F19: sessions.json is emptied, and the next update writes that over everything.
  test('metadata that has forgotten its sessions is told', async () => {
    for (const name of fs.readdirSync(dir)) if (/^(sessions|holdfast)/.test(name)) fs.rmSync(path.join(dir, name))
    const transcripts = path.join(dir, 'transcripts')
    fs.renameSync(transcripts, path.join(root, 'aside'))
    await inStore(async () => {})
    fs.rmSync(transcripts, { recursive: true })
    fs.renameSync(path.join(root, 'aside'), transcripts)
    const report = await compare()
    expect(report.ok).toBe(false)
    expect(report.sessions.map(({ what }) => what)).toEqual(['unnamed', 'unnamed', 'unnamed', 'unnamed'])
    expect(report.files).toContainEqual({ path: 'holdfast.json', what: 'changed', alarming: true })
  })
})

import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { createBackup } from '../../../src/backup/snapshot/backup.js'
import { newJournal } from '../../../src/file/metadata/checkpoint.js'
import { hashOf } from '../../../src/file/metadata/snapshot.js'
import { SessionStore } from '../../../src/index.js'
import { MemoryRepository } from '../memory-repository.js'

const dirs: string[] = []
function scratch(): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-snapshot-'))
  dirs.push(dir)
  return dir
}
afterEach(() => {
  for (const dir of dirs.splice(0)) fs.rmSync(dir, { recursive: true, force: true })
})

async function filled(dir: string, sessions = 3, records = 5): Promise<void> {
  const store = await SessionStore.open(dir)
  for (let s = 0; s < sessions; s++)
    for (let n = 0; n < records; n++) await store.session(`agent:${s}`).append({ type: 'message', n, text: 'x'.repeat(100) })
  await store.close()
}

/** Killed before anything could say in the metadata how far its transcripts go. */
async function filledAndKilled(dir: string): Promise<void> {
  const store = await SessionStore.open(path.join(scratch(), 'living'))
  for (let n = 0; n < 5; n++) await store.session('agent:0').append({ type: 'message', n, text: 'x'.repeat(100) })
  fs.cpSync(path.join(dirs.at(-1)!, 'living'), dir, { recursive: true })
  await store.close()
}

const file = (dir: string) => {
  const names = fs.readdirSync(path.join(dir, 'transcripts')).sort()
  return path.join(dir, 'transcripts', names[0]!)
}

describe('a snapshot', () => {
  test('has every file of the store but its locks', async () => {
    const dir = path.join(scratch(), 'store')
    await filled(dir)
    const repository = new MemoryRepository()
    const report = await createBackup({ repository, store: dir })
    expect(report.findings).toEqual([])
    const { files } = await repository.manifest(report.snapshot.id)
    for (const row of files) expect(await repository.text(row), row.path).toBe(fs.readFileSync(path.join(dir, row.path), 'utf8'))
    expect(files.map((row) => row.path.replace(/[0-9a-f-]{36}/, '<id>'))).toEqual([
      'holdfast.json',
      'sessions.journal.jsonl',
      'sessions.json',
      'sessions.prev.journal.jsonl',
      'sessions.prev.json',
      ...Array.from({ length: 3 }, () => 'transcripts/<id>.jsonl'),
    ])
    expect(files.filter(({ session }) => session).map(({ session }) => session!.lastSeq)).toEqual([5, 5, 5])
  })

  test('the second reads what has grown, and nothing else', async () => {
    const dir = path.join(scratch(), 'store')
    await filled(dir, 20, 20)
    const repository = new MemoryRepository()
    const first = await createBackup({ repository, store: dir, rereadIn: 1_000 })
    const store = await SessionStore.open(dir)
    await store.session('agent:3').append({ type: 'message', text: 'new' })
    await store.close()
    const second = await createBackup({ repository, store: dir, rereadIn: 1_000 })
    expect(second.findings).toEqual([])
    expect(second.bytesRead).toBeLessThan(first.bytesRead / 3)
    const { files } = await repository.manifest(second.snapshot.id)
    for (const row of files) expect(await repository.text(row), row.path).toBe(fs.readFileSync(path.join(dir, row.path), 'utf8'))
  })

  test('a line that is being written, and one that was torn, stay behind', async () => {
    const dir = path.join(scratch(), 'store')
    await filled(dir)
    const whole = fs.readFileSync(file(dir), 'utf8')
    fs.appendFileSync(file(dir), '{"type":"message","text":"half')
    const repository = new MemoryRepository()
    const report = await createBackup({ repository, store: dir })
    expect(report.ok).toBe(true)
    const { files } = await repository.manifest(report.snapshot.id)
    const row = files.find((it) => it.path.endsWith(path.basename(file(dir))))!
    expect(await repository.text(row)).toBe(whole)
  })

  // F29: a chunk is missing, everything still parses.
  test('a transcript that has lost its end is an alarm, and stays one until it is accepted', async () => {
    const dir = path.join(scratch(), 'store')
    await filledAndKilled(dir)
    const repository = new MemoryRepository()
    await createBackup({ repository, store: dir })
    const lines = fs.readFileSync(file(dir), 'utf8').split('\n')
    fs.writeFileSync(file(dir), `${lines.slice(0, 3).join('\n')}\n`)
    for (let times = 0; times < 2; times++) {
      const report = await createBackup({ repository, store: dir })
      expect(report.findings).toEqual([expect.objectContaining({ level: 'alarm', message: expect.stringContaining('ends at seq 2') })])
      expect(report.snapshot.damaged).toBe(true)
      expect(report.comparedWith).toBe('s000001')
    }
    expect((await createBackup({ repository, store: dir, accept: true })).snapshot.damaged).toBe(false)
    expect((await createBackup({ repository, store: dir })).findings).toEqual([])
  })

  test('is taken of a store that cannot be opened, byte for byte, and is marked', async () => {
    const dir = path.join(scratch(), 'store')
    await filled(dir)
    const repository = new MemoryRepository()
    await createBackup({ repository, store: dir })
    fs.writeFileSync(path.join(dir, 'sessions.json'), '')
    const report = await createBackup({ repository, store: dir })
    expect(report.snapshot.damaged).toBe(true)
    expect(report.findings[0]).toEqual(expect.objectContaining({ level: 'damage', path: 'sessions.json' }))
    const { files } = await repository.manifest(report.snapshot.id)
    for (const row of files) expect(await repository.text(row), row.path).toBe(fs.readFileSync(path.join(dir, row.path), 'utf8'))
    expect(files.filter(({ role }) => role === 'transcript')).toHaveLength(3)
  })

  // F19, F30: nothing in the store itself says that it was ever there.
  test('a transcript that is gone is an alarm also where no mark in the metadata tells of it', async () => {
    const dir = path.join(scratch(), 'store')
    const store = await SessionStore.open(dir, { durability: 'process' })
    for (const key of ['a', 'b']) await store.session(key).append({ n: 1 })
    await store.close()
    const repository = new MemoryRepository()
    await createBackup({ repository, store: dir })
    fs.rmSync(file(dir))
    const report = await createBackup({ repository, store: dir })
    expect(report.snapshot.damaged).toBe(true)
    expect(report.findings).toContainEqual(expect.objectContaining({ level: 'alarm', message: expect.stringContaining('is gone') }))
  })

  // F19: a fold of the metadata that has forgotten a session; it is a pair like any other.
  test('a key that the metadata has forgotten, without a rotation or a deletion, is an alarm', async () => {
    const dir = path.join(scratch(), 'store')
    await filled(dir)
    const repository = new MemoryRepository()
    await createBackup({ repository, store: dir })
    const kept = fs
      .readFileSync(path.join(dir, 'sessions.json'), 'utf8')
      .split('\n')
      .filter((line) => !line.includes('agent:1'))
    const forged = Buffer.from(kept.join('\n'))
    fs.writeFileSync(path.join(dir, 'sessions.json'), forged)
    fs.writeFileSync(path.join(dir, 'sessions.journal.jsonl'), newJournal(hashOf(forged), 0, Date.now(), '000000000001'))
    const report = await createBackup({ repository, store: dir })
    expect(report.findings).toEqual([
      expect.objectContaining({ level: 'alarm', key: 'agent:1', message: expect.stringContaining('without rotation or deletion') }),
    ])
  })
})

import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { restoreBackup } from '../../../src/backup/restore/restore.js'
import { createBackup } from '../../../src/backup/snapshot/backup.js'
import { type Disk, nodeDisk } from '../../../src/file/durable.js'
import { SessionStore } from '../../../src/index.js'
import { MemoryRepository } from '../memory-repository.js'

let root: string
let dir: string
let repository: MemoryRepository
beforeEach(async () => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-restore-'))
  dir = path.join(root, 'store')
  repository = new MemoryRepository()
  const store = await SessionStore.open(dir)
  for (let s = 0; s < 3; s++) for (let n = 0; n < 4; n++) await store.session(`agent:${s}`).append({ n, text: 'x'.repeat(50) })
  await store.session('agent:0').rotate({ reason: 'reset' })
  await store.session('agent:0').append({ n: 99 })
  await store.update('agent:1', () => ({ model: 'opus' }))
  await store.delete('agent:2')
  await store.close()
})
afterEach(() => fs.rmSync(root, { recursive: true, force: true }))

function tree(at: string): Record<string, string> {
  const found: Record<string, string> = {}
  for (const entry of fs.readdirSync(at, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name)
    const name = path.relative(at, file)
    if (name.startsWith('locks')) continue
    if (entry.isFile()) found[name] = fs.readFileSync(file, 'utf8')
    if (entry.isSymbolicLink()) found[name] = `-> ${fs.readlinkSync(file)}`
  }
  return found
}

async function records(at: string, key: string): Promise<unknown[]> {
  const store = await SessionStore.open(at)
  try {
    const found: unknown[] = []
    for await (const { record } of store.session(key).read()) found.push(record)
    return found
  } finally {
    await store.close()
  }
}

describe('a restore', () => {
  test('brings back the store byte for byte, and writers go on in it', async () => {
    const { snapshot } = await createBackup({ repository, store: dir })
    const into = path.join(root, 'new', 'store')
    const report = await restoreBackup({ repository, snapshot: snapshot.id, into })
    expect(tree(into)).toEqual(tree(dir))
    expect(report).toEqual(expect.objectContaining({ into, sessions: 2, damage: [] }))
    const store = await SessionStore.open(into)
    await store.session('agent:1').append({ n: 'after' })
    expect((await store.verify()).ok).toBe(true)
    await store.close()
    expect((await records(into, 'agent:1')).at(-1)).toEqual({ n: 'after' })
  })

  // F52: a restore overwrites newer data.
  test('overwrites nothing: a directory with anything in it is refused', async () => {
    const { snapshot } = await createBackup({ repository, store: dir })
    const before = tree(dir)
    await expect(restoreBackup({ repository, snapshot: snapshot.id, into: dir })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    expect(tree(dir)).toEqual(before)
    const into = path.join(root, 'other')
    fs.mkdirSync(into)
    fs.writeFileSync(path.join(into, 'note'), 'mine')
    await expect(restoreBackup({ repository, snapshot: snapshot.id, into })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    expect(tree(into)).toEqual({ note: 'mine' })
  })

  test('cut short at any write or rename, leaves nothing that opens as a store', async () => {
    const { snapshot } = await createBackup({ repository, store: dir })
    for (let calls = 0, finished = false; !finished; calls++) {
      const into = path.join(root, `cut-${calls}`)
      const { disk, dead } = dyingDisk(calls)
      finished = await restoreBackup({ repository, snapshot: snapshot.id, into, disk }).then(
        () => true,
        () => false,
      )
      expect(finished).toBe(!dead())
      if (finished) expect(tree(into)).toEqual(tree(dir))
      else await opensAsNothingOrWhole(into, calls)
    }
  })

  test('brings back one conversation as a small store of its own', async () => {
    const { snapshot } = await createBackup({ repository, store: dir })
    const into = path.join(root, 'one')
    await restoreBackup({ repository, snapshot: snapshot.id, into, session: 'agent:0' })
    expect(await records(into, 'agent:0')).toEqual([{ n: 99 }])
    expect(fs.readdirSync(path.join(into, 'archive'))).toHaveLength(1)
    const store = await SessionStore.open(into)
    const keys: string[] = []
    for await (const [key] of store.entries()) keys.push(key)
    expect(keys).toEqual(['agent:0'])
    await store.close()
  })

  test('brings back a conversation that had been deleted when the snapshot was taken', async () => {
    const { snapshot } = await createBackup({ repository, store: dir })
    const into = path.join(root, 'deleted')
    await restoreBackup({ repository, snapshot: snapshot.id, into, session: 'agent:2' })
    expect(await records(into, 'agent:2')).toHaveLength(4)
    const store = await SessionStore.open(into)
    await store.session('agent:2').append({ n: 'goes on' })
    await store.close()
    expect(await records(into, 'agent:2')).toHaveLength(5)
  })

  test('brings back what was included, with its links and modes', async () => {
    const workspace = path.join(root, 'workspace')
    fs.mkdirSync(path.join(workspace, 'deep', 'empty'), { recursive: true })
    fs.writeFileSync(path.join(workspace, 'MEMORY.md'), '# Memory')
    fs.writeFileSync(path.join(workspace, 'deep', 'run.sh'), '#!/bin/sh', { mode: 0o755 })
    fs.symlinkSync('../MEMORY.md', path.join(workspace, 'deep', 'link'))
    const { snapshot, findings } = await createBackup({ repository, store: dir, include: [workspace] })
    expect(findings).toEqual([])
    const into = path.join(root, 'workspace-2')
    await restoreBackup({ repository, snapshot: snapshot.id, into, included: 'workspace' })
    expect(tree(into)).toEqual(tree(workspace))
    expect(fs.statSync(path.join(into, 'deep', 'run.sh')).mode & 0o777).toBe(0o755)
    expect(fs.statSync(path.join(into, 'deep', 'empty')).isDirectory()).toBe(true)
    // The store itself comes back without it.
    const store = path.join(root, 'store-2')
    expect((await restoreBackup({ repository, snapshot: snapshot.id, into: store })).included).toEqual(['workspace'])
    expect(tree(store)).toEqual(tree(dir))
  })

  test('of bytes that are not what was backed up, puts nothing in place', async () => {
    const { snapshot } = await createBackup({ repository, store: dir })
    for (const [name, chunk] of repository.chunks) if (chunk.includes('"n":3')) repository.chunks.set(name, flipped(chunk))
    const into = path.join(root, 'bad')
    await expect(restoreBackup({ repository, snapshot: snapshot.id, into })).rejects.toMatchObject({ code: 'BACKUP_MISMATCH' })
    expect(fs.existsSync(into)).toBe(false)
  })
})

function flipped(chunk: Buffer): Buffer {
  const bytes = Buffer.from(chunk)
  bytes[bytes.indexOf('"n":3') + 4]! ^= 1
  return bytes
}

/** Dies at the nth call that changes something: nothing of that call nor after it happens, as after SIGKILL. */
function dyingDisk(calls: number): { disk: Disk; dead: () => boolean } {
  let left = calls
  const step =
    <A extends unknown[], R>(call: (...args: A) => R) =>
    (...args: A): R => {
      if (left-- <= 0) throw Object.assign(new Error('EIO: killed'), { code: 'EIO' })
      return call(...args)
    }
  const { write, rename, unlink, rmdir, mkdir } = nodeDisk
  const disk = { ...nodeDisk, write: step(write), rename: step(rename), unlink: step(unlink), rmdir: step(rmdir), mkdir: step(mkdir) }
  return { disk, dead: () => left < 0 }
}

async function opensAsNothingOrWhole(into: string, calls: number): Promise<void> {
  if (!fs.existsSync(into)) return
  const names = fs.readdirSync(into)
  const staged = names.filter((name) => name.startsWith('unfinished-restore-'))
  if (names.length === staged.length) return
  // In the middle of the last renames: refused, or everything is there.
  const opened = await SessionStore.open(into).then(
    async (store) => {
      const found: string[] = []
      for await (const [key] of store.entries()) found.push(key)
      await store.close()
      return found.sort()
    },
    (error: { code: string }) => error.code,
  )
  expect([['agent:0', 'agent:1'], 'STORE_CORRUPT'], `after ${calls} calls`).toContainEqual(opened)
}

/** Directories that are no store: files that others write while they are read, links, sockets, the target itself. F52. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createBackup } from '../../../src/backup/index.js'
import { type Disk, nodeDisk } from '../../../src/file/durable.js'
import { MemoryRepository } from '../memory-repository.js'
import { inStore, type Setting, setting } from '../settings.js'

let at: Setting
let workspace: string
let repository: MemoryRepository
beforeEach(async () => {
  at = setting('included')
  workspace = at.path('workspace')
  fs.mkdirSync(workspace)
  repository = new MemoryRepository()
  await inStore(at.dir, (store) => store.session('k').append({ n: 1 }))
})
afterEach(() => at.remove())

const large = 3 << 20
const memory = () => `${workspace}/MEMORY.md`

async function contentOf(id: string, path: string): Promise<string | undefined> {
  const row = (await repository.manifest(id)).files.find((file) => file.path === path)
  return row && repository.text(row)
}

/** Somebody rewrites the file after each of the first so many pieces that are read of it. */
function restless(file: string, times: number): Disk {
  let left = times
  return {
    ...nodeDisk,
    read(fd, into, offset, length, position) {
      const got = nodeDisk.read(fd, into, offset, length, position)
      if (left > 0 && length > 1_000_000 && fs.fstatSync(fd).size === large && fs.statSync(file).ino === fs.fstatSync(fd).ino) {
        left--
        fs.writeFileSync(file, String(left % 10).repeat(large))
      }
      return got
    },
  }
}

describe('an included directory', () => {
  test('a file that changes while it is read is read again, and is in the snapshot as it was at one moment', async () => {
    fs.writeFileSync(memory(), 'a'.repeat(large))
    const report = await createBackup({ repository, store: at.dir, include: [workspace], disk: restless(memory(), 1) })
    expect(report.findings).toEqual([])
    expect(new Set(await contentOf(report.snapshot.id, 'included/workspace/MEMORY.md'))).toEqual(new Set('0'))
  })

  test('a file that never rests is taken with a warning, and is no damage', async () => {
    fs.writeFileSync(memory(), 'a'.repeat(large))
    const report = await createBackup({ repository, store: at.dir, include: [workspace], disk: restless(memory(), 1_000) })
    expect(report.findings).toEqual([expect.objectContaining({ level: 'warning', path: 'included/workspace/MEMORY.md' })])
    expect(report).toMatchObject({ ok: false, snapshot: { damaged: false } })
  })

  test('what is no file is left out and told; the target within it is no part of it', async () => {
    fs.writeFileSync(memory(), 'memory')
    execFileSync('mkfifo', [`${workspace}/pipe`])
    fs.symlinkSync('nowhere', `${workspace}/link`)
    fs.mkdirSync(`${workspace}/backups`)
    fs.writeFileSync(`${workspace}/backups/pack`, 'x')
    const report = await createBackup({ repository, store: at.dir, include: [workspace], except: [`${workspace}/backups`] })
    expect(report.findings.map(({ level, path }) => `${level} ${path}`).sort()).toEqual([
      'notice included/workspace/backups',
      'notice included/workspace/pipe',
    ])
    const { files } = await repository.manifest(report.snapshot.id)
    expect(files.filter(({ role }) => role === 'included').map(({ path, type, linkTo }) => [path, type, linkTo])).toEqual([
      ['included/workspace/MEMORY.md', 'file', undefined],
      ['included/workspace/link', 'symlink', 'nowhere'],
    ])
    expect(report).toMatchObject({ ok: true })
  })

  test('bytes that have changed although nobody wrote the file are an alarm, at the latest when its turn to be read comes', async () => {
    fs.writeFileSync(memory(), 'a'.repeat(100_000))
    const before = fs.statSync(memory())
    // As after a lost sector: other bytes, and the same facts.
    const rotten: Disk = {
      ...nodeDisk,
      fstat: (fd) => ({ ...nodeDisk.fstat(fd), ...(nodeDisk.fstat(fd).ino === before.ino && { ctimeMs: 1 }) }),
      stat: (path) => {
        const stat = nodeDisk.stat(path)
        return stat && { ...stat, ...(stat.ino === before.ino && { ctimeMs: 1 }) }
      },
    }
    await createBackup({ repository, store: at.dir, include: [workspace], disk: rotten })
    const fd = fs.openSync(memory(), 'r+')
    fs.writeSync(fd, 'b', 50_000)
    fs.closeSync(fd)
    const alarms: number[] = []
    for (let n = 0; n < 4; n++) {
      const report = await createBackup({ repository, store: at.dir, include: [workspace], disk: rotten, rereadIn: 4, accept: true })
      if (report.findings.some(({ level }) => level === 'alarm')) alarms.push(n)
    }
    expect(alarms).toHaveLength(1)
  })
})

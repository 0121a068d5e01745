/** Backups as they are in the field: beside writers, beside one another, and killed. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { plainKeyring } from '../../../src/backup/encryption/keyring.js'
import { type BackupFinding, createBackup, createRepository, openRepository, restoreBackup } from '../../../src/backup/index.js'
import { ObjectRepository } from '../../../src/backup/repository/object-repository.js'
import { DirectoryTarget } from '../../../src/backup/targets/directory.js'
import { type Disk, nodeDisk } from '../../../src/file/durable.js'
import { Chain } from '../../../src/file/log/chain.js'
import { inStore, recordsIn, type Setting, setting } from '../settings.js'
import type { Told } from './writer-program.js'

const compiled = new URL('../../../.build/test/backup/drills/', import.meta.url)
let at: Setting
let directory: string
beforeEach(async () => {
  at = setting('processes')
  directory = at.path('target')
  await (await createRepository({ directory })).repository.close()
})
afterEach(() => at.remove())

function start(program: string, ...args: string[]): ChildProcess {
  const child = fork(fileURLToPath(new URL(`${program}.js`, compiled)), args, { execArgv: [] })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

interface Backup {
  readonly beginsMs: number
  readonly id: string
  readonly findings: readonly BackupFinding[]
}

async function backUp(): Promise<Backup> {
  const child = start('backup-program', at.dir, directory)
  let told: Partial<Backup> = {}
  child.on('message', (message) => {
    told = { ...told, ...(message as Partial<Backup>) }
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  expect(code).toBe(0)
  return told as Backup
}

/** What the writers have put into the logs of a store, wherever these lie: as often as it is there. */
function idsIn(dir: string): Map<string, number> {
  const ids = new Map<string, number>()
  for (const folder of ['transcripts', 'archive'])
    for (const name of fs.readdirSync(`${dir}/${folder}`)) {
      new Chain('0000').feed(fs.readFileSync(`${dir}/${folder}/${name}`), {
        record(mark, line, start) {
          const { id } = JSON.parse(`${line.toString('utf8', start, start + mark.bodyBytes)}}`) as { id?: string }
          if (id !== undefined) ids.set(id, (ids.get(id) ?? 0) + 1)
        },
      })
    }
  return ids
}

// F52: a backup copies files while they are written.
test('two backups at once while eight processes write: what was acknowledged before a backup began is in it, once', async () => {
  const told: Told[] = []
  const writers = Array.from({ length: 8 }, (_, n) => start('writer-program', at.dir, `w${n}`))
  for (const writer of writers) writer.on('message', (some) => void told.push(...(some as Told[])))
  await Promise.all(writers.map((writer) => once(writer, 'message')))
  await sleep(300)
  const backups = [...(await Promise.all([backUp(), backUp()])), await backUp()]
  for (const writer of writers) writer.send('stop')
  await Promise.all(writers.map((writer) => once(writer, 'exit')))

  const repository = await openRepository({ directory })
  for (const { id, beginsMs, findings } of backups) {
    expect(findings).toEqual([])
    const into = at.path(`restored-${id}`)
    await restoreBackup({ repository, snapshot: id, into })
    const ids = idsIn(into)
    const before = told.filter(({ atMs }) => atMs < beginsMs)
    expect(before.length).toBeGreaterThan(100)
    expect(before.filter((ack) => ids.get(ack.id) !== 1)).toEqual([])
    expect([...ids].filter(([, times]) => times > 1)).toEqual([])
    await inStore(into, async (store) => {
      for (let n = 0; n < 5; n++) await store.session(`shared:${n}`).append({ after: true })
      expect((await store.verify()).damage).toEqual([])
    })
  }
  expect((await repository.check({ deep: true })).ok).toBe(true)
  await repository.close()
}, 60_000)

test('killed at any moment, a backup leaves complete snapshots only, and the next one goes on', async () => {
  const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 100_000)
  console.log(`seed ${seed}`)
  await inStore(at.dir, async (store) => {
    for (let s = 0; s < 20; s++)
      await store.session(`k${s}`).append(Array.from({ length: 200 }, (_, n) => ({ n, text: `${s}-${n}`.repeat(40) })))
  })
  let killed = 0
  for (let trial = 0; trial < 6; trial++) {
    const child = start('backup-program', at.dir, directory)
    const ended = once(child, 'exit')
    await Promise.race([once(child, 'message'), ended])
    await sleep((seed * (trial + 7) * 7919) % 120)
    child.kill('SIGKILL')
    const [code] = (await ended) as [number | null]
    if (code === null) killed++
  }
  expect(killed).toBeGreaterThan(0)
  const repository = await openRepository({ directory })
  const last = await createBackup({ repository, store: at.dir })
  const report = await repository.check({ deep: true })
  expect(report.snapshots.map(({ ok }) => ok)).not.toContain(false)
  expect(report.objects).toEqual([])
  await restoreBackup({ repository, snapshot: last.snapshot.id, into: at.path('restored') })
  expect(await recordsIn(at.path('restored'))).toEqual(await recordsIn(at.dir))
  await repository.close()
}, 60_000)

/** Whose machine stops at the nth call that changes something. */
function dyingDisk(calls: number): { disk: Disk; dead: () => boolean } {
  let left = calls
  const disk: Record<string, unknown> = { ...nodeDisk }
  for (const name of ['open', 'write', 'rename', 'link', 'unlink', 'mkdir'] as const) {
    const call = nodeDisk[name] as (...args: unknown[]) => unknown
    disk[name] = (...args: unknown[]) => {
      if (name === 'open' && args[1] === 'read') return call(...args)
      if (left-- <= 0) throw Object.assign(new Error('EIO: stopped'), { code: 'EIO' })
      return call(...args)
    }
  }
  return { disk: disk as unknown as Disk, dead: () => left < 0 }
}

test('stopped at any call of the target, a backup leaves no snapshot or a whole one, and earlier ones as they were', async () => {
  await inStore(at.dir, async (store) => {
    for (let n = 0; n < 3; n++) await store.session(`k${n}`).append({ n, text: 'x'.repeat(500) })
  })
  const sound = await openRepository({ directory })
  const first = await createBackup({ repository: sound, store: at.dir })
  await inStore(at.dir, (store) => store.session('k1').append({ n: 'more' }))
  let complete = 1
  for (let calls = 0, finished = false; !finished; calls++) {
    const { disk, dead } = dyingDisk(calls)
    const target = new DirectoryTarget(directory, disk)
    const repository = new ObjectRepository({ repositoryId: sound.id, target, keyring: plainKeyring(), packBytes: 8 << 20 })
    finished = await createBackup({ repository, store: at.dir }).then(
      () => true,
      () => false,
    )
    if (finished) expect(dead()).toBe(false)
    const fresh = await openRepository({ directory })
    const { ok, snapshots } = await fresh.check({ deep: true })
    expect(ok, `after ${calls} calls`).toBe(true)
    expect(snapshots.length === complete || snapshots.length === complete + 1).toBe(true)
    complete = snapshots.length
    await fresh.close()
  }
  const into = at.path('restored')
  await restoreBackup({ repository: sound, snapshot: first.snapshot.id, into })
  expect((await recordsIn(into)).k1).toHaveLength(1)
  await sound.prune({ staleMs: 1 })
  expect((await sound.check({ deep: true })).ok).toBe(true)
  await sound.close()
}, 60_000)

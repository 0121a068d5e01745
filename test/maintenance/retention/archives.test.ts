/** What is unlinked, and what never is. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../../src/index.js'
import { type Archive, planArchives } from '../../../src/maintenance/retention/archives.js'
import type { ArchiveLimits } from '../../../src/upkeep.js'

const a = (file: string, at: number, key: string | null = 'k', bytes = 10): Archive => ({
  file,
  also: [],
  bytes,
  at,
  key: key ?? undefined,
  quarantine: false,
})
const q = (file: string, at: number): Archive => ({ file, also: [], bytes: 10, at, key: undefined, quarantine: true })

describe('which archives go', () => {
  test.each<[name: string, limits: ArchiveLimits, archives: Archive[], goes: string[], unsatisfied?: number]>([
    ['older than allowed', { maxAgeMs: 10 }, [a('x', 80), a('y', 90), a('z', 100)], ['x age']],
    ['the oldest beyond so many bytes', { maxBytes: 25 }, [a('y', 2), a('x', 1), a('z', 3)], ['x bytes']],
    ['the last of each key stay', { maxAgeMs: 0, keepLast: 1 }, [a('x', 1), a('y', 2), a('z', 3, 'other')], ['x age']],
    ['and those whose key nobody knows', { maxAgeMs: 0, keepLast: 1 }, [a('x', 1, null), a('y', 2, null)], []],
    ['which nothing says without keepLast', { maxAgeMs: 0 }, [a('x', 1, null)], ['x age']],
    ['bytes that cannot be kept unlink nothing', { maxBytes: 15, keepLast: 2 }, [a('x', 1), a('y', 2), a('z', 3, 'o')], [], 30],
    ['quarantine only when asked for', { maxAgeMs: 0 }, [q('q', 1)], []],
    ['then by age', { maxAgeMs: 10, quarantine: true }, [q('q', 1), q('r', 95)], ['q age']],
    ['and never for its bytes', { maxBytes: 0, quarantine: true }, [q('q', 1)], []],
  ])('%s', (_, limits, archives, goes, unsatisfied) => {
    const plan = planArchives(archives, limits, 100)
    expect(plan.goes.map(({ archive, rule }) => `${archive.file} ${rule}`)).toEqual(goes)
    expect(plan.unsatisfied.map(({ least }) => least)).toEqual(unsatisfied === undefined ? [] : [unsatisfied])
  })
})

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-archives-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

// F30
test('only files of the archive go, by their exact names; quarantine stays unless it is named', async () => {
  const store = await SessionStore.open(dir, { durability: 'process' })
  onTestFinished(() => store.close())
  const session = store.session('k')
  for (let n = 0; n < 3; n++) {
    await session.append({ n })
    await session.rotate()
    await sleep(10)
  }
  const archive = join(dir, 'archive')
  const ours = fs.readdirSync(archive).sort()
  const strange = ['keep.deleted.keep', `${ours[0]}.bak`, `x${ours[0]}`, 'notes.txt', `${ours[0]!.slice(0, 36)}.old.jsonl`]
  for (const name of strange) fs.writeFileSync(join(archive, name), 'mine')
  const packed = '01a1ff7e-2b63-7773-8234-93e4069c4db1.17'
  fs.writeFileSync(join(archive, `${packed}.jsonl.gz`), 'x')
  fs.writeFileSync(join(archive, `${packed}.json`), JSON.stringify({ key: 'k', at: 1 }))
  const quarantine = join(dir, 'quarantine', '20260101T000000Z-3f2a9c01')
  fs.mkdirSync(quarantine)
  fs.writeFileSync(join(quarantine, 'note.json'), '{}')
  await sleep(15)

  const archives = { maxAgeMs: 0, keepLast: 1 }
  const dry = await store.retain({ rules: { archives }, dryRun: true })
  expect(fs.readdirSync(archive)).toHaveLength(ours.length + strange.length + 2)
  const report = await store.retain({ rules: { archives } })
  expect(report.removed).toEqual(dry.removed)
  expect(report.removed.map(({ file, key }) => `${file} ${key}`)).toEqual(
    [`${packed}.jsonl.gz`, ...ours.slice(0, 2)].map((name) => `archive/${name} k`),
  )
  expect(fs.readdirSync(archive).sort()).toEqual([...strange, ours[2]].sort())
  expect(fs.existsSync(quarantine)).toBe(true)
  await store.retain({ rules: { archives: { ...archives, quarantine: true } } })
  expect(fs.existsSync(quarantine)).toBe(false)
  expect(report.archived).toEqual([])
})

test('a name in the archive that leads elsewhere is left alone', async () => {
  const store = await SessionStore.open(dir, { durability: 'process' })
  onTestFinished(() => store.close())
  const outside = join(dir, 'precious.jsonl')
  fs.writeFileSync(outside, 'mine')
  const name = join(dir, 'archive', '01a1ff7e-2b63-7773-8234-93e4069c4db1.jsonl')
  fs.symlinkSync(outside, name)
  await sleep(15)
  expect((await store.retain({ rules: { archives: { maxAgeMs: 0 } } })).removed).toEqual([])
  expect(fs.readFileSync(outside, 'utf8')).toBe('mine')
  expect(fs.lstatSync(name).isSymbolicLink()).toBe(true)
})

/** The drill of docs/backup.md, for each way in which sessions have been damaged in the field (F19 to F29): it is noticed, the last good
 *  snapshot comes back under a new path, writers go on there, and nothing from before that snapshot is missing. */
import fs from 'node:fs'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { compareBackups, createBackup, createRepository, type Repository, restoreBackup } from '../../../src/backup/index.js'
import { inStore, recordsIn, type Setting, setting, transcriptOf } from '../settings.js'

let at: Setting
let repository: Repository
beforeEach(async () => {
  at = setting('drill')
  repository = (await createRepository({ directory: at.path('target') })).repository
})
afterEach(async () => {
  await repository.close()
  at.remove()
})

const keys = ['agent:main', 'agent:other', 'cron:nightly']

async function work(from: number, to: number): Promise<void> {
  await inStore(at.dir, async (store) => {
    for (let n = from; n <= to; n++)
      for (const key of keys) await store.session(key).append({ type: 'message', n, text: `${key} says ${n} ${'.'.repeat(80)}` })
    await store.update('agent:main', () => ({ model: `m${to}` }))
  })
}

const inStorePath = (name: string) => path.join(at.dir, name)
const read = (file: string) => fs.readFileSync(file, 'utf8')
const linesOf = (file: string) => read(file).split('\n').slice(0, -1)
const write = (file: string, lines: readonly string[]) => fs.writeFileSync(file, lines.map((line) => `${line}\n`).join(''))

async function inTranscript(change: (file: string) => void): Promise<void> {
  change(await transcriptOf(at.dir, 'agent:main'))
}

const damages: Record<string, () => void | Promise<void>> = {
  'F19 sessions.json is empty': () => fs.truncateSync(inStorePath('sessions.json'), 0),
  'F19 sessions.json is cut': () => fs.truncateSync(inStorePath('sessions.json'), 40),
  'F19 sessions.json is full of NUL bytes': () => fs.writeFileSync(inStorePath('sessions.json'), '\0'.repeat(300)),
  'F19 sessions.json is []': () => fs.writeFileSync(inStorePath('sessions.json'), '[]'),
  'F19 sessions.json is {}, and the journal was removed with it': () => {
    fs.writeFileSync(inStorePath('sessions.json'), '{\n}\n')
    fs.rmSync(inStorePath('sessions.journal.jsonl'))
  },
  'F19 the metadata was begun anew beside the old transcripts': async () => {
    const aside = at.path('aside')
    fs.renameSync(inStorePath('transcripts'), aside)
    for (const name of fs.readdirSync(at.dir)) if (/^(sessions|holdfast)/.test(name)) fs.rmSync(inStorePath(name))
    await inStore(at.dir, async () => {})
    fs.rmSync(inStorePath('transcripts'), { recursive: true })
    fs.renameSync(aside, inStorePath('transcripts'))
  },
  'F20 a truncated line is welded to a whole one': () =>
    inTranscript((file) => {
      const lines = linesOf(file)
      write(file, [...lines.slice(0, 3), lines[3]!.slice(0, 40) + lines[4]!, ...lines.slice(5)])
    }),
  'F21 the header is damaged': () => inTranscript((file) => fs.writeFileSync(file, read(file).replace('"header"', '"heAder"'))),
  'F21 the header was damaged, and the file begun afresh': async () => {
    await inTranscript((file) => fs.rmSync(file))
    await inStore(at.dir, (store) => store.session('agent:main').append({ type: 'message', fresh: true })).catch(() => {})
  },
  'F22 a repair has dropped lines and kept none of them': () =>
    inTranscript((file) =>
      write(
        file,
        linesOf(file).filter((_, n) => n !== 4),
      ),
    ),
  'F23 a run of NUL bytes in mid-file': () =>
    inTranscript((file) => {
      const bytes = fs.readFileSync(file)
      fs.writeFileSync(file, bytes.fill(0, 400, 700))
    }),
  'F23 a file of no bytes': () => inTranscript((file) => fs.truncateSync(file, 0)),
  'F23 a line is there twice, and later ones are missing': () =>
    inTranscript((file) => {
      const lines = linesOf(file)
      write(file, [...lines.slice(0, 6), lines[5]!])
    }),
  'F24 a truncated file was renamed over a good one': () =>
    inTranscript((file) => fs.truncateSync(file, Math.floor(fs.statSync(file).size / 2))),
  'F26 a transcript is a symbolic link': () =>
    inTranscript((file) => {
      fs.renameSync(file, at.path('elsewhere'))
      fs.symlinkSync(at.path('elsewhere'), file)
    }),
  'F27 the last commits are gone after a power cut': () => inTranscript((file) => write(file, linesOf(file).slice(0, -2))),
  'F28 the first message is not there': () => inTranscript((file) => write(file, linesOf(file).slice(0, 1))),
  'F29 a chunk in the middle is missing': () =>
    inTranscript((file) => {
      const lines = linesOf(file)
      write(file, [...lines.slice(0, 3), ...lines.slice(6)])
    }),
  'F29 the end is missing, and everything parses': () => inTranscript((file) => write(file, linesOf(file).slice(0, 5))),
  'F30 a sweep has removed a live transcript': () => inTranscript((file) => fs.rmSync(file)),
}

describe('noticed, restored, gone on from', () => {
  test.each(Object.entries(damages))('%s', async (_, damage) => {
    await work(1, 8)
    await createBackup({ repository, store: at.dir })
    await work(9, 10)
    const good = await createBackup({ repository, store: at.dir })
    expect(good).toMatchObject({ ok: true, findings: [] })
    const before = await recordsIn(at.dir)
    await damage()

    const compared = await compareBackups({ repository, from: good.snapshot.id, to: { store: at.dir } })
    expect(compared.ok).toBe(false)
    const marked = await createBackup({ repository, store: at.dir })
    expect(marked.snapshot.damaged).toBe(true)
    expect(marked.comparedWith).toBe(good.snapshot.id)

    const last = (await repository.snapshots()).find(({ damaged }) => !damaged)!
    expect(last.id).toBe(good.snapshot.id)
    const into = at.path('restored')
    await restoreBackup({ repository, snapshot: last.id, into })
    await inStore(into, async (store) => {
      for (const key of keys) await store.session(key).append({ type: 'message', n: 11 })
      expect((await store.verify()).ok).toBe(true)
    })
    const after = await recordsIn(into)
    for (const key of keys) expect(after[key]).toEqual([...before[key]!, { type: 'message', n: 11 }])
    await inStore(into, async (store) => expect(await store.get('agent:main')).toMatchObject({ model: 'm10' }))
  })
})

describe('what is as it should be is not taken for damage', () => {
  test('a compaction of bytes: the transcript is shorter and says so', async () => {
    await work(1, 10)
    const { snapshot } = await createBackup({ repository, store: at.dir })
    await inStore(at.dir, async (store) => {
      const session = store.session('agent:main')
      await session.compact({ keepLast: 3, summarize: async () => 'what was said' })
      expect(await session.compactBytes()).toMatchObject({ compacted: true })
    })
    const compared = await compareBackups({ repository, from: snapshot.id, to: { store: at.dir } })
    expect(compared).toMatchObject({ ok: true })
    expect(compared.sessions.map(({ what }) => what)).toContain('remade')
    expect(await createBackup({ repository, store: at.dir })).toMatchObject({ ok: true, findings: [] })
  })

  test('a repair: what it saved is told, and it is no alarm', async () => {
    await work(1, 10)
    const { snapshot } = await createBackup({ repository, store: at.dir })
    await inTranscript((file) => fs.writeFileSync(file, read(file).replace('agent:main says 4', 'agent:main says 5')))
    expect((await createBackup({ repository, store: at.dir })).snapshot.damaged).toBe(true)
    await inStore(at.dir, async (store) => void (await store.repair(await store.planRepair())))
    const compared = await compareBackups({ repository, from: snapshot.id, to: { store: at.dir } })
    expect(compared).toMatchObject({ ok: true, sessions: [expect.objectContaining({ what: 'remade' })] })
    expect(await createBackup({ repository, store: at.dir })).toMatchObject({ ok: true })
  })
})

// F53: nobody notices damage until the good snapshots have rotated away.
test('forty snapshots of damaged data push no good one out', async () => {
  await work(1, 3)
  const good: string[] = []
  for (let n = 0; n < 5; n++) good.push((await createBackup({ repository, store: at.dir })).snapshot.id)
  await inTranscript((file) => write(file, linesOf(file).slice(0, 3)))
  for (let n = 0; n < 40; n++) expect((await createBackup({ repository, store: at.dir })).snapshot.damaged).toBe(true)
  await repository.forget({ keepLast: 30 })
  await repository.prune()
  const left = await repository.snapshots()
  expect(left.filter(({ damaged }) => !damaged).map(({ id }) => id)).toEqual([...good].reverse())
  expect(left).toHaveLength(5 + 30)
  expect((await repository.check({ deep: true })).ok).toBe(true)
  await restoreBackup({ repository, snapshot: good[4]!, into: at.path('restored') })
  expect((await recordsIn(at.path('restored')))['agent:main']).toHaveLength(3)
})

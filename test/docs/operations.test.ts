/** The programs of docs/operations.md, on stores that need them. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { encodeLine } from '../../src/file/log/record.js'
import { SessionStore } from '../../src/index.js'
import { blocksOf } from './markdown.js'
import { type Ran, runProgram } from './programs.js'

const page = 'docs/operations.md'
let dir: string
let store: string

beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-operations-'))
  store = join(dir, 'sessions')
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

/** The n-th program under a heading. */
function program(heading: string, nth = 0, ...args: string[]): Promise<Ran> {
  const block = blocksOf(page).filter((candidate) => candidate.heading === heading && candidate.language === 'js')[nth]
  if (!block) throw new Error(`${page} has no program ${nth} under "${heading}"`)
  return runProgram(`operations-${block.line}`, block.text, [store, ...args], dir)
}

/** Two checkpoints, and commits since: what a process that was killed leaves. */
async function makeStore(): Promise<Record<string, unknown>> {
  const first = await SessionStore.open(join(dir, 'made'))
  for (let n = 0; n < 6; n++) await first.update(`k${n}`, () => ({ n }))
  await first.session('k1').append([{ n: 1 }, { n: 2 }, { n: 3 }])
  await first.checkpoint()
  for (let n = 4; n < 8; n++) await first.update(`k${n}`, (entry) => ({ ...entry, n: n * 10 }))
  await first.checkpoint()
  for (let n = 7; n < 9; n++) await first.update(`k${n}`, (entry) => ({ ...entry, n: n * 100 }))
  fs.cpSync(join(dir, 'made'), store, { recursive: true })
  await first.close()
  return contents()
}

/** All entries, of a store without damage. Looks only: the store stays as a killed process left it. */
async function contents(): Promise<Record<string, unknown>> {
  const opened = await SessionStore.open(store, { readOnly: true })
  const found: Record<string, unknown> = {}
  for await (const [key, entry] of opened.entries()) found[key] = entry
  const { damage } = await opened.verify()
  await opened.close()
  expect(damage).toEqual([])
  return found
}

const path = (name: string) => join(store, name)
const edit = (name: string, change: (text: string) => string) => fs.writeFileSync(path(name), change(fs.readFileSync(path(name), 'utf8')))

describe('rebuilding sessions.json from the generation before loses nothing', () => {
  for (const [how, damage] of Object.entries({
    empty: () => fs.truncateSync(path('sessions.json'), 0),
    'cut in half': () => fs.truncateSync(path('sessions.json'), 100),
    'full of NUL bytes': () => edit('sessions.json', (text) => '\0'.repeat(text.length)),
    gone: () => fs.unlinkSync(path('sessions.json')),
  }))
    test(how, async () => {
      const before = await makeStore()
      damage()
      await expect(SessionStore.open(store)).rejects.toMatchObject({ code: 'STORE_CORRUPT', effect: 'none' })
      expect(await program('Rebuilding sessions.json')).toMatchObject({ code: 0, stdout: 'rebuilt\n' })
      expect(await contents()).toEqual(before)
    })
})

test('the generation before, put in place of a damaged journal, is the state of the last checkpoint', async () => {
  await makeStore()
  edit('sessions.journal.jsonl', (text) => text.replace('"n":800', '"n":801'))
  await expect(SessionStore.open(store)).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
  for (const name of ['sessions.json', 'sessions.journal.jsonl']) fs.renameSync(path(name), path(`quarantine/${name}`))
  fs.copyFileSync(path('sessions.prev.json'), path('sessions.json'))
  fs.copyFileSync(path('sessions.prev.journal.jsonl'), path('sessions.journal.jsonl'))
  const found = await contents()
  expect(Object.fromEntries(Object.entries(found).map(([key, entry]) => [key, (entry as { n: number }).n]))).toEqual({
    k0: 0,
    k1: 1,
    k2: 2,
    k3: 3,
    k4: 40,
    k5: 50,
    k6: 60,
    k7: 70,
  })
})

describe('an edited sessions.json', () => {
  test('is adopted after folding, in whatever layout, and the store goes on from it', async () => {
    const before = await makeStore()
    expect(await program('Adopting an edited sessions.json', 0)).toMatchObject({ code: 0, stdout: 'folded\n' })
    edit('sessions.json', (text) => JSON.stringify({ ...JSON.parse(text), k0: { ...JSON.parse(text).k0, n: 77 } }, null, 2))
    await expect(SessionStore.open(store)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    expect(await program('Adopting an edited sessions.json', 1)).toMatchObject({ code: 0, stdout: 'adopted 9 entries\n' })
    expect(await contents()).toEqual({ ...before, k0: { ...(before.k0 as object), n: 77 } })
    const opened = await SessionStore.open(store)
    expect(await opened.session('k1').append({ n: 4 })).toMatchObject({ seq: 4, sessionId: (before.k1 as { sessionId: string }).sessionId })
    expect(await opened.update('k0', (entry) => ({ ...entry, n: 78 }))).toMatchObject({ n: 78 })
    await opened.close()
    expect(await contents()).toMatchObject({ k0: { n: 78 } })
  })

  test('is not adopted over commits that it lacks', async () => {
    await makeStore()
    edit('sessions.json', (text) => text.replace('"n":0', '"n":77'))
    const ran = await program('Adopting an edited sessions.json', 1)
    expect(ran.code).toBe(1)
    expect(ran.stderr).toContain('The journal holds commits that the edited file lacks')
  })

  test('is not adopted with an entry that names no session', async () => {
    await makeStore()
    await program('Adopting an edited sessions.json', 0)
    edit('sessions.json', (text) => JSON.stringify({ ...JSON.parse(text), k0: { sessionId: '../../elsewhere' } }))
    expect((await program('Adopting an edited sessions.json', 1)).stderr).toContain('The entry of k0 lacks sessionId')
  })
})

describe('a damaged transcript goes on from before the damage, and is kept', () => {
  async function damaged(change: (lines: string[]) => string[]): Promise<string> {
    const made = await SessionStore.open(store)
    const session = made.session('k')
    for (let n = 1; n <= 6; n++) await session.append({ n })
    const file = `transcripts/${(await made.get('k'))!.sessionId}.jsonl`
    await made.close()
    edit(file, (text) => change(text.split('\n')).join('\n'))
    return file
  }

  async function goesOnAfter(file: string, kept: readonly number[]): Promise<void> {
    const whole = fs.readFileSync(path(file), 'utf8')
    const ran = await program('Going on before the damage', 0, 'k')
    expect(ran).toMatchObject({ code: 0, stdout: `kept ${kept.length} records\n`, stderr: '' })
    expect(fs.readFileSync(path(file.replace('transcripts/', 'archive/')), 'utf8')).toEqual(whole)
    const opened = await SessionStore.open(store)
    await opened.session('k').append({ n: 'on' })
    const found: unknown[] = []
    for await (const { record } of opened.session('k').read()) found.push(record.n)
    await opened.close()
    expect(found).toEqual([...kept, 'on'])
  }

  test('an altered line', async () => {
    await goesOnAfter(await damaged((lines) => lines.map((line) => line.replace('{"n":4', '{"n":9'))), [1, 2, 3])
  })

  test('a missing line', async () => {
    await goesOnAfter(await damaged((lines) => lines.filter((line) => !line.startsWith('{"n":4'))), [1, 2, 3])
  })

  /** The same lines under another boot's writer: then only what they say of each other tells that something is missing. */
  function ofAnEarlierBoot(lines: string[]): string[] {
    let prev = 0
    return lines.map((line) => {
      const mark = /^(.*?),?"\$":"(\d+)\.(\d+)\.(-?\d+)\./.exec(line)
      if (!mark) return line
      const [seq, left, synced] = mark.slice(2).map(Number) as [number, number, number]
      const encoded = encodeLine(`${mark[1]}}`, { seq, left, synced, writer: '0000before00', prev })
      prev = encoded.crc
      return encoded.line.trimEnd()
    })
  }
  const withoutTheFourth = (lines: string[]) => ofAnEarlierBoot(lines).filter((line) => !line.startsWith('{"n":4'))

  test('a missing line in a file of an earlier boot', async () => {
    await goesOnAfter(await damaged(withoutTheFourth), [1, 2, 3])
  })

  // Found: the byte behind the first line that lacks what it continues is named, so that keeping what stands before it keeps the damage.
  test('the byte that is named is where the bytes are missing, not the end of the file', async () => {
    const file = await damaged(withoutTheFourth)
    const opened = await SessionStore.open(store, { readOnly: true })
    const { damage } = await opened.verify()
    await opened.close()
    expect(damage).toMatchObject([{ file, seq: 4, byte: fs.readFileSync(path(file)).indexOf('{"n":5') }])
  })
})

describe('inputs that nobody answers', () => {
  const runtime = `import { SessionStore } from 'holdfast'
const store = await SessionStore.open(process.argv[2])
const begun = new Promise((begin) => {
  store.runTurn('k', { input: { n: 1 } }, () => {
    begin()
    return new Promise(() => {})
  })
})
await begun
store.runTurn('k', { input: { n: 2 } }, () => {})
await store.runTurn('k', { input: { n: 3 }, whenBusy: 'coalesce' }, () => {})
while ((await store.session('k').tail(9)).length < 3) await new Promise((resolve) => setTimeout(resolve, 10))
process.kill(process.pid, 'SIGKILL')
setInterval(() => {}, 1_000)
`

  test('of processes that were killed are found by a turn of their key', async () => {
    await runProgram('operations-killed-runtime', runtime, [store], dir)
    const ran = await program('A stuck turn')
    expect(ran).toMatchObject({ code: 0, stderr: '' })
    expect(ran.stdout).toMatch(/^k: [23] unanswered\n$/)
    expect((await program('A stuck turn')).stdout).toBe('')
  })
})

test('a store that was moved is the same store', async () => {
  const before = await makeStore()
  fs.cpSync(store, join(dir, 'elsewhere'), { recursive: true })
  fs.rmSync(store, { recursive: true })
  fs.renameSync(join(dir, 'elsewhere'), store)
  expect(await contents()).toEqual(before)
})

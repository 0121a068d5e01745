/** The drills of docs/operations.md, typed as they stand there (F4, F19, F24, F29; P5, P7). */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { bin } from '../cli/run.js'
import { blocksOf } from './markdown.js'
import { programPath } from './programs.js'

const page = 'docs/operations.md'
const keys = ['agent:main:main', 'agent:main:other']
let dir: string
let store: string

beforeEach(async () => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-drills-'))
  store = join(dir, 'sessions')
  fs.mkdirSync(join(dir, 'bin'))
  fs.writeFileSync(join(dir, 'bin', 'npx'), `#!/bin/sh\nshift\nexec '${process.execPath}' '${bin}' "$@"\n`, { mode: 0o755 })
  const made = await SessionStore.open(store)
  for (const key of keys) for (let n = 1; n <= 6; n++) await made.session(key).append({ n })
  await made.session('agent:main:old').append({ n: 1 })
  await made.delete('agent:main:old')
  await made.close()
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

/** The blocks of a drill, one after another; what each printed, and how its last command ended. */
async function drill(heading: string, env: Record<string, string> = {}): Promise<{ code: number; stdout: string }[]> {
  const blocks = blocksOf(page).filter((block) => block.heading === heading && block.language === 'sh')
  expect(blocks.length).toBeGreaterThan(0)
  const ran: { code: number; stdout: string }[] = []
  for (const { text } of blocks) ran.push(await shell(text, env))
  return ran
}

function shell(text: string, more: Record<string, string>): Promise<{ code: number; stdout: string }> {
  const env = { ...process.env, ...more, PATH: `${join(dir, 'bin')}:${process.env.PATH}` }
  return new Promise((resolve) => {
    execFile('sh', ['-c', text], { cwd: dir, env, timeout: 60_000 }, (error, stdout) => {
      resolve({ code: error ? Number(error.code ?? -1) : 0, stdout })
    })
  })
}

async function numbersOf(opened: SessionStore, key: string): Promise<unknown[]> {
  const found: unknown[] = []
  for await (const { record } of opened.session(key).read()) found.push(record.n)
  return found
}

const transcriptOf = async (opened: SessionStore, key: string) => join(store, `transcripts/${(await opened.get(key))!.sessionId}.jsonl`)

test.each<[how: string, damage: (path: string) => void, left: number[]]>([
  ['has lost its end', (path) => fs.truncateSync(path, fs.statSync(path).size - 10), [1, 2, 3, 4, 5]],
  ['has an altered line', (path) => fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('{"n":3', '{"n":8')), [1, 2, 4, 5, 6]],
])('a transcript that %s: the drill saves the rest, under a process that has the store open', async (_, damage, left) => {
  const beside = await SessionStore.open(store)
  onTestFinished(() => beside.close())
  damage(await transcriptOf(beside, keys[0]!))
  await expect(beside.session(keys[0]!).append({ n: 7 })).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
  await beside.session(keys[1]!).append({ n: 7 })
  const [looked, mended] = await drill('A transcript is damaged')
  expect(looked).toMatchObject({ code: 1, stdout: expect.stringMatching(/damage\ttranscripts\/[\s\S]*lost\t1 record/) })
  expect(mended).toMatchObject({ code: 0, stdout: expect.stringMatching(/1 of 1 action done[\s\S]*ok\t/) })
  expect(await numbersOf(beside, keys[0]!)).toEqual(left)
  expect(await beside.session(keys[0]!).append({ n: 7 })).toMatchObject({ seq: 7 })
  expect(await numbersOf(beside, keys[1]!)).toEqual([1, 2, 3, 4, 5, 6, 7])
})

test('metadata of which sessions.json is empty: the drill brings everything back', async () => {
  fs.truncateSync(join(store, 'sessions.json'), 0)
  await expect(SessionStore.open(store)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  const [looked, mended] = await drill('The metadata is damaged')
  expect(looked).toMatchObject({ code: 1, stdout: expect.stringContaining('Nothing is lost') })
  expect(mended).toMatchObject({ code: 0, stdout: expect.stringMatching(/1 of 1 action done[\s\S]*ok\t/) })
  const opened = await SessionStore.open(store)
  onTestFinished(() => opened.close())
  for (const key of keys) expect(await numbersOf(opened, key)).toEqual([1, 2, 3, 4, 5, 6])
  expect(await opened.get('agent:main:old')).toBeUndefined()
})

test('a full disk: the drill shows what takes the room, and what may go goes', async () => {
  const [looked, freed] = await drill('The disk is full')
  expect(looked).toMatchObject({ code: 0, stdout: expect.stringContaining('archive') })
  expect(freed?.code).toBe(0)
  // Thirty days have not passed.
  expect(fs.readdirSync(join(store, 'archive'))).not.toEqual([])
})

test('a stopped process that has a turn: the drill names it, and its turn ends when it is woken', async () => {
  const program = programPath(
    'drills-stuck-turn',
    `import { SessionStore } from 'holdfast'
const store = await SessionStore.open(process.argv[2])
await store.runTurn('agent:main:main', { input: { n: 7 } }, async (turn) => {
  console.log('active')
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  await turn.append({ n: 8 })
})
await store.close()
`,
  )
  const child: ChildProcess = spawn(process.execPath, [program, store], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  await once(child.stdout!, 'data')
  child.kill('SIGSTOP')
  const [looked, woken] = await drill('Somebody holds everybody up', { PID: String(child.pid) })
  expect(looked?.stdout).toMatch(/agent:main:main/)
  expect(looked?.stdout).toMatch(new RegExp(`${child.pid}\\s+T`))
  expect(woken?.code).toBe(0)
  expect((await ended)[0]).toBe(0)
  const opened = await SessionStore.open(store, { readOnly: true })
  onTestFinished(() => opened.close())
  expect((await numbersOf(opened, keys[0]!)).slice(-2)).toEqual([7, 8])
})

test('a store that has to move: the drill puts a copy in its place, and it goes on', async () => {
  expect(await drill('The store has to move')).toMatchObject([{ code: 0, stdout: expect.stringMatching(/ok\t[\s\S]*ok\t/) }])
  expect(fs.existsSync(`${store}.old`)).toBe(true)
  const opened = await SessionStore.open(store)
  onTestFinished(() => opened.close())
  for (const key of keys) {
    expect(await numbersOf(opened, key)).toEqual([1, 2, 3, 4, 5, 6])
    expect(await opened.session(key).append({ n: 7 })).toMatchObject({ seq: 7 })
  }
})

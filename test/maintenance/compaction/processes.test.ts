/** Eight processes write one session and compact it, while any of them is killed or frozen at any moment (P1, P3; F2, F4). */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../../src/index.js'
import { seededRandom } from '../../simulation/seeded-random.js'

const program = fileURLToPath(new URL('../../../.build/test/maintenance/compaction/compactor-program.js', import.meta.url))
const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0
const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9)
const writers = 8
const runMs = soak ? 60_000 : 4_000

interface Said {
  readonly said: string
  readonly sessionId: string
  readonly seq: number
}

test('nothing acknowledged is lost, doubled or renumbered, and no id is forgotten, whoever is killed or frozen whenever', async () => {
  console.log(`seed ${seed}`)
  const random = seededRandom(seed)
  const dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-compactors-'))
  const storeDir = join(dir, 'store')
  const children = new Set<ChildProcess>()
  onTestFinished(() => {
    for (const child of children) child.kill('SIGKILL')
    fs.rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  })
  await (await SessionStore.open(storeDir)).close()
  let started = 0
  const start = () => {
    const name = `w${started++}`
    const child = fork(program, [storeDir, name, join(dir, `${name}.notes`)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    children.add(child)
  }
  for (let n = 0; n < writers; n++) start()

  let [kills, freezes] = [0, 0]
  // On a machine that is busy otherwise it takes longer until there is something to be said.
  const enough = () => fs.readdirSync(join(storeDir, 'archive')).length > 1 && allNotes(dir).length > 100
  const untilMs = performance.now() + runMs
  while (performance.now() < untilMs || (performance.now() < untilMs + 40_000 && !enough())) {
    await sleep(40 + random() * 160)
    const child = [...children][Math.floor(random() * children.size)]!
    if (random() < 0.4) {
      kills++
      child.kill('SIGKILL')
      children.delete(child)
      start()
    } else {
      freezes++
      child.kill('SIGSTOP')
      setTimeout(() => child.kill('SIGCONT'), 50 + random() * 900)
    }
  }
  await sleep(1_000)
  await Promise.all([...children].map(stop))

  const notes = allNotes(dir)
  expect(notes.filter((note) => 'wrong' in note || 'failed' in note)).toEqual([])
  const acknowledged = notes as Said[]
  console.log(`${acknowledged.length} acknowledged, ${kills} kills, ${freezes} freezes`)
  expect(acknowledged.length).toBeGreaterThan(100)
  const store = await SessionStore.open(storeDir)
  onTestFinished(() => store.close())
  expect((await store.verify()).damage).toEqual([])

  // Every number once, in whichever files it stands.
  const stored = new Map<number, string>()
  const put = (seq: number, said: string) => {
    expect(stored.get(seq) ?? said, `seq ${seq}`).toBe(said)
    stored.set(seq, said)
  }
  const archives = await store.archives('shared')
  expect(archives.length).toBeGreaterThan(0)
  for (const { archive } of archives) for await (const { seq, record } of store.readArchive(archive)) put(seq, String(record.said))
  for await (const { seq, record } of store.session('shared').read()) put(seq, String(record.said))
  expect(new Set(stored.values()).size).toBe(stored.size)
  expect(acknowledged.filter(({ seq, said }) => stored.get(seq) !== said)).toEqual([])

  const { sessionId } = (await store.get('shared'))!
  for (const { said, seq } of acknowledged.filter((_, at) => at % 50 === 0))
    expect(await store.session('shared').append({ said }, { id: said })).toEqual({ sessionId, seq, seqs: [seq], duplicate: true })
}, 120_000)

const allNotes = (dir: string) => fs.readdirSync(dir).flatMap((file) => (file.endsWith('.notes') ? notesOf(join(dir, file)) : []))

function notesOf(file: string): object[] {
  // The last line of one that was killed may be cut off.
  const lines = fs.readFileSync(file, 'utf8').split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as object)
}

async function stop(child: ChildProcess): Promise<void> {
  const told = once(child, 'message')
  child.send('stop')
  await told
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

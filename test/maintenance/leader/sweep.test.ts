/** F50: what killed processes leave behind goes, and nothing that may be in flight. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { type FileBackend, openFileBackend } from '../../../src/file/backend.js'
import { type Host, systemHost } from '../../../src/file/host.js'
import { heldName, holderPrefix, makerName } from '../../../src/file/lock/holder.js'
import type { Identity } from '../../../src/file/lock/staleness.js'
import { checkKey } from '../../../src/input.js'
import { Pace } from '../../../src/maintenance/pace.js'
import { Sweeper } from '../../../src/maintenance/sweep/sweep.js'

const hourMs = 3_600_000

let dir: string
let host: Host
let laterMs = 0
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-sweep-'))
  laterMs = 0
  const system = systemHost()
  host = { ...system, clock: { ...system.clock, monotonicMs: () => system.clock.monotonicMs() + laterMs } }
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

async function open(): Promise<FileBackend> {
  const options = {
    durability: 'process',
    checkpoint: 'auto',
    waitMs: 1_000,
    maxHoldMs: 1_000,
    readOnly: false,
    repair: false,
    checkKey,
  } as const
  const backend = await openFileBackend(dir, options, host)
  onTestFinished(() => backend.close())
  await backend.append('k', [{ json: '{"n":1}' }], {})
  return backend
}

async function sweep(sweeper: Sweeper): Promise<string[]> {
  const files = []
  for await (const { file } of sweeper.run(new Pace(host.clock))) files.push(file!)
  return files.sort()
}

const dead = (): Identity => ({ ...host.identity, pid: spawnSync('true').pid, startTime: '1' })
const elsewhere = (): Identity => ({ ...host.identity, pidNamespace: '99' })

function entryOf(who: Identity, does = 'commit', n = 10 ** 15): string {
  return heldName(n, holderPrefix(who), host.clock.monotonicMs(), 1_000, does, 'test', 'abc123abc123')
}

/** Somebody holds a lock, and has something in its stage. */
function hold(lock: string, who: Identity): string {
  const path = join(dir, 'locks', lock)
  fs.rmSync(path, { recursive: true, force: true })
  const entry = join(path, entryOf(who))
  fs.mkdirSync(entry, { recursive: true })
  fs.writeFileSync(join(entry, 'staged'), 'half a snapshot')
  return entry
}

test('stages, makings and tickets of the dead go; those of the living stay, and of others until they have been watched for an hour', async () => {
  const backend = await open()
  const locks = join(dir, 'locks')
  const made = (lock: string, who: Identity) => {
    const path = join(locks, `${lock}.${makerName(who, 'abcabcabcabc')}`)
    fs.mkdirSync(join(path, 'free.17'), { recursive: true })
    return path
  }
  const ticket = (lock: string, who: Identity) => {
    fs.mkdirSync(join(locks, `${lock}.queue`), { recursive: true })
    const path = join(locks, `${lock}.queue`, entryOf(who))
    fs.writeFileSync(path, '')
    return path
  }
  const prepared = (who: Identity) => {
    fs.mkdirSync(join(locks, 'prepared'), { recursive: true })
    const path = join(locks, 'prepared', `01a1ff7e-2b63-7773-8234-93e4069c4db1.${makerName(who, 'abcabcabcabc')}`)
    fs.writeFileSync(path, 'half a transcript')
    return path
  }
  const of = (who: Identity, n: number) => [
    prepared(who),
    hold(`transcripts/${n}`, who),
    made('metadata', who),
    made('.floor', who),
    made(`transcripts/${n}`, who),
    ticket(`transcripts/${n + 20}`, who),
  ]
  const [ofDead, ofLiving, ofOthers] = [of(dead(), 11), of(host.identity, 12), of(elsewhere(), 13)]
  const foreign = [join(locks, 'notes'), join(locks, 'metadata.new-thing'), join(locks, 'transcripts', '31.queue', 'mine')]
  for (const path of foreign) fs.writeFileSync(path, 'mine')
  const there = () => [ofDead, ofLiving, ofOthers, foreign].map((paths) => paths.filter((path) => fs.existsSync(path)).length)

  const sweeper = new Sweeper(backend.inside)
  expect(await sweep(sweeper)).toHaveLength(6)
  expect(there()).toEqual([0, 6, 6, 3])
  expect(fs.readdirSync(join(locks, 'transcripts', '11'))[0]).toMatch(/^free\./)
  laterMs = hourMs / 2
  await sweep(sweeper)
  // The lock itself is anybody's after its maxHoldMs, as ever; it is the rest that nobody else watches.
  expect(there()).toEqual([0, 6, 5, 3])
  laterMs = hourMs + 1_000
  await sweep(sweeper)
  expect(there()).toEqual([0, 6, 0, 3])
})

test('a half-written file of ours goes after an hour without change, and nothing that is only named like one', async () => {
  const backend = await open()
  const archive = join(dir, 'archive')
  const id = '01a1ff7e-2b63-7773-8234-93e4069c4db1'
  const [part, growing] = [join(archive, `${id}.json.part-0123456789abcdef`), join(archive, `${id}.7.jsonl.gz.part-0123456789abcdef.12345`)]
  const others = [
    `${id}.jsonl`,
    `${id}.json`,
    `${id}.json.part-`,
    `${id}.json.part-0123456789abcdeg`,
    `mine.part-0123456789abcdef`,
    `${id}.jsonl.part-0123456789abcdef`,
  ]
  for (const path of [part, growing, ...others.map((name) => join(archive, name))]) fs.writeFileSync(path, 'x')
  const sweeper = new Sweeper(backend.inside)
  expect(await sweep(sweeper)).toEqual([])
  laterMs = hourMs / 2
  fs.appendFileSync(growing, 'x')
  await sweep(sweeper)
  laterMs = hourMs + 1_000
  expect(await sweep(sweeper)).toEqual([`archive/${id}.json.part-0123456789abcdef`])
  laterMs += hourMs
  expect(await sweep(sweeper)).toEqual([`archive/${id}.7.jsonl.gz.part-0123456789abcdef.12345`])
  expect(fs.readdirSync(archive).sort()).toEqual(others.sort())
})

test('leases and cards of turns that nobody has any more go', async () => {
  const backend = await open()
  const turns = join(dir, 'locks', 'turns')
  const name = 'a'.repeat(32)
  fs.mkdirSync(join(turns, name, entryOf(dead(), 'turn')), { recursive: true })
  fs.mkdirSync(join(turns, 'b'.repeat(32), entryOf(host.identity, 'turn')), { recursive: true })
  fs.mkdirSync(join(turns, `${name}.queue`), { recursive: true })
  fs.writeFileSync(join(turns, `${name}.queue`, entryOf(dead(), 'queued')), '')
  await sweep(new Sweeper(backend.inside))
  expect(fs.readdirSync(turns).filter((each) => !each.startsWith('.'))).toEqual(['b'.repeat(32)])
})

test('a commit goes on while it is swept, and a lock that is in use is not touched', async () => {
  const backend = await open()
  const sweeper = new Sweeper(backend.inside)
  const appends = Array.from({ length: 200 }, (_, n) => backend.append(`k${n % 40}`, [{ json: `{"n":${n}}` }], {}))
  for (let tries = 0; tries < 20; tries++) await sweep(sweeper)
  await Promise.all(appends)
  expect(backend.stats()).toMatchObject({ locksLost: 0, takeovers: { dead: 0, expired: 0 } })
})

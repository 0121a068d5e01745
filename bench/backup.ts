/** A backup of a store of agent transcripts, then another after 1 % of growth, unencrypted where there is a choice.
 *  The floor reads the same files with tar and writes one compressed archive with zstd (its default level, one thread). Text is made of
 *  words by lot, so that it compresses as prose does. Then the durable appends of a writer, alone and while one full backup follows another. */
import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createBackup, createRepository, openRepository } from '../src/backup/index.js'
import { SessionStore } from '../src/index.js'
import { median, quantile } from './harness/measure.js'
import { isBelow } from './harness/verdict.js'
import type { Bench, Row, Verdict, Workload } from './harness/workload.js'

/** As built for users, beside the compiled benchmarks. */
const cli = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
const sessions = 100

interface Contestant {
  readonly name: string
  make(target: string): Promise<void>
  first(store: string, target: string): Promise<void>
  /** Undefined for one that knows only whole copies. */
  second?(store: string, target: string): Promise<void>
}

const quiet = { stdio: ['ignore', 'ignore', 'inherit'] as ('ignore' | 'inherit')[] }
const shell = (command: string) => execFileSync('sh', ['-c', command], quiet)
const resticEnv = { ...process.env, RESTIC_PASSWORD: 'bench' }
const restic = (...args: string[]) => execFileSync('restic', args, { ...quiet, env: resticEnv })

const floor: Contestant = {
  name: 'tar | zstd',
  async make(target) {
    fs.mkdirSync(target)
  },
  async first(store, target) {
    shell(`tar -C '${store}' -cf - . | zstd -q -o '${target}/archive.tar.zst'`)
  },
}

const create = async (store: string, target: string) => {
  const repository = await openRepository({ directory: target })
  await createBackup({ repository, store })
  await repository.close()
}

const ours: Contestant = {
  name: 'holdfast backup',
  async make(target) {
    await (await createRepository({ directory: target })).repository.close()
  },
  first: create,
  second: create,
}

const copy = async (store: string, target: string) => void restic('-q', 'backup', '-r', target, store)

const peer: Contestant = {
  name: 'restic',
  async make(target) {
    restic('-q', 'init', '-r', target)
  },
  first: copy,
  second: copy,
}

function contestants(): Contestant[] {
  return [floor, ours, ...(isThere('restic') ? [peer] : [])]
}

function isThere(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], quiet)
    return true
  } catch {
    return false
  }
}

export const backup: Workload = {
  name: 'backup',
  title: `a backup of ${sessions} transcripts, and of 1 % more; durable appends beside it (tar and restic are processes; Holdfast runs in this one)`,
  async run(bench) {
    const store = join(bench.dir, 'store')
    const bytes = await fill(store, bench.quick ? 500 : 3_000)
    bench.note(`  the store has ${(bytes / 1e6).toFixed(0)} MB`)
    const runs = await compared(bench, store)
    const { rows: beside, verdict } = await appendsBeside(bench, store)
    const [tar, ours] = [runs[0]!, runs[1]!]
    return {
      rows: [...runs.flatMap(rowsOf), ...beside],
      verdicts: [reaches(tar, ours, bytes), ...increments(ours), verdict],
    }
  },
}

interface Run {
  readonly name: string
  readonly firstMs: number[]
  readonly secondMs: number[]
  readonly firstBytes: number[]
  readonly secondBytes: number[]
}

async function compared(bench: Bench, store: string): Promise<Run[]> {
  const all = contestants()
  const runs = all.map(({ name }): Run => ({ name, firstMs: [], secondMs: [], firstBytes: [], secondBytes: [] }))
  const rounds = bench.quick ? 1 : 3
  for (let round = 0; round < rounds; round++) {
    const targets = all.map((_, at) => join(bench.dir, `target-${round}-${at}`))
    for (const [at, { make, first }] of all.entries()) {
      await make(targets[at]!)
      runs[at]!.firstMs.push(await timed(() => first(store, targets[at]!)))
      runs[at]!.firstBytes.push(sizeOf(targets[at]!))
    }
    await grow(store)
    for (const [at, { second }] of all.entries()) {
      if (!second) continue
      runs[at]!.secondMs.push(await timed(() => second(store, targets[at]!)))
      runs[at]!.secondBytes.push(sizeOf(targets[at]!) - runs[at]!.firstBytes.at(-1)!)
    }
    for (const target of targets) fs.rmSync(target, { recursive: true })
  }
  return runs
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now()
  await work()
  return performance.now() - startedMs
}

function sizeOf(directory: string): number {
  const files = fs.readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return files.reduce((sum, { parentPath, name }) => sum + fs.statSync(join(parentPath, name)).size, 0)
}

function rowsOf({ name, firstMs, secondMs, firstBytes, secondBytes }: Run): Row[] {
  const row = (what: string, ms: readonly number[], bytes: readonly number[]): Row => ({
    contestant: `${name}, ${what}`,
    median: median(ms),
    low: Math.min(...ms),
    high: Math.max(...ms),
    unit: 'ms',
    remark: `${(median(bytes) / 1e6).toFixed(2)} MB stored`,
  })
  return [row('first', firstMs, firstBytes), ...(secondMs.length > 0 ? [row('after 1 %', secondMs, secondBytes)] : [])]
}

function reaches(tar: Run, ours: Run, bytes: number): Verdict {
  const rate = (run: Run) => bytes / 1e3 / median(run.firstMs)
  const share = rate(ours) / rate(tar)
  return {
    requirement: "first backup: half of tar | zstd's throughput",
    measured: `${rate(ours).toFixed(0)} MB/s`,
    floor: `${tar.name} ${rate(tar).toFixed(0)} MB/s`,
    ratio: share.toFixed(2),
    required: "at least 0.5 x the floor's rate",
    ok: share >= 0.5,
  }
}

function increments({ firstMs, secondMs, firstBytes, secondBytes }: Run): Verdict[] {
  const share = (of: readonly number[], whole: readonly number[]) => (100 * median(of)) / median(whole)
  return [
    isBelow('after 1 %: 5 % of the bytes of the first', share(secondBytes, firstBytes), 5, '%'),
    isBelow("after 1 %: 5 % of the first's time", share(secondMs, firstMs), 5, '%'),
  ]
}

const words = 'the build passes on both machines now flaky test was one that slept for a fixed time please look into it and tell me'.split(
  ' ',
)

/** The same text in every run. */
function* prose(seed: number): Generator<string, never> {
  let state = seed
  for (;;) {
    const said: string[] = []
    for (let n = 0; n < 90; n++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      said.push((state & 15) === 0 ? state.toString(36) : words[(state >>> 8) % words.length]!)
    }
    yield said.join(' ')
  }
}

async function fill(dir: string, recordsEach: number): Promise<number> {
  const store = await SessionStore.open(dir, { durability: 'process' })
  for (let s = 0; s < sessions; s++) {
    const text = prose(s + 1)
    for (let n = 0; n < recordsEach; n += 100)
      await store
        .session(`agent:main:${s}`)
        .append(Array.from({ length: 100 }, () => ({ type: 'message', message: { role: 'user', content: text.next().value } })))
  }
  await store.close()
  return sizeOf(dir)
}

/** A tenth of the sessions by a tenth. */
async function grow(dir: string): Promise<void> {
  const store = await SessionStore.open(dir, { durability: 'process' })
  const text = prose(Date.now() & 0xffff)
  for (let s = 0; s < sessions; s += 10) {
    const session = store.session(`agent:main:${s}`)
    const [last] = await session.tail(1)
    const more = Math.round(last!.seq / 10)
    for (let n = 0; n < more; n++) await session.append({ type: 'message', message: { role: 'user', content: text.next().value } })
  }
  await store.close()
}

async function appendsBeside(bench: Bench, dir: string): Promise<{ rows: Row[]; verdict: Verdict }> {
  const store = await SessionStore.open(dir)
  const target = join(bench.dir, 'beside')
  await ours.make(target)
  const forMs = bench.quick ? 1_500 : 5_000
  const alone: number[] = []
  const beside: number[] = []
  let backups = 0
  for (let round = 0; round < 2; round++) {
    alone.push(...(await appends(store, forMs)))
    let running = true
    const backingUp = (async () => {
      while (running) {
        const child = spawn(process.execPath, [cli, 'backup', 'create', '--full', '--store', dir, '--to', target], quiet)
        await new Promise((resolve) => child.on('exit', resolve))
        backups++
      }
    })()
    beside.push(...(await appends(store, forMs)))
    running = false
    await backingUp
  }
  await store.close()
  const row = (contestant: string, took: readonly number[], remark?: string): Row => ({
    contestant,
    median: median(took),
    low: Math.min(...took),
    high: Math.max(...took),
    unit: 'ms',
    p99: quantile(took, 0.99),
    longest: Math.max(...took),
    remark,
  })
  const [idle, busy] = [quantile(alone, 0.99), quantile(beside, 0.99)]
  return {
    rows: [row('durable append, alone', alone), row('durable append, beside full backups', beside, `${backups} backups`)],
    verdict: {
      requirement: "a writer's p99 beside a backup: 2 x of idle",
      measured: `${busy.toFixed(2)} ms`,
      floor: `alone ${idle.toFixed(2)} ms`,
      ratio: (busy / idle).toFixed(2),
      required: 'at most 2 x',
      ok: busy <= 2 * idle,
    },
  }
}

/** One every 2 ms or so, as a gateway has them. @returns how long each took, ms */
async function appends(store: SessionStore, forMs: number): Promise<number[]> {
  const took: number[] = []
  const session = store.session('agent:main:0')
  for (const untilMs = performance.now() + forMs; performance.now() < untilMs; ) {
    const startedMs = performance.now()
    await session.append({ type: 'message', message: { role: 'user', content: 'x'.repeat(500) } })
    took.push(performance.now() - startedMs)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  return took
}

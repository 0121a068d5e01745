/** Stores that are damaged on purpose, and what becomes of them. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import type { RepairPlan, RepairReport } from '../../../src/repair-plan.js'
import { SessionStore } from '../../../src/store.js'
import type { StoredRecord, VerifyReport } from '../../../src/types.js'
import { copyStore } from '../store-copy.js'

export interface Made {
  readonly dir: string
  readonly sessionId: string
  /** Of the transcript. */
  readonly path: string
  readonly file: string
}

export const damagedKey = 'agent:main:main'

/** A directory that goes when the test ends. */
export function scratchDirectory(): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-repair-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** A store with a session of records `{ n: 1 }` to `{ n: count }`, single and in batches, and another one beside it. */
async function makeStore(count: number, dir: string, padding: string): Promise<Made> {
  const store = await SessionStore.open(dir, { durability: 'process' })
  const session = store.session(damagedKey)
  for (let n = 1; n <= count; ) {
    const size = n % 5 === 0 ? Math.min(3, count - n + 1) : 1
    const batch = Array.from({ length: size }, (_, at) => ({ n: n + at, text: `text ${n + at}${padding}` }))
    await session.append(batch, n % 3 === 0 ? { id: `id-${n}` } : {})
    n += size
  }
  await store.session('agent:other:main').append({ other: true })
  const { sessionId } = (await store.get(damagedKey))!
  await store.close()
  const file = `transcripts/${sessionId}.jsonl`
  return { dir, sessionId, file, path: join(dir, file) }
}

/** One that all tests of a file copy. */
export function templateStore(count = 12, padding = ''): () => Made {
  let made: Made | undefined
  let around = ''
  beforeAll(async () => {
    around = mkdtempSync(join(tmpdir(), 'holdfast-template-'))
    made = await makeStore(count, join(around, 'store'), padding)
  })
  afterAll(() => rmSync(around, { recursive: true, force: true }))
  return () => copyOf(made!)
}

function copyOf(made: Made): Made {
  const dir = join(scratchDirectory(), 'store')
  copyStore(made.dir, dir)
  return { ...made, dir, path: join(dir, made.file) }
}

export function linesOf(path: string): Buffer[] {
  return readFileSync(path, 'latin1')
    .split(/(?<=\n)/)
    .map((line) => Buffer.from(line, 'latin1'))
}

export function writeLines(path: string, lines: readonly Buffer[]): void {
  writeFileSync(path, Buffer.concat(lines))
}

export interface Repaired {
  readonly plan: RepairPlan
  readonly report: RepairReport
  readonly records: StoredRecord[]
  readonly verified: VerifyReport
}

/** Verify, plan, apply, verify again, plan again: everything that is promised of every repair. */
export async function repairedStore({ dir }: Made, key = damagedKey): Promise<Repaired> {
  const store = await SessionStore.open(dir, { durability: 'process', repair: true })
  onTestFinished(() => store.close())
  const plan = await store.planRepair()
  const before = bytesBelow(dir)
  const report = await store.repair(JSON.parse(JSON.stringify(plan)) as RepairPlan)
  expect(report.actions.filter(({ outcome }) => outcome !== 'done')).toEqual([])
  const verified = await store.verify()
  expect(verified.damage).toEqual([])
  expect((await store.planRepair()).actions).toEqual([])
  const records: StoredRecord[] = []
  for await (const record of store.session(key).read()) records.push(record)
  assertKept(dir, plan, report, before)
  return { plan, report, records, verified }
}

/** Every file below a directory. */
export function bytesBelow(dir: string): Map<string, Buffer> {
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8' })
  return new Map(names.filter((name) => statSync(join(dir, name)).isFile()).map((name) => [name, readFileSync(join(dir, name))]))
}

/** Every removed byte is in quarantine, and its note says whence it came. */
export function assertKept(dir: string, plan: RepairPlan, report: RepairReport, before: ReadonlyMap<string, Buffer>): void {
  for (const action of plan.actions) {
    const planned = action.quarantines.reduce((sum, { bytes }) => sum + bytes, 0)
    const folder = report.actions.find(({ id }) => id === action.id)?.quarantine
    if (planned === 0) {
      expect(folder).toBeUndefined()
      continue
    }
    const note = JSON.parse(readFileSync(join(dir, folder!, 'note.json'), 'utf8')) as {
      files: Record<string, { file: string; ranges: { from: number; to: number }[] }>
    }
    let kept = 0
    for (const [name, { file, ranges }] of Object.entries(note.files)) {
      const bytes = readFileSync(join(dir, folder!, name))
      kept += bytes.length
      expect(bytes.equals(Buffer.concat(ranges.map(({ from, to }) => before.get(file)!.subarray(from, to))))).toBe(true)
    }
    expect(kept).toBe(planned)
    expect(readdirSync(join(dir, folder!)).sort()).toEqual([...Object.keys(note.files), 'note.json'].sort())
  }
}

export function makeDirectory(path: string): void {
  mkdirSync(path, { recursive: true })
}

/** Damaged metadata, and what a repair makes of them (P5, F19, F22): exactly what they were where the generation before proves it, else
 *  everything that is left anywhere, and a list of what is not. */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { RepairPlan, RepairReport } from '../../../src/repair-plan.js'
import { SessionStore } from '../../../src/store.js'
import { entriesOf, refusal } from '../../metadata/store-directory.js'
import { copyStore } from '../store-copy.js'
import { assertKept, bytesBelow, linesOf, scratchDirectory, writeLines } from './damaged-store.js'

const keys = ['agent:a', 'agent:b', 'agent:c', 'agent:d', '42', '__proto__']
let template = ''
let whole: [string, unknown][] = []

const options = { durability: 'process' } as const

beforeAll(async () => {
  template = join(mkdtempSync(join(tmpdir(), 'holdfast-metadata-')), 'store')
  const store = await SessionStore.open(template, options)
  for (const key of keys) await store.session(key).append({ first: key })
  await store.checkpoint()
  for (const key of keys) await store.update(key, (entry) => ({ ...entry, title: `the title of ${key}` }))
  await store.delete('agent:d')
  await store.checkpoint()
  await store.update('agent:a', (entry) => ({ ...entry, model: 'x' }))
  await store.update('agent:new', () => ({ model: 'y' }))
  await store.update('agent:b', (entry) => ({ ...entry, model: 'z' }))
  whole = await entriesOf(store.entries())
  // Not closed: that would fold the journal.
  const copy = `${template}.open`
  copyStore(template, copy)
  await store.close()
  template = copy
})
afterAll(() => rmSync(join(template, '..'), { recursive: true, force: true }))

function fresh(): string {
  const dir = join(scratchDirectory(), 'store')
  copyStore(template, dir)
  return dir
}

const at = (dir: string, file: string) => join(dir, file)
const sorted = (entries: readonly [string, unknown][]) => [...entries].sort(([a], [b]) => (a < b ? -1 : 1))

/** Refusing takes the store half a second: it looks again and again. So few tests ask for it. */
async function refused(dir: string): Promise<void> {
  expect(await refusal(() => SessionStore.open(dir, options))).toMatchObject({ kind: 'damaged' })
  const store = await SessionStore.open(dir, { ...options, repair: true })
  expect(await refusal(() => store.update('agent:a', () => ({})))).toMatchObject({ kind: 'damaged', effect: 'none' })
  expect((await store.verify()).ok).toBe(false)
  await store.close()
}

async function repaired(dir: string): Promise<{ plan: RepairPlan; report: RepairReport; entries: [string, unknown][] }> {
  const store = await SessionStore.open(dir, { ...options, repair: true })
  onTestFinished(() => store.close())
  const plan = await store.planRepair()
  const before = bytesBelow(dir)
  const report = await store.repair(JSON.parse(JSON.stringify(plan)) as RepairPlan)
  expect(report.actions.filter(({ outcome }) => outcome !== 'done')).toEqual([])
  assertKept(dir, plan, report, before)
  expect((await store.verify()).damage).toEqual([])
  expect((await store.planRepair()).actions).toEqual([])
  const entries = await entriesOf(store.entries())
  await store.update('agent:a', (entry) => ({ ...entry, after: true }))
  await store.close()
  const again = await SessionStore.open(dir, options)
  expect(await again.get('agent:a')).toMatchObject({ after: true })
  await again.close()
  return { plan, report, entries }
}

describe('sessions.json, with the generation before', () => {
  const half = (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1)
  test.each<[string, (bytes: Buffer) => Buffer]>([
    ['is cut in half', half],
    ['is full of NUL bytes', (bytes) => Buffer.alloc(bytes.length)],
    ['is []', () => Buffer.from('[]')],
    ['is {}', () => Buffer.from('{}')],
    ['has a wrong byte', (bytes) => Buffer.from(bytes.toString().replace('"sessionId"', '"sess\u0000onId"'))],
  ])('%s: every entry comes back as it was', async (how, damage) => {
    const dir = fresh()
    const before = readFileSync(at(dir, 'sessions.json'))
    writeFileSync(at(dir, 'sessions.json'), damage(before))
    if (how === 'is cut in half') await refused(dir)
    const { plan, entries } = await repaired(dir)
    expect(sorted(entries)).toEqual(sorted(whole))
    expect(plan.actions).toMatchObject([{ kind: 'rebuild-metadata', loses: { seqs: [], keys: [], notes: [] } }])
    // An edited file is adopted; a broken one is replaced by the very bytes that are lost.
    if (how !== 'is {}') expect(plan.actions[0]).toMatchObject({ work: { how: 'exact' } })
  })

  test('is gone: every entry comes back as it was, byte for byte', async () => {
    const dir = fresh()
    const before = readFileSync(at(dir, 'sessions.json'))
    rmSync(at(dir, 'sessions.json'))
    await refused(dir)
    const store = await SessionStore.open(dir, { ...options, repair: true })
    await store.repair(await store.planRepair())
    expect(readFileSync(at(dir, 'sessions.json')).equals(before)).toBe(true)
    expect(sorted(await entriesOf(store.entries()))).toEqual(sorted(whole))
    await store.close()
  })
})

describe('sessions.json, without the generation before', () => {
  test('a broken line costs that entry’s fields, no session and no other entry', async () => {
    const dir = fresh()
    rmSync(at(dir, 'sessions.prev.json'))
    rmSync(at(dir, 'sessions.prev.journal.jsonl'))
    const text = readFileSync(at(dir, 'sessions.json'), 'utf8')
    writeFileSync(at(dir, 'sessions.json'), text.replace('"agent:c":{', '"agent:c":<'))
    const { plan, entries } = await repaired(dir)
    const found = Object.fromEntries(entries)
    const was = Object.fromEntries(whole) as Record<string, { sessionId: string }>
    expect(sorted(entries.filter(([key]) => key !== 'agent:c'))).toEqual(sorted(whole.filter(([key]) => key !== 'agent:c')))
    expect(found['agent:c']).toMatchObject({ sessionId: was['agent:c']!.sessionId })
    expect(plan.actions[0]?.loses.notes.join(' ')).toContain('"agent:c"')
  })

  test('all of it is gone: every session that has a transcript gets its key back, and the plan says what it cannot know', async () => {
    const dir = fresh()
    for (const file of ['sessions.json', 'sessions.journal.jsonl', 'sessions.prev.json', 'sessions.prev.journal.jsonl'])
      rmSync(at(dir, file))
    const { plan, entries } = await repaired(dir)
    const was = whole.filter(([key]) => key !== 'agent:new') as [string, { sessionId: string; createdAt: number }][]
    expect(sorted(entries.map(([key, entry]) => [key, (entry as { sessionId: string }).sessionId]))).toEqual(
      sorted(was.map(([key, { sessionId }]) => [key, sessionId])),
    )
    expect(plan.actions[0]?.loses.notes.length).toBeGreaterThanOrEqual(2)
  })
})

describe('the journal', () => {
  const lines = (dir: string) => linesOf(at(dir, 'sessions.journal.jsonl'))
  const flip = (line: Buffer) => {
    const copy = Buffer.from(line)
    copy[copy.indexOf('"model"') + 1]! ^= 1
    return copy
  }

  test.each([1, 2, 3])('change %i is broken: all others stay, and one is said to be lost', async (line) => {
    const dir = fresh()
    const all = lines(dir)
    expect(all).toHaveLength(4)
    const key = /"key":"([^"]+)"/.exec(all[line]!.toString())![1]!
    writeLines(
      at(dir, 'sessions.journal.jsonl'),
      all.map((it, n) => (n === line ? flip(it) : it)),
    )
    const { plan, entries } = await repaired(dir)
    expect(sorted(entries.filter(([it]) => it !== key))).toEqual(sorted(whole.filter(([it]) => it !== key)))
    expect(plan.actions[0]).toMatchObject({ loses: { seqs: [expect.objectContaining({})], notes: [expect.stringContaining('1 change')] } })
  })

  test('its header is broken: nothing is lost', async () => {
    const dir = fresh()
    const all = lines(dir)
    all[0] = Buffer.from(all[0]!.toString().replace('"version"', '"VERSION"'))
    writeLines(at(dir, 'sessions.journal.jsonl'), all)
    expect(sorted((await repaired(dir)).entries)).toEqual(sorted(whole))
  })

  test('it is gone: what the snapshot has stays, and the plan says that later changes are lost', async () => {
    const dir = fresh()
    rmSync(at(dir, 'sessions.journal.jsonl'))
    const { plan, entries } = await repaired(dir)
    expect(entries.map(([key]) => key).sort()).toEqual(['42', '__proto__', 'agent:a', 'agent:b', 'agent:c'])
    expect(Object.fromEntries(entries)['agent:c']).toMatchObject({ title: 'the title of agent:c' })
    expect(plan.actions[0]?.loses.notes.join(' ')).toContain('journal is gone')
  })
})

describe('a pair that does not belong together', () => {
  test('an edited sessions.json is adopted, with the commits since, and the plan lists what it takes over', async () => {
    const dir = fresh()
    const edited = JSON.parse(readFileSync(at(dir, 'sessions.json'), 'utf8')) as Record<string, { title: string }>
    edited['agent:c']!.title = 'by hand'
    writeFileSync(at(dir, 'sessions.json'), JSON.stringify(edited, undefined, 2))
    const { plan, entries } = await repaired(dir)
    const expected = whole.map(
      ([key, entry]) => [key, key === 'agent:c' ? { ...(entry as object), title: 'by hand' } : entry] as [string, unknown],
    )
    expect(sorted(entries)).toEqual(sorted(expected))
    expect(plan.actions[0]?.recovers.notes.join(' ')).toContain('"agent:c"')
    expect(plan.actions[0]?.loses).toEqual({ seqs: [], keys: [], notes: [] })
  })

  test('an older sessions.json, restored alone, takes nothing back that was committed since', async () => {
    const dir = fresh()
    cpSync(at(dir, 'sessions.prev.json'), at(dir, 'sessions.json'))
    const { entries } = await repaired(dir)
    const old = entries.filter(([key]) => key === 'agent:d')
    expect(sorted(entries.filter(([key]) => key !== 'agent:d'))).toEqual(sorted(whole))
    // It was deleted between the two. The restored file has it: it comes back without its transcript, rather than go again unasked.
    expect(old.length).toBeLessThanOrEqual(1)
  })
})

describe('holdfast.json', () => {
  test.each(['{"format":1,"storeId', '\0\0\0\0'])('is %j: it is made anew, and nothing else is touched', async (text) => {
    const dir = fresh()
    const before = readFileSync(at(dir, 'sessions.json'))
    writeFileSync(at(dir, 'holdfast.json'), text)
    const { entries } = await repaired(dir)
    expect(sorted(entries)).toEqual(sorted(whole))
    expect(existsSync(at(dir, 'holdfast.json'))).toBe(true)
    expect(readFileSync(at(dir, 'sessions.json')).equals(before) || readFileSync(at(dir, 'sessions.prev.json')).equals(before)).toBe(true)
  })
})

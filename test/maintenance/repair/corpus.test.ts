/** Whole files that are damaged (P5, F19-F23): the header, all of it, its ends of line, another program's lines, the archive. What must come back
 *  stands with each. */

import diagnostics from 'node:diagnostics_channel'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../../src/store.js'
import { damagedKey as key, linesOf, type Made, repairedStore, scratchDirectory, templateStore, writeLines } from './damaged-store.js'

const fresh = templateStore(12)
const options = { durability: 'process' } as const
const all = Array.from({ length: 12 }, (_, at) => at + 1)

interface Case {
  readonly name: string
  readonly damage: (bytes: Buffer) => Buffer
  readonly back: readonly number[]
  /** Records said to be lost. */
  readonly lost: number
}

const lineOf = (bytes: Buffer, line: number) => {
  const lines = bytes.toString('latin1').split(/(?<=\n)/)
  return { before: lines.slice(0, line).join('').length, text: lines[line]! }
}
const text = (change: (text: string) => string) => (bytes: Buffer) => Buffer.from(change(bytes.toString('latin1')), 'latin1')
const nulls = (from: number, to: number) => (bytes: Buffer) =>
  Buffer.from(bytes).fill(0, lineOf(bytes, from).before, lineOf(bytes, to).before)

const cases: readonly Case[] = [
  { name: 'the header has a wrong byte', damage: text((it) => it.replace('"version":1', '"version":7')), back: all, lost: 0 },
  { name: 'the header is gone', damage: text((it) => it.slice(it.indexOf('\n') + 1)), back: all, lost: 0 },
  { name: 'the header is NUL bytes', damage: nulls(0, 1), back: all, lost: 0 },
  {
    name: 'the header and the first records are gone',
    damage: (bytes) => bytes.subarray(lineOf(bytes, 3).before),
    back: all.slice(2),
    lost: 2,
  },
  {
    name: 'the beginning is NUL bytes, into the middle of a line',
    damage: (bytes) => nulls(0, 4)(bytes).fill(0, 0, lineOf(bytes, 4).before + 9),
    back: all.slice(4),
    lost: 4,
  },
  { name: 'NUL bytes run over several lines (F23)', damage: nulls(4, 9), back: [1, 2, 3, 9, 10, 11, 12], lost: 5 },
  { name: 'the end is NUL bytes', damage: (bytes) => Buffer.from(bytes).fill(0, lineOf(bytes, 8).before), back: all.slice(0, 7), lost: 5 },
  { name: 'all of it is NUL bytes', damage: (bytes) => Buffer.alloc(bytes.length), back: [], lost: 12 },
  { name: 'it is empty', damage: () => Buffer.alloc(0), back: [], lost: 12 },
  { name: 'it was saved with other ends of line', damage: text((it) => it.replaceAll('\n', '\r\n')), back: all, lost: 0 },
  { name: 'blocks of it have changed places', damage: (bytes) => swapped(bytes, 4, 8, 10), back: all, lost: 0 },
  {
    name: 'it was opened in an editor that put a mark in front',
    damage: (bytes) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes]),
    back: all,
    lost: 0,
  },
]

function swapped(bytes: Buffer, from: number, middle: number, to: number): Buffer {
  const [a, b, c] = [from, middle, to].map((line) => lineOf(bytes, line).before) as [number, number, number]
  return Buffer.concat([bytes.subarray(0, a), bytes.subarray(b, c), bytes.subarray(a, b), bytes.subarray(c)])
}

test.each(cases)('$name', async ({ damage, back, lost }) => {
  const made = fresh()
  writeFileSync(made.path, damage(readFileSync(made.path)))
  const { plan, records } = await repairedStore(made)
  expect(records.map(({ record }) => record.n)).toEqual(back)
  expect(records.map(({ seq }) => seq)).toEqual(back)
  expect(plan.actions.map(({ kind }) => kind)).toEqual(['rewrite-log'])
  expect(plan.actions[0]!.loses.seqs.reduce((sum, { from, to }) => sum + to - from + 1, 0)).toBe(lost)
  const store = await SessionStore.open(made.dir, options)
  expect((await store.session(key).append({ after: true })).seq).toBe(13)
  // Idempotency ids come back with their records.
  if (back.length === 12) expect(await store.session(key).append({ n: 3 }, { id: 'id-3' })).toMatchObject({ duplicate: true, seq: 3 })
  await store.close()
})

describe('lines of another program before the header', () => {
  async function adopted(lines: readonly string[]): Promise<Made> {
    const dir = join(scratchDirectory(), 'store')
    const store = await SessionStore.open(dir, options)
    const { sessionId } = await store.update(key, () => ({}))
    const file = `transcripts/${sessionId}.jsonl`
    mkdirSync(join(dir, 'transcripts'), { recursive: true })
    writeFileSync(join(dir, file), lines.map((line) => `${line}\n`).join(''), { mode: 0o600 })
    await store.session(key).append({ n: 4 })
    await store.session(key).append({ n: 5 })
    await store.close()
    return { dir, sessionId, file, path: join(dir, file) }
  }

  test('stay as they are when the damage is behind them', async () => {
    const made = await adopted(['{ "n": 1 }', '{"n":2}', '{"n":3}'])
    const lines = linesOf(made.path)
    lines[4] = Buffer.from(lines[4]!.toString().replace('"n":4', '"n":9'))
    writeLines(made.path, lines)
    const { records } = await repairedStore(made)
    expect(records.map(({ seq, record }) => [seq, record.n])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [6, 5],
    ])
    expect(readFileSync(made.path, 'utf8')).toMatch(/^\{ "n": 1 \}\n/)
  })

  test('that are broken cost only themselves: the others become records, under their numbers', async () => {
    const made = await adopted(['{ "n": 1 }', '{"n":2}', '{"n":3}'])
    writeFileSync(made.path, readFileSync(made.path, 'utf8').replace('{"n":2}', '{"n":2'))
    const { records, plan } = await repairedStore(made)
    expect(records.map(({ seq, record }) => [seq, record.n])).toEqual([
      [1, 1],
      [3, 3],
      [5, 4],
      [6, 5],
    ])
    expect(plan.actions[0]?.loses.seqs).toEqual([{ from: 2, to: 2 }])
  })
})

test('an archived transcript is repaired where it lies', async () => {
  const made = fresh()
  const store = await SessionStore.open(made.dir, options)
  await store.session(key).rotate({ reason: 'reset' })
  await store.close()
  const file = `archive/${made.sessionId}.jsonl`
  const path = join(made.dir, file)
  writeFileSync(path, readFileSync(path, 'utf8').replace('text 4', 'text X'))
  const { plan } = await repairedStore(made)
  expect(plan.actions).toMatchObject([{ kind: 'rewrite-log', file, loses: { seqs: [{ from: 4, to: 4 }] } }])
  expect(readFileSync(path, 'utf8')).toContain('"reason":"rotated"')
})

test('several transcripts at once: each by itself, and one that is refused leaves the others alone', async () => {
  const made = fresh()
  const store = await SessionStore.open(made.dir, options)
  onTestFinished(() => store.close())
  const other = `transcripts/${(await store.get('agent:other:main'))!.sessionId}.jsonl`
  for (const path of [made.path, join(made.dir, other)])
    writeFileSync(path, readFileSync(path, 'latin1').replace('"version":1', '"version":7'), 'latin1')
  const plan = await store.planRepair()
  expect(plan.actions).toHaveLength(2)
  renameSync(made.path, `${made.path}.away`)
  const { ok, actions } = await store.repair(plan)
  expect(ok).toBe(false)
  expect(actions.map(({ file, outcome }) => [file === other, outcome]).sort()).toEqual([
    [false, 'refused'],
    [true, 'done'],
  ])
})

test('whoever listens on holdfast:repair hears what begins and how it ends', async () => {
  const made = fresh()
  writeFileSync(made.path, readFileSync(made.path, 'utf8').replace('text 4', 'text X'))
  const heard: unknown[] = []
  const listen = (message: unknown) => heard.push(message)
  diagnostics.subscribe('holdfast:repair', listen)
  onTestFinished(() => void diagnostics.unsubscribe('holdfast:repair', listen))
  await repairedStore(made)
  const about = { kind: 'rewrite-log', file: made.file, key, sessionId: made.sessionId }
  expect(heard).toMatchObject([
    { event: 'begin', ...about },
    { event: 'done', ...about, quarantine: expect.stringMatching(/^quarantine\//) },
  ])
})

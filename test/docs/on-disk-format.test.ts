/** docs/on-disk-format.md is true. After a change of the format: HOLDFAST_DOCS=write npx vitest run test/docs/on-disk-format.test.ts */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Chain } from '../../src/file/log/chain.js'
import { encodeLine, readBody, systemBody } from '../../src/file/log/record.js'
import { SessionStore } from '../../src/index.js'
import { type Block, blocksOf, programsOf, replaceBlock, writing } from './markdown.js'
import { exampleKey, makeCompactionExample, makeExample, makeForeignExample, makeTurnExample } from './worked-example.js'

const page = 'docs/on-disk-format.md'
const has = (command: string) => spawnSync(command, ['--version']).status === 0
let dir: string
let made: Map<string, string>

beforeAll(async () => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-docs-'))
  made = await makeExample(join(dir, 'store'))
  fs.writeFileSync(join(dir, 'store', 'records.py'), blocksOf(page).find(({ language }) => language === 'python')!.text)
  fs.writeFileSync(join(dir, 'store', 'records.jq'), blocksOf(page).find(({ language }) => language === 'jq')!.text)
})
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }))

/** The blocks that show whole files of the example, by file name. */
function shownFiles(): Map<string, Block> {
  const files = blocksOf(page).filter(({ heading, language }) => language === 'json' && made.has(heading))
  // holdfast.json has a section of its own; there and here it is the same.
  return new Map(files.map((block) => [block.heading, block]))
}

test('the worked example is what the code writes, byte for byte', () => {
  if (writing) for (const [name, text] of made) replaceBlock(page, shownFiles().get(name)!, text)
  expect(Object.fromEntries([...shownFiles()].map(([name, { text }]) => [name, text]))).toEqual(Object.fromEntries(made))
})

test('a transcript of another program, put in place by hand, goes on as the page shows', async () => {
  const shown = () => blocksOf(page).find(({ heading, language }) => heading === 'Lines without `$`' && language === 'json')!
  const text = await makeForeignExample(join(dir, 'foreign'))
  if (writing) replaceBlock(page, shown(), text)
  expect(shown().text).toBe(text)
  const store = await SessionStore.open(join(dir, 'foreign'), { readOnly: true })
  const records = await store.session(exampleKey).tail(9)
  await store.close()
  expect(records.map(({ seq, record }) => [seq, record.text])).toEqual([
    [1, 'Hello'],
    [2, 'Hi.'],
    [4, 'Still there?'],
  ])
})

test('a turn is written as the page shows', async () => {
  const shown = () => blocksOf(page).find(({ heading, language }) => heading === 'Turns' && language === 'json')!
  const text = await makeTurnExample(join(dir, 'turn'))
  if (writing) replaceBlock(page, shown(), text)
  expect(shown().text).toBe(text)
})

test('a compacted transcript is written as the page shows', async () => {
  const shown = () => blocksOf(page).find(({ heading, language }) => heading === 'Compaction' && language === 'json')!
  const text = await makeCompactionExample(join(dir, 'compaction'))
  if (writing) replaceBlock(page, shown(), text)
  expect(shown().text).toBe(text)
})

test('a session is guarded by the lock that the page names', () => {
  const sessionIds = [...made.keys()].flatMap((name) => /^(?:archive|transcripts)\/(.*)\.jsonl$/.exec(name)?.[1] ?? [])
  const slots = sessionIds.map((sessionId) => String(crc32(sessionId) % 64).padStart(2, '0'))
  expect(slots).toEqual(expect.arrayContaining(fs.readdirSync(join(dir, 'store', 'locks', 'transcripts'))))
})

test('directories and files have the modes that the page names', () => {
  for (const name of fs.readdirSync(join(dir, 'store'), { recursive: true, encoding: 'utf8' })) {
    if (name.startsWith('records.')) continue
    const stat = fs.statSync(join(dir, 'store', name))
    expect([name, (stat.mode & 0o777).toString(8)]).toEqual([name, stat.isDirectory() ? '700' : '600'])
  }
})

describe('each command of the page prints what the page says', () => {
  for (const [at, { program, prints }] of programsOf(page, 'sh').entries()) {
    const tool = /\b(jq|python3)\b/.exec(program.text)?.[1]
    test.skipIf(tool !== undefined && !has(tool))(`line ${program.line}${tool ? ` (needs ${tool})` : ''}`, () => {
      const printed = execFileSync('sh', ['-c', program.text], { cwd: join(dir, 'store'), encoding: 'utf8' })
      if (writing) replaceBlock(page, programsOf(page, 'sh')[at]!.shown, printed)
      else expect(printed).toBe(prints)
    })
  }
})

// — the page's readers against the library's, on logs as races and kills leave them —

const header = systemBody({ header: { log: 'transcript', version: 1, key: 'k', sessionId: 's', createdAt: 0 } })

type Step = { kind: 'commit' | 'late' | 'unfinished'; records: number } | { kind: 'torn'; broken: boolean } | { kind: 'seal' | 'turn' }

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('commit', 'late', 'unfinished'), records: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('torn'), broken: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('seal') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('turn') }) },
)

/** A log in which `late` batches continue a record that somebody else has continued already. */
function logOf(steps: readonly Step[]): string {
  let text = ''
  let writer = 0
  let last = { seq: -1, crc: 0 }
  let before = last
  const write = (bodies: readonly string[], from: { seq: number; crc: number }, lacking = 0) => {
    const name = `w${writer++}`
    let at = from
    for (const [index, body] of bodies.entries()) {
      const { line, crc } = encodeLine(body, {
        seq: at.seq + 1,
        left: bodies.length - 1 - index + lacking,
        synced: -1,
        writer: name,
        prev: at.crc,
      })
      text += line
      at = { seq: at.seq + 1, crc }
    }
    return at
  }
  const bodies = (records: number) => Array.from({ length: records }, (_, n) => JSON.stringify({ n, by: writer }))
  last = write([header], last)
  for (const item of steps) {
    const from = last
    if (item.kind === 'commit') last = write(bodies(item.records), last)
    else if (item.kind === 'seal') last = write([systemBody({ seal: { reason: 'deleted', at: 0 } })], last)
    else if (item.kind === 'turn') last = write([systemBody({ turn: { event: 'withdraw', request: 'r', at: 0 } })], last)
    else if (item.kind === 'late' && before.seq >= 0) write(bodies(item.records), before)
    else if (item.kind === 'unfinished') write(bodies(item.records), last, 1)
    else if (item.kind === 'torn') text += `{"n":1,"text":"cut o${item.broken ? '#\n' : ''}`
    if (last !== from) before = from
  }
  return text
}

function byTheLibrary(text: string): object[] {
  const found: object[] = []
  new Chain('0000').feed(Buffer.from(text), {
    record(mark, bytes, start) {
      const { json, system } = readBody(bytes, start, mark)
      if (!system?.header && !system?.seal && !system?.turn) found.push({ seq: mark.seq, record: JSON.parse(json) })
    },
  })
  return found
}

describe('the readers of the page agree with the library on logs full of void lines', () => {
  const logs = fc.sample(fc.array(step, { maxLength: 12 }), { seed: 20_260_101, numRuns: 60 }).map(logOf)
  const parse = (text: string) =>
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as unknown)
  const paths = () =>
    logs.map((text, at) => {
      const path = join(dir, `log-${at}.jsonl`)
      fs.writeFileSync(path, text)
      return path
    })

  test.skipIf(!has('jq'))('jq', () => {
    for (const [at, path] of paths().slice(0, 20).entries()) {
      const out = execFileSync('jq', ['-cRn', '-f', join(dir, 'store', 'records.jq'), path], { encoding: 'utf8' })
      // A seal ends a log; this reader does not know that, and no writer puts anything valid behind one.
      const sealedAt = logs[at]!.indexOf('{"$$":{"seal"')
      if (sealedAt < 0) expect(parse(out), logs[at]).toEqual(byTheLibrary(logs[at]!))
    }
  })

  test.skipIf(!has('python3'))('python', () => {
    const files = paths()
    // One interpreter for all: `each` runs the page's program as it stands, once for each file.
    const each = 'import runpy, sys\nfor path in sys.argv[2:]:\n  sys.argv[1] = path\n  runpy.run_path(sys.argv[0])\n  print("--")\n'
    const program = `import sys\nsys.argv[0:2] = [sys.argv[1], ""]\n${each}`
    const out = execFileSync('python3', ['-c', program, join(dir, 'store', 'records.py'), ...files], { encoding: 'utf8' })
    for (const [at, part] of out.split('--\n').slice(0, -1).entries()) {
      const records = part
        .split('\n')
        .filter(Boolean)
        .map((line) => {
          const cut = line.indexOf(' ')
          const { $: _mark, $$: system, ...record } = JSON.parse(line.slice(cut + 1))
          return { seq: Number(line.slice(0, cut)), system, record }
        })
      const users = records
        .filter(({ system }) => !system?.header && !system?.seal && !system?.turn)
        .map(({ seq, record }) => ({ seq, record }))
      expect(users, logs[at]).toEqual(byTheLibrary(logs[at]!))
    }
    expect(out.split('--\n')).toHaveLength(files.length + 1)
  })
})

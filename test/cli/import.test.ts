import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { SessionStore, type StoredRecord } from '../../src/index.js'
import { bin, holdfast, jsonLines, scratch, start, writeLines } from './run.js'

const place = scratch()
afterAll(() => place.remove())

interface Report {
  readonly finished: boolean
  readonly added: number
  readonly present: number
  readonly leftOut: number
  readonly sessions: {
    key: string
    added: number
    present: number
    leftOut: number
    version: number | null
    sessionId: string | null
    sourceSessionId: string
  }[]
  readonly problems: { path: string; line: number | null; key: string | null; why: string }[]
  readonly notes: string[]
}

async function importing(store: string, source: string, ...options: string[]): Promise<Report & { code: number | null; stderr: string }> {
  const { code, stdout, stderr } = await holdfast(['import', source, '--json', '--store', store, ...options])
  const [report] = jsonLines<Report>(stdout)
  if (!report) throw new Error(`no report: ${stderr}`)
  return { ...report, code, stderr }
}

async function recordsOf(store: string, key: string): Promise<StoredRecord[]> {
  const opened = await SessionStore.open(store, { readOnly: true })
  const records: StoredRecord[] = []
  for await (const record of opened.session(key).read()) records.push(record)
  await opened.close()
  return records
}

async function entryOf(store: string, key: string): Promise<Record<string, unknown> | undefined> {
  const opened = await SessionStore.open(store, { readOnly: true })
  const entry = await opened.get(key)
  await opened.close()
  return entry as Record<string, unknown> | undefined
}

const userMessage = (n: number) => ({
  type: 'message',
  timestamp: `t${n}`,
  message: { role: 'user', content: [{ type: 'text', text: `message ${n} é 😀` }] },
})

/** Made-up sessions as the three versions write them. */
const versions = {
  1: [
    { type: 'session', id: 'v1', timestamp: 't', cwd: '/home/me/shop', provider: 'p', modelId: 'm', thinkingLevel: 'off' },
    userMessage(1),
    { type: 'thinking_level_change', timestamp: 't2', thinkingLevel: 'high' },
    userMessage(2),
    { type: 'compaction', timestamp: 't3', summary: 's', firstKeptEntryIndex: 2, tokensBefore: 10 },
  ],
  2: [
    { type: 'session', version: 2, id: 'v2', timestamp: 't', cwd: '/home/me/shop' },
    { ...userMessage(1), id: 'a1', parentId: null },
    { type: 'message', id: 'a2', parentId: 'a1', timestamp: 't', message: { role: 'hookMessage', content: 'x' } },
  ],
  3: [
    { type: 'session', version: 3, id: 'v3', timestamp: 't', cwd: '/home/me/shop', parentSession: '/old.jsonl' },
    { ...userMessage(1), id: 'a1', parentId: null },
    { type: 'label', id: 'a2', parentId: 'a1', timestamp: 't', targetId: 'a1' },
    { type: 'custom_message', id: 'a3', parentId: 'a2', timestamp: 't', customType: 'c', content: 'hi', display: true },
  ],
} as const

describe('pi session files', () => {
  test.each([1, 2, 3] as const)('version %i comes in line by line as it is, and the second time nothing is added', async (version) => {
    const store = place.path(`pi-${version}`)
    const file = place.path(`v${version}.jsonl`)
    writeLines(file, versions[version])
    const key = `pi:shop:v${version}`
    const first = await importing(store, file)
    expect(first).toMatchObject({ code: 0, finished: true, added: versions[version].length, present: 0, leftOut: 0, notes: [] })
    expect(first.sessions).toEqual([expect.objectContaining({ key, version, sourceSessionId: `v${version}` })])
    const records = await recordsOf(store, key)
    expect(records.map(({ record }) => JSON.stringify(record))).toEqual(versions[version].map((line) => JSON.stringify(line)))
    const entry = await entryOf(store, key)
    expect(entry).toMatchObject({
      imported: {
        format: 'pi',
        version,
        sessionId: `v${version}`,
        cwd: '/home/me/shop',
        file: `v${version}.jsonl`,
        records: records.length,
      },
    })

    expect(await importing(store, file)).toMatchObject({ code: 0, added: 0, present: records.length })
    expect(await recordsOf(store, key)).toEqual(records)
    expect(await entryOf(store, key)).toEqual(entry)
  })

  test('a file that has grown adds only its new lines', async () => {
    const [store, file] = [place.path('grown'), place.path('grown.jsonl')]
    writeLines(file, versions[3])
    await importing(store, file)
    fs.appendFileSync(file, `${JSON.stringify({ ...userMessage(9), id: 'a9', parentId: 'a3' })}\n`)
    expect(await importing(store, file)).toMatchObject({ code: 0, added: 1, present: 4 })
    expect((await recordsOf(store, 'pi:shop:v3')).at(-1)?.record).toMatchObject({ id: 'a9' })
  })

  test('a version 1 file that pi has meanwhile rewritten as version 3 adds only its new lines, and that is said', async () => {
    const [store, file] = [place.path('rewritten'), place.path('rewritten.jsonl')]
    writeLines(file, versions[1])
    await importing(store, file)
    const [header, ...entries] = versions[1]
    const now = entries.map(({ firstKeptEntryIndex, ...entry }: Record<string, unknown>, i) => ({
      ...entry,
      id: `r${i}`,
      parentId: i > 0 ? `r${i - 1}` : null,
      ...(firstKeptEntryIndex ? { firstKeptEntryId: 'r1' } : {}),
    }))
    writeLines(file, [{ ...header, version: 3 }, ...now, { ...userMessage(3), id: 'r9', parentId: 'r3' }])
    const again = await importing(store, file)
    expect(again).toMatchObject({ code: 0, added: 1, present: 5 })
    expect(again.notes).toEqual([expect.stringContaining('was version 1 when it was first imported and is 3 now')])
  })

  test('a file that lost lines in the middle and gained one at the end adds that one', async () => {
    const [store, file] = [place.path('shrunk'), place.path('shrunk.jsonl')]
    const lines = [versions[1][0], ...[1, 2, 3, 4].map(userMessage)]
    writeLines(file, lines)
    await importing(store, file)
    writeLines(file, [lines[0]!, lines[1]!, lines[4]!, userMessage(5)])
    expect(await importing(store, file)).toMatchObject({ code: 0, added: 1, present: 3 })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual([...lines, userMessage(5)])
  })

  test('lines that cannot be taken are named with number and reason, the others come in, exit 1', async () => {
    const [store, file] = [place.path('garbage'), place.path('garbage.jsonl')]
    const good = JSON.stringify(userMessage(1))
    writeLines(
      file,
      [
        versions[1][0],
        'garbage',
        good,
        '',
        '\0\0\0',
        '{"$":"mine"}',
        good,
        '["array"]',
        '{"type":"message","message":{"role":"user","conte',
      ],
      '',
    )
    const report = await importing(store, file)
    expect(report).toMatchObject({ code: 1, finished: true, added: 3, leftOut: 5 })
    expect(report.problems).toEqual([
      { path: file, line: 2, key: 'pi:shop:v1', why: 'not JSON' },
      { path: file, line: 5, key: 'pi:shop:v1', why: expect.stringContaining('NUL') },
      { path: file, line: 6, key: 'pi:shop:v1', why: expect.stringContaining('"$"') },
      { path: file, line: 8, key: 'pi:shop:v1', why: 'not a JSON object' },
      { path: file, line: 9, key: 'pi:shop:v1', why: expect.stringContaining('torn') },
    ])
    // Two lines that say the same are two records.
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual([versions[1][0], userMessage(1), userMessage(1)])
    const text = await holdfast(['import', file, '--store', store])
    expect(text.code).toBe(1)
    expect(text.stdout).toContain(`left out\t${file}:9 ("pi:shop:v1"): torn`)
    expect(text.stdout).toMatch(/^done, with something left out\t0 records added, 3 there before, 5 left out; 1 session$/m)
    // The torn line is completed, and one follows: both come in, once.
    fs.appendFileSync(file, `nt":"x"}}\n${JSON.stringify(userMessage(2))}\n`)
    expect(await importing(store, file)).toMatchObject({ code: 1, added: 2, present: 3, leftOut: 4 })
  })

  test('a record over the bound of the store is left out alone', async () => {
    const [store, file] = [place.path('large'), place.path('large.jsonl')]
    writeLines(file, [versions[1][0], userMessage(1), { type: 'message', blob: 'x'.repeat(17 << 20) }, userMessage(2)])
    const report = await importing(store, file)
    expect(report).toMatchObject({ code: 1, added: 3, leftOut: 1 })
    expect(report.problems[0]).toMatchObject({ line: 3, why: expect.stringContaining('RECORD_TOO_LARGE') })
  })

  test('a number that does not fit a double is taken, and reported', async () => {
    const [store, file] = [place.path('number'), place.path('number.jsonl')]
    writeLines(file, [versions[1][0], '{"type":"message","chat":1234567890123456789}'])
    const report = await importing(store, file)
    expect(report).toMatchObject({ code: 1, added: 2, leftOut: 1 })
    expect(report.problems[0]?.why).toContain('1234567890123456789 became 1234567890123456800')
  })

  test('a file without its header comes in under the id of its name', async () => {
    const [store, file] = [place.path('headless'), place.path('2025_0a000000-0000-4000-8000-000000000001.jsonl')]
    writeLines(file, ['{"type":"sess', userMessage(1)])
    const report = await importing(store, file)
    expect(report).toMatchObject({ code: 1, added: 1, leftOut: 1 })
    expect(report.sessions[0]?.sourceSessionId).toBe('0a000000-0000-4000-8000-000000000001')
    expect(report.notes).toEqual([expect.stringContaining('has no session header')])
  })

  test('a directory tree of pi files comes in whole; what is no session is named', async () => {
    const store = place.path('tree-store')
    const dir = place.path('tree')
    for (const version of [1, 2, 3] as const) writeLines(path.join(dir, `--p${version}--`, `t_v${version}.jsonl`), versions[version])
    writeLines(path.join(dir, 'other.jsonl'), [{ hello: 'world' }])
    fs.writeFileSync(path.join(dir, 'empty.jsonl'), '')
    fs.writeFileSync(path.join(dir, 'readme.txt'), '')
    const report = await importing(store, dir)
    expect(report.sessions.map(({ key }) => key).sort()).toEqual(['pi:shop:v1', 'pi:shop:v2', 'pi:shop:v3'])
    expect(report).toMatchObject({ code: 1, added: 12, leftOut: 2 })
    expect(report.problems.map(({ path: file, why }) => [path.basename(file), why])).toEqual([
      ['empty.jsonl', 'the file is empty'],
      ['other.jsonl', expect.stringContaining('not a pi session file')],
    ])
  })

  test('--key names the session; a second conversation does not slip in beside the first', async () => {
    const store = place.path('keyed')
    for (const version of [2, 3] as const) writeLines(place.path(`keyed-${version}.jsonl`), versions[version])
    expect((await importing(store, place.path('keyed-2.jsonl'), '--key', 'mine')).sessions[0]).toMatchObject({ key: 'mine', added: 3 })
    const second = await importing(store, place.path('keyed-3.jsonl'), '--key', 'mine')
    expect(second).toMatchObject({ code: 1, added: 0, leftOut: 1 })
    expect(second.problems[0]?.why).toContain('--merge')
    expect(await recordsOf(store, 'mine')).toHaveLength(3)
    expect(await importing(store, place.path('keyed-3.jsonl'), '--key', 'mine', '--merge')).toMatchObject({ code: 0, added: 4 })
    expect(await recordsOf(store, 'mine')).toHaveLength(7)
    const several = await holdfast(['import', place.path('tree'), '--key', 'x', '--store', store])
    expect(several).toMatchObject({ code: 2, stderr: expect.stringContaining('--key names one session') })
  })

  test('a session that an application writes is not mixed with an import', async () => {
    const store = place.path('occupied')
    writeLines(place.path('occupied.jsonl'), versions[2])
    const opened = await SessionStore.open(store)
    await opened.session('agent:main:main').append({ n: 1 })
    await opened.close()
    expect(await importing(store, place.path('occupied.jsonl'), '--key', 'agent:main:main')).toMatchObject({
      code: 1,
      added: 0,
      leftOut: 1,
    })
    expect(await recordsOf(store, 'agent:main:main')).toHaveLength(1)
  })

  test('a session that goes on here takes later lines of its source, and none twice', async () => {
    const [store, file] = [place.path('both'), place.path('both.jsonl')]
    writeLines(file, versions[2])
    await importing(store, file)
    const opened = await SessionStore.open(store)
    await opened.session('pi:shop:v2').append({ n: 1 })
    await opened.close()
    fs.appendFileSync(file, `${JSON.stringify(userMessage(7))}\n`)
    expect(await importing(store, file)).toMatchObject({ code: 0, added: 1, present: 3 })
    expect((await recordsOf(store, 'pi:shop:v2')).map(({ record }) => record.type ?? 'own')).toEqual([
      'session',
      'message',
      'message',
      'own',
      'message',
    ])
  })

  test('after a rotation here nothing is added again; new lines of the source are reported', async () => {
    const [store, file] = [place.path('rotated'), place.path('rotated.jsonl')]
    writeLines(file, versions[2])
    await importing(store, file)
    const opened = await SessionStore.open(store)
    await opened.session('pi:shop:v2').rotate({ reason: 'reset' })
    await opened.close()
    expect(await importing(store, file)).toMatchObject({ code: 0, added: 0, present: 3 })
    fs.appendFileSync(file, `${JSON.stringify(userMessage(7))}\n`)
    const grown = await importing(store, file)
    expect(grown).toMatchObject({ code: 1, added: 0, present: 3, leftOut: 1 })
    expect(grown.problems[0]?.why).toContain('rotated here')
    expect(await recordsOf(store, 'pi:shop:v2')).toEqual([])
  })
})

describe('an OpenClaw sessions directory', () => {
  const header = (id: string) => ({ type: 'session', version: 3, id, timestamp: 't', cwd: '/ws' })
  function makeDirectory(name: string): string {
    const dir = place.path(name)
    writeLines(path.join(dir, 's1.jsonl'), [header('s1'), userMessage(1), userMessage(2)])
    writeLines(path.join(dir, 's2-topic-42.jsonl'), [header('s2'), userMessage(1)])
    writeLines(path.join(dir, 'old.jsonl'), [header('old'), userMessage(5)])
    writeLines(path.join(dir, 'gone.jsonl.deleted.2026-01-02T03-04-05.678Z'), [header('gone')])
    writeLines(path.join(dir, 'older.jsonl.reset.2026-01-02T03-04-05.678Z'), [header('older'), userMessage(6)])
    fs.writeFileSync(
      path.join(dir, 'sessions.json'),
      JSON.stringify({
        'agent:main:main': {
          sessionId: 's1',
          updatedAt: 5,
          sessionFile: '/root/elsewhere/s1.jsonl',
          model: 'opus',
          origin: { provider: 'telegram' },
        },
        'agent:main:telegram:group:-1:topic:42': { sessionId: 's2', updatedAt: 6 },
        'agent:main:missing': { sessionId: 's3', updatedAt: 7, label: 'kept' },
        'agent:main:broken': { updatedAt: 8 },
      }),
    )
    return dir
  }

  test('keys, fields and records come in; what is missing is named; again adds nothing', async () => {
    const [store, dir] = [place.path('claw-store'), makeDirectory('claw')]
    const first = await importing(store, dir)
    expect(first).toMatchObject({ code: 1, finished: true, added: 5, leftOut: 2 })
    expect(first.problems).toEqual([
      { path: path.join(dir, 'sessions.json'), line: null, key: 'agent:main:broken', why: expect.stringContaining('no sessionId') },
      { path: path.join(dir, 's3.jsonl'), line: null, key: 'agent:main:missing', why: expect.stringContaining('transcript is missing') },
    ])
    expect(first.notes).toEqual([expect.stringMatching(/^2 transcripts in .* are named by no session key/)])
    const entry = await entryOf(store, 'agent:main:main')
    expect(entry).toMatchObject({
      model: 'opus',
      origin: { provider: 'telegram' },
      imported: { format: 'openclaw', sessionId: 's1', updatedAt: 5, version: 3, records: 3 },
    })
    expect(entry).not.toHaveProperty('sessionFile')
    expect(entry?.sessionId).not.toBe('s1')
    expect(await entryOf(store, 'agent:main:missing')).toMatchObject({ label: 'kept' })
    expect(await recordsOf(store, 'agent:main:telegram:group:-1:topic:42')).toHaveLength(2)

    expect(await importing(store, path.join(dir, 'sessions.json'))).toMatchObject({ code: 1, added: 0, present: 5, leftOut: 2 })
    expect(await entryOf(store, 'agent:main:main')).toEqual(entry)
    expect(await recordsOf(store, 'agent:main:main')).toHaveLength(3)
  })

  test('--unreferenced brings earlier conversations, not deleted ones', async () => {
    const [store, dir] = [place.path('claw-all'), makeDirectory('claw-all-source')]
    const { sessions } = await importing(store, dir, '--unreferenced')
    expect(sessions.map(({ key }) => key).filter((key) => key.startsWith('openclaw:'))).toEqual(['openclaw:old', 'openclaw:older'])
  })

  test('a key that was reset at the source begins anew here too, and the old conversation is archived', async () => {
    const [store, dir] = [place.path('claw-reset'), makeDirectory('claw-reset-source')]
    await importing(store, dir)
    writeLines(path.join(dir, 's9.jsonl'), [header('s9'), userMessage(9)])
    fs.writeFileSync(
      path.join(dir, 'sessions.json'),
      JSON.stringify({ 'agent:main:main': { sessionId: 's9', updatedAt: 50, model: 'opus' } }),
    )
    const before = (await entryOf(store, 'agent:main:main'))?.sessionId
    expect(await importing(store, dir)).toMatchObject({ code: 0, added: 2 })
    expect((await recordsOf(store, 'agent:main:main')).map(({ record }) => record)).toEqual([header('s9'), userMessage(9)])
    expect(await entryOf(store, 'agent:main:main')).toMatchObject({ imported: { sessionId: 's9' } })
    expect((await entryOf(store, 'agent:main:main'))?.sessionId).not.toBe(before)
    expect((await importing(store, dir)).added).toBe(0)
  })

  test('fields changed here are left alone; fields changed only there are taken', async () => {
    const [store, dir] = [place.path('claw-fields'), makeDirectory('claw-fields-source')]
    await importing(store, dir)
    const change = (fields: object) =>
      fs.writeFileSync(
        path.join(dir, 'sessions.json'),
        JSON.stringify({ 'agent:main:main': { sessionId: 's1', updatedAt: 60, ...fields } }),
      )
    change({ model: 'sonnet' })
    await importing(store, dir)
    expect(await entryOf(store, 'agent:main:main')).toMatchObject({ model: 'sonnet' })
    const opened = await SessionStore.open(store)
    await opened.update('agent:main:main', (entry) => ({ ...entry, model: 'mine' }))
    await opened.close()
    change({ model: 'haiku' })
    const { notes } = await importing(store, dir)
    expect(notes).toContainEqual(expect.stringContaining('changed here'))
    expect(await entryOf(store, 'agent:main:main')).toMatchObject({ model: 'mine' })
  })

  // F19
  test.each(['', '[]', '{"agent:main:main":{"sess', '\0\0\0'])(
    'a damaged sessions.json (%j) is reported, never taken for an empty one',
    async (text) => {
      const dir = makeDirectory(`claw-damaged-${Buffer.from(text).toString('hex')}`)
      fs.writeFileSync(path.join(dir, 'sessions.json'), text)
      const report = await importing(`${dir}-store`, dir)
      expect(report).toMatchObject({ code: 1, added: 0, leftOut: 1 })
      expect(report.problems[0]?.why).toMatch(/^damaged: .*--unreferenced/)
    },
  )
})

describe('what cannot be imported, and what cuts an import short', () => {
  test('a path that is not there, a directory with nothing in it, a store: wrong use, and no store is made', async () => {
    const nothing = place.path('nothing')
    fs.mkdirSync(nothing)
    const opened = await SessionStore.open(place.path('a-store'))
    await opened.update('k', () => ({}))
    await opened.close()
    for (const [source, said] of [
      [place.path('nowhere'), /There is nothing at/],
      [nothing, /Nothing to import was found/],
      [place.path('a-store'), /is itself a Holdfast store/],
    ] as const) {
      const { code, stdout, stderr } = await holdfast(['import', source, '--store', place.path('never')])
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
      expect(stderr).toMatch(said)
    }
    expect(fs.existsSync(place.path('never'))).toBe(false)
  })

  test('Ctrl-C in the middle keeps a prefix, says so, exits 130; the same command goes on from there', async () => {
    const [store, file] = [place.path('cut'), place.path('cut.jsonl')]
    const lines = [versions[1][0], ...Array.from({ length: 40_000 }, (_, n) => ({ ...userMessage(n), filler: 'x'.repeat(200) }))]
    writeLines(file, lines)
    const run = start(['import', file, '--json', '--store', store])
    await grown(store, 100_000)
    run.child.kill('SIGINT')
    const { code, stdout, stderr } = await run.ended
    const [report] = jsonLines<Report>(stdout)
    expect(code).toBe(130)
    expect(report).toMatchObject({ finished: false, leftOut: 0 })
    expect(stderr).not.toMatch(/Error|\n\s+at /)
    const kept = await recordsOf(store, 'pi:shop:v1')
    expect(kept.length).toBe(report!.added)
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.length).toBeLessThan(lines.length)
    expect(kept.map(({ record }) => record)).toEqual(lines.slice(0, kept.length))
    expect(await importing(store, file)).toMatchObject({ code: 0, added: lines.length - kept.length, present: kept.length, stderr: '' })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
    // The store remembers the last 10,000 ids; an import knows what is there without them.
    expect(await importing(store, file)).toMatchObject({ code: 0, added: 0, present: lines.length, stderr: '' })
  }, 120_000)

  test('killed in the middle, again and again, the last run completes it without doubling', async () => {
    const [store, file] = [place.path('killed'), place.path('killed.jsonl')]
    const lines = [versions[1][0], ...Array.from({ length: 20_000 }, (_, n) => ({ ...userMessage(n), filler: 'x'.repeat(200) }))]
    writeLines(file, lines)
    const kept: number[] = []
    for (let kill = 0; kill < 3; kill++) {
      const run = start(['import', file, '--store', store])
      await grown(store, transcriptBytes(store) + 100_000)
      run.child.kill('SIGKILL')
      await run.ended
      kept.push((await recordsOf(store, 'pi:shop:v1')).length)
    }
    expect(kept).toEqual([...kept].sort((a, b) => a - b))
    expect(kept[0]).toBeGreaterThan(0)
    expect(kept.at(-1)).toBeLessThan(lines.length)
    expect(await importing(store, file)).toMatchObject({ code: 0, present: kept.at(-1), added: lines.length - kept.at(-1)! })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
  }, 120_000)
})

// P6
test('several imports of one file at once bring it in once, in order', async () => {
  const [store, file] = [place.path('twice'), place.path('twice.jsonl')]
  const lines = [versions[1][0], ...Array.from({ length: 3_000 }, (_, n) => userMessage(n))]
  writeLines(file, lines)
  const reports = await Promise.all([importing(store, file), importing(store, file), importing(store, file)])
  expect(reports.map(({ code }) => code)).toEqual([0, 0, 0])
  expect(reports.reduce((sum, { added }) => sum + added, 0)).toBe(lines.length)
  expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
})

test('one session that cannot be taken does not keep the others out', async () => {
  const [store, dir] = [place.path('some-store'), place.path('some')]
  for (const version of [2, 3] as const) writeLines(path.join(dir, `s${version}.jsonl`), versions[version])
  const describing = (keys: Record<string, string>) => {
    const sessions = Object.fromEntries(Object.entries(keys).map(([key, sessionId]) => [key, { sessionId }]))
    fs.writeFileSync(path.join(dir, 'sessions.json'), JSON.stringify(sessions))
  }
  describing({ damaged: 's2' })
  await importing(store, dir)
  const [name] = fs.readdirSync(path.join(store, 'transcripts'))
  const file = path.join(store, 'transcripts', name!)
  // Bytes that were acknowledged are gone from the middle.
  const bytes = fs.readFileSync(file)
  fs.writeFileSync(file, Buffer.concat([bytes.subarray(0, 300), bytes.subarray(320)]))
  describing({ damaged: 's2', [`too long ${'x'.repeat(600)}`]: 's3', sound: 's3' })
  const report = await importing(store, dir)
  expect(report).toMatchObject({ code: 1, finished: true, added: 4, leftOut: 2 })
  expect(report.problems.map(({ why }) => why)).toEqual([expect.stringContaining('LOG_CORRUPT'), expect.stringContaining('INVALID_KEY')])
  expect(await recordsOf(store, 'sound')).toHaveLength(4)
})

test.skipIf(process.platform === 'win32')(
  'a disk that is full in the middle: exit 3, the reason, a prefix kept; with room again the import goes on',
  async () => {
    const [store, file] = [place.path('full'), place.path('full.jsonl')]
    const lines = [versions[1][0], ...Array.from({ length: 5_000 }, (_, n) => ({ ...userMessage(n), filler: 'x'.repeat(200) }))]
    writeLines(file, lines)
    const full = spawnSync(
      'bash',
      ['-c', `ulimit -f 500; exec "$0" "$@"`, process.execPath, bin, 'import', file, '--json', '--store', store],
      { encoding: 'utf8' },
    )
    expect(full.status).toBe(3)
    const [report] = jsonLines<Report>(full.stdout)
    expect(report).toMatchObject({ finished: false, leftOut: 0, notes: [] })
    expect(jsonLines(full.stderr)).toEqual([
      { error: expect.objectContaining({ code: 'DISK_FULL', exitCode: 3, effect: 'none', retryable: true }) },
    ])
    const kept = await recordsOf(store, 'pi:shop:v1')
    expect(kept.length).toBe(report!.added)
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.map(({ record }) => record)).toEqual(lines.slice(0, kept.length))
    expect(await importing(store, file)).toMatchObject({ code: 0, present: kept.length, added: lines.length - kept.length })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
    expect((await holdfast(['verify', '--store', store])).code).toBe(0)
  },
)

function transcriptBytes(store: string): number {
  const dir = path.join(store, 'transcripts')
  const names = fs.existsSync(dir) ? fs.readdirSync(dir) : []
  return names.reduce((sum, name) => sum + fs.statSync(path.join(dir, name)).size, 0)
}

async function grown(store: string, bytes: number): Promise<void> {
  for (const by = Date.now() + 30_000; transcriptBytes(store) < bytes; await new Promise((resolve) => setTimeout(resolve, 1))) {
    if (Date.now() > by) throw new Error(`${store} did not grow to ${bytes} bytes`)
  }
}

const fixtures = process.env.HOLDFAST_FIXTURES
const sample = fixtures ? path.join(fixtures, 'pi-session-large.jsonl') : undefined

test.skipIf(!sample || !fs.existsSync(sample))('a real session of 1,019 lines comes in exactly (HOLDFAST_FIXTURES)', async () => {
  const store = place.path('real')
  const report = await importing(store, sample!)
  expect(report).toMatchObject({ code: 0, added: 1_019, leftOut: 0, notes: [] })
  const lines = fs.readFileSync(sample!, 'utf8').trimEnd().split('\n')
  expect((await recordsOf(store, report.sessions[0]!.key)).map(({ record }) => JSON.stringify(record))).toEqual(lines)
  expect(await importing(store, sample!)).toMatchObject({ code: 0, added: 0, present: 1_019 })
})

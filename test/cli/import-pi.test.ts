import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { entryOf, importing, recordsOf, userMessage, versions } from './importing.js'
import { holdfast, scratch, writeLines } from './run.js'

const place = scratch()
afterAll(() => place.remove())

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

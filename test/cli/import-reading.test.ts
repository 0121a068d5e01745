import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { lineIds, sourcePrefix } from '../../src/cli/import/identity.js'
import { readLines } from '../../src/cli/import/lines.js'
import { idOfFileName, judgeFileName, parseSessionsJson } from '../../src/cli/import/openclaw.js'
import { identifyPi } from '../../src/cli/import/pi.js'
import { parseRecord } from '../../src/cli/import/record.js'

const bytes = (text: string) => Buffer.from(text)

describe('a line of a transcript', () => {
  test.each([
    ['{"a":1}', true, 'record'],
    ['{"a":1}\r', true, 'record'],
    ['\ufeff{"a":1}', true, 'record'],
    ['', true, 'blank'],
    [' \t\r', true, 'blank'],
  ])('%j is taken or passed over', (text, ended, kind) => {
    expect(parseRecord(bytes(text), ended).kind).toBe(kind)
  })

  test.each([
    ['{"a":', true, /not JSON/],
    ['{"a":', false, /torn: the file ends after 5 bytes/],
    ['[1]', true, /not a JSON object/],
    ['null', true, /not a JSON object/],
    ['{"$":1}', true, /field "\$", a name that the store keeps/],
    ['{"$$":1}', true, /field "\$\$"/],
    ['\0\0\0\0', true, /NUL bytes/],
    ['{"a":1}{"b":2}', true, /not JSON/],
  ])('%j is refused with its reason', (text, ended, why) => {
    const parsed = parseRecord(bytes(text), ended)
    expect(parsed.kind === 'refused' && parsed.why).toMatch(why)
  })

  test('a line that is not UTF-8 is refused, not repaired with question marks', () => {
    expect(parseRecord(Buffer.from([0x22, 0xff, 0x22]), true)).toEqual({ kind: 'refused', why: 'not UTF-8' })
  })

  test('a complete last line without its line break is a record', () => {
    expect(parseRecord(bytes('{"a":1}'), false).kind).toBe('record')
  })

  test.each(['12345678901234567890', '0.12345678901234567891', '1e400', '-9007199254740993'])(
    'the number %s, which does not fit, is named',
    (number) => {
      const parsed = parseRecord(bytes(`{"s":"x","n":${number}}`), true)
      expect(parsed.kind === 'record' && parsed.altered).toContain(`the number ${number} became`)
    },
  )

  test('whatever JSON.stringify has written is taken exactly', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (object) => {
        fc.pre(!Object.hasOwn(object, '$') && !Object.hasOwn(object, '$$'))
        const text = JSON.stringify(object)
        const parsed = parseRecord(bytes(text), true)
        expect(parsed.kind === 'record' && JSON.stringify(parsed.record)).toBe(text)
        expect(parsed.kind === 'record' && parsed.altered).toBeUndefined()
      }),
    )
  })
})

describe('reading lines', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-lines-'))
  afterAll(() => fs.rmSync(dir, { recursive: true }))
  const read = async (content: Buffer | string, lineBytesMax = 1 << 20) => {
    const file = path.join(dir, 'lines')
    fs.writeFileSync(file, content)
    const lines = []
    for await (const line of readLines(file, lineBytesMax, new AbortController().signal)) lines.push(line)
    return lines
  }

  test('lines come back as they were, whatever their lengths', async () => {
    const texts = ['', 'a', 'x'.repeat(300_000), '', 'é'.repeat(200_000), 'end']
    const lines = await read(`${texts.join('\n')}\n`)
    expect(lines.map((line) => line.bytes?.toString())).toEqual(texts)
    expect(lines.map((line) => line.number)).toEqual([1, 2, 3, 4, 5, 6])
    expect(lines.every((line) => line.ended)).toBe(true)
    expect(lines.at(-1)?.offset).toBe(Buffer.byteLength(`${texts.join('\n')}\n`))
  })

  test('a last line without a line break says so', async () => {
    const lines = await read('a\nb')
    expect(lines.map(({ bytes, ended }) => [bytes?.toString(), ended])).toEqual([
      ['a', true],
      ['b', false],
    ])
  })

  test('a line over the bound is counted and not kept', async () => {
    const lines = await read(`short\n${'y'.repeat(600_000)}\nafter\n`, 1000)
    expect(lines.map(({ bytes, length }) => [bytes?.toString(), length])).toEqual([
      ['short', 5],
      [undefined, 600_000],
      ['after', 5],
    ])
  })
})

describe('the id of a line', () => {
  const idsOf = (records: object[], source = 's1') => {
    const ids = lineIds(source)
    return records.map((record) => ids.next(record as Record<string, unknown>))
  }

  test('the same file gives the same ids, all different', () => {
    const records = [
      { type: 'session', id: 's1' },
      { type: 'message', n: 1 },
      { type: 'message', n: 2 },
      { type: 'message', n: 1 },
    ]
    const ids = idsOf(records)
    expect(idsOf(records)).toEqual(ids)
    expect(new Set(ids).size).toBe(4)
    expect(ids.every((id) => id.startsWith('import:s1:') && id.length < 256)).toBe(true)
  })

  test('a version 1 file that pi has rewritten as version 3 gives the same ids', () => {
    const old = [
      { type: 'session', id: 's1', cwd: '/x' },
      { type: 'message', timestamp: 't', message: { role: 'hookMessage', content: 'h' } },
      { type: 'compaction', timestamp: 't', summary: 's', firstKeptEntryIndex: 1 },
    ]
    const now = [
      { type: 'session', id: 's1', cwd: '/x', version: 3 },
      { type: 'message', timestamp: 't', message: { role: 'custom', content: 'h' }, id: 'aa', parentId: null },
      { type: 'compaction', timestamp: 't', summary: 's', id: 'bb', parentId: 'aa', firstKeptEntryId: 'aa' },
    ]
    expect(idsOf(now)).toEqual(idsOf(old))
  })

  test('a line taken out of the middle of the source makes no later line look imported', () => {
    const records = ['a', 'b', 'c', 'd'].map((content) => ({ type: 'message', content }))
    const before = new Set(idsOf(records))
    const after = idsOf([records[0]!, records[2]!, records[3]!, { type: 'message', content: 'new' }])
    expect(after.slice(0, 3).every((id) => before.has(id))).toBe(true)
    expect(before.has(after[3]!)).toBe(false)
  })

  test('two sources never share a prefix, and a hostile session id stays short', () => {
    expect(sourcePrefix('a')).not.toBe(sourcePrefix('a:b'))
    expect(sourcePrefix('a:b').startsWith(sourcePrefix('a'))).toBe(false)
    expect(sourcePrefix('x'.repeat(5000)).length).toBeLessThan(64)
  })
})

describe('a pi session file', () => {
  const keyOf = (first: object | undefined, file: string) => {
    const verdict = identifyPi(first as Record<string, unknown> | undefined, file)
    return verdict.kind === 'pi' ? verdict.identity.key : verdict.why
  }

  test.each([
    [{ type: 'session', id: 'u1', cwd: '/home/me/pi-mono' }, 'x.jsonl', 'pi:pi-mono:u1'],
    [{ type: 'session', version: 2, id: 'u1', cwd: 'C:\\src\\my app\\' }, 'x.jsonl', 'pi:my-app:u1'],
    [{ type: 'session', version: 3, id: 'u1' }, '/a/b/notes.jsonl', 'pi:notes:u1'],
    [{ type: 'session', id: 'u1' }, '/a/u1.jsonl', 'pi:u1'],
    [{ type: 'session', id: 'a:b\n', cwd: '/p' }, 'x.jsonl', 'pi:p:a-b-'],
    [{ type: 'message', message: {} }, '/a/2025-11-20T23_0a000000-0000-4000-8000-000000000001.jsonl', undefined],
  ])('%j gets a key that a person can find', (first, file, key) => {
    if (key) expect(keyOf(first, file)).toBe(key)
    else expect(keyOf(first, file)).toMatch(/:0a000000-0000-4000-8000-000000000001$/)
  })

  test.each([
    [{ type: 'session', version: 4, id: 'u1' }, /version 4; this release reads 1 to 3/],
    [{ hello: 'world' }, /not a pi session file/],
    [{ type: 'response_item' }, /not a pi session file/],
    [undefined, /no line of it could be read/],
  ])('%j is refused', (first, why) => {
    expect(keyOf(first, 'x.jsonl')).toMatch(why)
  })

  test('what the header says is kept for the entry', () => {
    const verdict = identifyPi({ type: 'session', id: 'u1', cwd: '/p', timestamp: 't', branchedFrom: '/old.jsonl' }, '/a/x.jsonl')
    expect(verdict.kind === 'pi' && verdict.identity.imported).toEqual({
      format: 'pi',
      sessionId: 'u1',
      file: 'x.jsonl',
      version: 1,
      cwd: '/p',
      startedAt: 't',
      parentSession: '/old.jsonl',
    })
  })
})

describe('sessions.json of OpenClaw', () => {
  // F19: a damaged sessions.json is never an empty one.
  test.each(['', ' \n', '[]', 'null', '{"a":', '\0\0\0\0', '"x"'])('%j is damage, not an empty list', (text) => {
    expect(parseSessionsJson(text).kind).toBe('damaged')
  })

  test('an entry keeps its fields, without what the store owns and without the path of the old transcript', () => {
    const text = JSON.stringify({
      'agent:main:main': {
        sessionId: 's1',
        updatedAt: 5,
        sessionFile: '/elsewhere/sessions/s1-topic-7.jsonl',
        model: 'm',
        revision: 9,
        createdAt: 1,
      },
    })
    const parsed = parseSessionsJson(text)
    expect(parsed.kind === 'sessions' && parsed.described).toEqual([
      { key: 'agent:main:main', sessionId: 's1', fileNames: ['s1-topic-7.jsonl', 's1.jsonl'], fields: { model: 'm' }, updatedAt: 5 },
    ])
  })

  test.each([
    ['../../etc/passwd', /cannot be a file name/],
    ['.hidden', /cannot be a file name/],
    ['', /no sessionId/],
    [7, /no sessionId/],
  ])('a sessionId %j never becomes a path', (sessionId, why) => {
    const parsed = parseSessionsJson(JSON.stringify({ k: { sessionId } }))
    expect(parsed.kind === 'sessions' && parsed.refused[0]?.why).toMatch(why)
  })

  test('a key called __proto__ is a key', () => {
    const parsed = parseSessionsJson('{"__proto__":{"sessionId":"s1","updatedAt":1}}')
    expect(parsed.kind === 'sessions' && parsed.described.map(({ key }) => key)).toEqual(['__proto__'])
  })

  test('a topic session finds its transcript', () => {
    const parsed = parseSessionsJson('{"agent:main:telegram:group:-1:topic:42":{"sessionId":"s1"}}')
    expect(parsed.kind === 'sessions' && parsed.described[0]?.fileNames).toEqual(['s1-topic-42.jsonl', 's1.jsonl'])
  })

  // F30: ids that look like markers are ordinary ids.
  test.each([
    ['s1.jsonl', 'live'],
    ['keep.deleted.keep.jsonl', 'live'],
    ['my.checkpoint.notes.jsonl', 'live'],
    ['s1.jsonl.reset.2026-01-02T03-04-05.678Z', 'reset'],
    ['s1.jsonl.deleted.2026-01-02T03-04-05.678Z', 'other'],
    ['s1.checkpoint.0a000000-0000-4000-8000-000000000001.jsonl', 'other'],
    ['s1.trajectory.jsonl', 'other'],
    ['sessions.json', 'other'],
  ])('%s is judged %s', (name, judged) => {
    expect(judgeFileName(name)).toBe(judged)
  })

  test('the id of a transcript that was reset is that of its name', () => {
    expect(idOfFileName('s1.jsonl.reset.2026-01-02T03-04-05.678Z')).toBe('s1')
    expect(idOfFileName('s1.jsonl')).toBe('s1')
  })
})

/** One line of a log: what goes in comes out, whatever it holds, and no line passes for another. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { claimedMark, encodeLine, readBody, readMark, withId } from '../../src/file/log/record.js'
import { readId } from '../../src/file/transcripts/ids.js'
import { referenceCrc } from './reference-chain.js'

const looksLikeAMark = [
  '","$":"0.0.-1.a.00000000.00000000"}',
  '"$":"1.0.0.w.00000000.ffffffff"}',
  '{"$$":{"header":{',
  '"}\n',
  '#\n',
  '$',
  '$$',
]
const text = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }),
  fc.constantFrom(...looksLikeAMark, '\ud800', 'a\udc00b', '\u2028', '\u0000', '__proto__', 'constructor', '0', '1e3', ''),
)
const name = text.filter((candidate) => candidate !== '$' && candidate !== '$$')
/** Any JSON value, its strings and names hostile. */
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    text,
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.array(fc.tuple(text, tie('value')), { maxLength: 3 }).map(Object.fromEntries),
  ),
}))
const object = fc.array(fc.tuple(name, value), { maxLength: 6 }).map((fields) => JSON.stringify(Object.fromEntries(fields)))
const mark = fc.record({
  seq: fc.nat(Number.MAX_SAFE_INTEGER),
  left: fc.nat(9_999_999),
  synced: fc.oneof(fc.constant(-1), fc.nat(Number.MAX_SAFE_INTEGER)),
  writer: fc.string({ unit: fc.constantFrom(...'0123456789abcdefXYZ_-'), minLength: 1, maxLength: 32 }),
  prev: fc.nat(0xffffffff),
})

describe('a line', () => {
  test('says again the object and the mark that were put into it', () => {
    fc.assert(
      fc.property(object, mark, (json, put) => {
        const { line, crc } = encodeLine(json, put)
        const bytes = Buffer.from(line)
        expect(bytes.indexOf(0x0a)).toBe(bytes.length - 1)
        const found = readMark(bytes, 0, bytes.length - 1)
        expect(found).toMatchObject({ ...put, crc })
        expect(readBody(bytes, 0, found!)).toEqual({ json, system: undefined })
      }),
    )
  })

  test('is one JSON object for any reader of JSONL: the user’s fields and a last field $', () => {
    fc.assert(
      fc.property(object, mark, (json, put) => {
        const parsed = JSON.parse(encodeLine(json, put).line) as Record<string, unknown>
        const { $, ...rest } = parsed
        expect($).toMatch(/^\d+\.\d+\.-?\d+\.[\w-]+\.[0-9a-f]{8}\.[0-9a-f]{8}$/)
        expect(Object.keys(parsed).at(-1)).toBe('$')
        expect(JSON.stringify(rest)).toBe(JSON.stringify(JSON.parse(json)))
      }),
    )
  })

  test('carries the CRC-32 of the standard, over its bytes up to and including the dot after prev', () => {
    fc.assert(
      fc.property(object, mark, (json, put) => {
        const bytes = Buffer.from(encodeLine(json, put).line).toString('latin1')
        expect(bytes.slice(-11, -3)).toBe(referenceCrc(bytes.slice(0, -11)))
      }),
      { numRuns: 30 },
    )
  })

  test('of an empty object is one too', () => {
    const put = { seq: 1, left: 0, synced: 0, writer: 'w', prev: 0 }
    const { line } = encodeLine('{}', put)
    expect(line).toMatch(/^\{"\$":"1\.0\.0\.w\.00000000\.[0-9a-f]{8}"\}\n$/)
    const bytes = Buffer.from(line)
    expect(readBody(bytes, 0, readMark(bytes, 0, bytes.length - 1)!).json).toBe('{}')
  })

  test('may be read anywhere in a buffer', () => {
    fc.assert(
      fc.property(object, mark, fc.string(), fc.string(), (json, put, before, after) => {
        const { line } = encodeLine(json, put)
        const start = Buffer.byteLength(before)
        const end = start + Buffer.byteLength(line) - 1
        const bytes = Buffer.from(before + line + after)
        const found = readMark(bytes, start, end)
        expect(found).toMatchObject(put)
        expect(readBody(bytes, start, found!).json).toBe(json)
      }),
    )
  })

  test('with an id gives back object, id and count', () => {
    fc.assert(
      fc.property(object, mark, text, fc.integer({ min: 1, max: 1_000 }), (json, put, id, count) => {
        const bytes = Buffer.from(encodeLine(withId(json, id, count), put).line)
        const found = readMark(bytes, 0, bytes.length - 1)!
        expect(readBody(bytes, 0, found)).toEqual({ json, system: count > 1 ? { id, count } : { id } })
        expect(readId(bytes, 0)).toEqual({ id, count })
      }),
    )
  })
})

describe('no line', () => {
  test('is taken for a record when any one byte of it differs', () => {
    fc.assert(
      fc.property(object, mark, fc.nat(), fc.integer({ min: 1, max: 255 }), (json, put, where, by) => {
        const bytes = Buffer.from(encodeLine(json, put).line)
        bytes[where % (bytes.length - 1)]! ^= by
        expect(readMark(bytes, 0, bytes.length - 1)).toBeUndefined()
      }),
    )
  })

  test('is taken for a record when its end is missing, or anything stands before or behind it', () => {
    fc.assert(
      fc.property(object, mark, fc.nat(), (json, put, where) => {
        const line = Buffer.from(encodeLine(json, put).line).subarray(0, -1)
        expect(readMark(line, 0, where % line.length)).toBeUndefined()
        const longer = Buffer.concat([Buffer.from(' '), line, Buffer.from('\r')])
        expect(readMark(longer, 0, line.length + 1)).toBeUndefined()
        expect(readMark(longer, 1, line.length + 2)).toBeUndefined()
      }),
    )
  })

  test.each([
    '"$":"1.0.0.w.00000000.00000000"}',
    '{"a":{"$":"1.0.0.w.00000000.00000000"}',
    '{"a":1 ,"$": "1.0.0.w.00000000.00000000"}',
    '{"$":"01.0.0.w.00000000.00000000"}',
    '{"$":"1.0.-2.w.00000000.00000000"}',
    '{"$":"1.0.0..00000000.00000000"}',
    '{"$":"1.0.0.w.0000000.00000000"}',
    '{"$":"1.0.0.w.00000000.0000000G"}',
    '{"$":"1.0.0.w.00000000.00000000"} ',
    '{"$":"1.0.0.w.00000000.00000000",}',
    '{"$":"1.0.0.w.00000000.00000000"}}',
    '{}',
    '',
  ])('that is not written so is one: %s', (line) => {
    const bytes = Buffer.from(line)
    const mark = claimedMark(bytes, 0, bytes.length)
    // A nested or bare `"$"` may look like a mark; then its crc does not fit, which is the second lock on the door.
    if (mark) expect(readMark(bytes, 0, bytes.length)).toBeUndefined()
  })
})

/** What a mark is, as docs/on-disk-format.md has it. */
const grammar =
  /(^\{|,)"\$":"(0|[1-9]\d{0,15})\.(0|[1-9]\d{0,6})\.(-1|0|[1-9]\d{0,15})\.([0-9A-Za-z_-]{1,32})\.([0-9a-f]{8})\.([0-9a-f]{8})"\}$/

test('a claimed mark is what the grammar says, and nothing else is', () => {
  const digits = fc.oneof(fc.constantFrom('0', '-1', '1', '01', '', '-0', '-12'), fc.nat().map(String), fc.stringMatching(/^\d{1,18}$/))
  const hex = fc.oneof(fc.stringMatching(/^[0-9a-f]{8}$/), fc.stringMatching(/^[0-9A-Ga-g:`@]{7,9}$/))
  const front = fc.constantFrom('{"a":1,', '{', ',{', '{"a":{', '', ',', '{"a":1,,', '\n,', '9')
  const name = fc.constantFrom('"$":"', '"$":"', '"$":"', '"$":', '"$": "', '"$$":"', '$":"')
  const end = fc.constantFrom('"}', '"}', '"}', '" }', '}', '"}}')
  const writer = fc.oneof(fc.stringMatching(/^[0-9a-f]{12}$/), fc.stringMatching(/^[A-Za-z0-9_.-]{0,34}$/))
  const before = fc.constantFrom('', '', 'x', '"}\n')
  fc.assert(
    fc.property(
      before,
      fc.tuple(front, name, digits, digits, digits, writer, hex, hex, end),
      (noise, [a, b, seq, left, synced, w, prev, crc, c]) => {
        const line = `${a}${b}${seq}.${left}.${synced}.${w}.${prev}.${crc}${c}`
        const found = line.length < 30 ? null : grammar.exec(line)
        const bytes = Buffer.from(`${noise}${line}\n`, 'latin1')
        const claimed = claimedMark(bytes, noise.length, bytes.length - 1)
        const expected = found && {
          seq: Number(found[2]),
          left: Number(found[3]),
          synced: Number(found[4]),
          writer: found[5],
          prev: Number.parseInt(found[6]!, 16),
          crc: Number.parseInt(found[7]!, 16),
          bodyBytes: found.index + (found[1] === '{' ? 1 : 0),
        }
        expect(claimed).toEqual(expected ?? undefined)
      },
    ),
    { numRuns: process.env.HOLDFAST_SOAK ? 200_000 : 5_000 },
  )
})

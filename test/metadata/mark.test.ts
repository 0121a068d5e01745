/** High-water marks as they stand in the metadata (F29: a chunk is missing, and everything still parses). */
import { expect, test } from 'vitest'
import { formatMark, markAt, parseMark, withMark } from '../../src/file/metadata/mark.js'

const mark = { seq: 12, bytes: 3456, crc: 0x0a0b0c0d, header: 0xfffffffe }
const entry = '{"sessionId":"018bcfe5-6800-7649-8a6a-0000017b28da","createdAt":1,"updatedAt":2,"revision":3,"note":"x"}'

function found(json: string) {
  const bytes = Buffer.from(`before${json}after`)
  return markAt(bytes, 6, bytes.length - 5)
}

test('a mark is read back as it was written', () => {
  expect(formatMark(mark)).toBe('12.3456.0a0b0c0d.fffffffe')
  expect(parseMark(formatMark(mark))).toEqual(mark)
  const largest = { seq: Number.MAX_SAFE_INTEGER, bytes: Number.MAX_SAFE_INTEGER, crc: 0xffffffff, header: 0 }
  const json = withMark(entry, largest)
  expect(found(json)).toEqual({ mark: parseMark(formatMark(largest)), at: 6 + entry.length - 1 })
  expect(JSON.parse(json)).toEqual({ ...JSON.parse(entry), $: formatMark(largest) })
})

test.each([
  '',
  '12',
  '12.3456.0a0b0c0d',
  '012.3456.0a0b0c0d.fffffffe',
  '12.0.0a0b0c0d.fffffffe',
  '12.3456.0A0B0C0D.fffffffe',
  '-1.1.0a0b0c0d.fffffffe',
])('%j is no mark', (value) => {
  expect(parseMark(value)).toBeUndefined()
  expect(found(`${entry.slice(0, -1)},"$":"${value}"}`)).toBeUndefined()
})

test('what a user has written is not taken for a mark, wherever it looks like one', () => {
  expect(found(entry)).toBeUndefined()
  expect(found('{}')).toBeUndefined()
  const value = formatMark(mark)
  expect(found(JSON.stringify({ ...JSON.parse(entry), note: { a: 1, $: value } }))).toBeUndefined()
  expect(found(JSON.stringify({ ...JSON.parse(entry), note: `,"$":"${value}` }))).toBeUndefined()
  expect(found(JSON.stringify({ ...JSON.parse(entry), note: `","$":"${value}` }))).toBeUndefined()
})

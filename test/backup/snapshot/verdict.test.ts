import { describe, expect, test } from 'vitest'
import { judge, type LogNow, type Verdict } from '../../../src/backup/snapshot/verdict.js'

const then = { sessionId: 's', lastSeq: 9, lastCrc: 'aaaaaaaa', headerCrc: '11111111', settledBytes: 900 }
const now: LogNow = { lastSeq: 9, lastCrc: 'aaaaaaaa', bytes: 900, headerCrc: '11111111', replaces: [], crcAtLast: 'aaaaaaaa' }

// F29: what has become of a transcript, from what two readings say of it.
describe('judge', () => {
  const cases: [string, Partial<LogNow>, Verdict][] = [
    ['nothing has changed', {}, 'same'],
    ['records behind the one that was the last', { lastSeq: 12, lastCrc: 'bbbbbbbb' }, 'extended'],
    ['read on from its recorded end, so without its header', { lastSeq: 12, headerCrc: undefined }, 'extended'],
    ['it ends before', { lastSeq: 8, lastCrc: 'cccccccc', crcAtLast: undefined }, 'shrunk'],
    ['another record stands there', { crcAtLast: 'dddddddd' }, 'rewritten'],
    ['another record stands there, and more behind it', { lastSeq: 30, crcAtLast: 'dddddddd' }, 'rewritten'],
    ['a new file that says which it replaces', { headerCrc: '22222222', replaces: ['11111111'], crcAtLast: 'eeeeeeee' }, 'remade'],
    ['a new file that says so of an earlier one', { headerCrc: '33333333', replaces: ['22222222', '11111111'] }, 'remade'],
    ['a new file that says nothing', { headerCrc: '22222222', crcAtLast: 'eeeeeeee' }, 'rewritten'],
    ['a new file that says so, and ends before', { headerCrc: '22222222', replaces: ['11111111'], lastSeq: 3 }, 'shrunk'],
    ['no header any more', { lastSeq: -1, headerCrc: undefined, crcAtLast: undefined }, 'shrunk'],
  ]
  test.each(cases)('%s', (_, change, verdict) => {
    expect(judge(then, { ...now, ...change })).toBe(verdict)
  })

  test('lines of another program that have got a header since', () => {
    const foreign = { ...then, lastSeq: -1, lastCrc: '00000000', headerCrc: undefined }
    expect(judge(foreign, { ...now, bytes: 900 })).toBe('extended')
    expect(judge(foreign, { ...now, lastSeq: -1, bytes: 900 })).toBe('same')
  })
})

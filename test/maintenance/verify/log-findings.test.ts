/** What verify says of a log: which bytes, which records, how bad (P5; F20, F21, F23, F29). */
import { describe, expect, test } from 'vitest'
import type { Finding } from '../../../src/findings.js'
import { scanLog } from '../../../src/maintenance/verify/log-scan.js'
import { bytesSource } from '../../log/bytes-source.js'
import { batchOf, LogText, otherBoot, sealBody, thisBoot } from '../../log/log-text.js'

async function look(file: Buffer) {
  return scanLog(bytesSource(file), { file: 'transcripts/t.jsonl' }, { tag: thisBoot })
}

const brief = ({ kind, severity, bytes, seqs, count }: Finding) => ({
  kind,
  severity,
  ...(bytes && { bytes: [bytes.from, bytes.to] }),
  ...(seqs && { seqs: [seqs.from, seqs.to] }),
  ...(count > 1 && { count }),
})
const told = async (file: Buffer) => (await look(file)).findings.map(brief)

/** A header and nine records, one a line, lines 0 to 9. */
function tenLines(options: { boot?: string; claims?: boolean } = {}): LogText {
  const log = new LogText(options)
  for (let n = 1; n <= 9; n++) log.add(JSON.stringify({ n, text: 'abc' }))
  return log
}
const joined = (lines: readonly Buffer[]) => Buffer.concat([...lines])
const flipped = (line: Buffer) => {
  const copy = Buffer.from(line)
  copy[8]! ^= 1
  return copy
}

test('a sound log has no findings', async () => {
  expect(await told(tenLines().bytes)).toEqual([])
})

describe('what killed and overtaken writers leave is a notice', () => {
  const log = tenLines()
  const end = log.bytes.length
  const late = batchOf(['{"late":1}'], { seq: 5, prev: 1, writer: `${thisBoot}77777777` }).bytes
  const batch = batchOf(['{"a":1}', '{"a":2}'], { ...log.next, writer: `${thisBoot}88888888` }).bytes
  const half = batch.subarray(0, batch.indexOf(0x0a) + 1)
  const next = batchOf(['{"next":1}'], log.next).bytes

  test('torn, superseded, unfinished: with their bytes', async () => {
    const torn = Buffer.from('{"torn":#\n')
    expect(await told(Buffer.concat([log.bytes, torn, late, half, next]))).toEqual([
      { kind: 'void-torn', severity: 'notice', bytes: [end, end + torn.length] },
      { kind: 'void-superseded', severity: 'notice', bytes: [end + torn.length, end + torn.length + late.length], seqs: [5, 5] },
      {
        kind: 'void-unfinished',
        severity: 'notice',
        bytes: [end + torn.length + late.length, end + torn.length + late.length + half.length],
        seqs: [10, 10],
      },
    ])
  })
})

describe('damage', () => {
  const log = tenLines()
  const { lines } = log
  const at = (line: number) => log.startOf(line)

  test('an altered line: the line, then the records behind it, which could be saved (F23)', async () => {
    for (const line of [3, 8])
      expect(await told(joined(lines.with(line, flipped(lines[line]!))))).toEqual([
        { kind: 'altered-line', severity: 'damage', bytes: [at(line), at(line + 1)], seqs: [line, line] },
        {
          kind: 'stranded-records',
          severity: 'damage',
          bytes: [at(line + 1), at(10)],
          seqs: [line + 1, 9],
          ...(line < 8 && { count: 9 - line }),
        },
      ])
  })

  test('the last line altered', async () => {
    expect(await told(joined(lines.with(9, flipped(lines[9]!))))).toEqual([
      { kind: 'altered-line', severity: 'damage', bytes: [at(9), at(10)], seqs: [9, 9] },
    ])
  })

  test('several altered lines, each told, and what lies between them', async () => {
    const file = joined(lines.with(3, flipped(lines[3]!)).with(6, flipped(lines[6]!)).with(7, flipped(lines[7]!)))
    expect(await told(file)).toEqual([
      { kind: 'altered-line', severity: 'damage', bytes: [at(3), at(4)], seqs: [3, 3] },
      { kind: 'stranded-records', severity: 'damage', bytes: [at(4), at(6)], seqs: [4, 5], count: 2 },
      { kind: 'altered-line', severity: 'damage', bytes: [at(6), at(8)], seqs: [6, 7], count: 2 },
      { kind: 'stranded-records', severity: 'damage', bytes: [at(8), at(10)], seqs: [8, 9], count: 2 },
    ])
  })

  test('a chunk missing that leaves every line whole: where, and which numbers (F29)', async () => {
    expect(await told(joined(lines.toSpliced(4, 3)))).toEqual([
      { kind: 'missing-bytes', severity: 'damage', bytes: [at(4), at(4)], seqs: [4, 6], count: 3 },
      { kind: 'stranded-records', severity: 'damage', bytes: [at(4), at(4) + at(10) - at(7)], seqs: [7, 9], count: 3 },
    ])
  })

  test('zeros over two lines and into a third: the zeros, to the byte (F23)', async () => {
    const file = log.bytes.fill(0, at(4) + 10, at(6) + 5)
    expect(await told(file)).toEqual([
      { kind: 'nul-run', severity: 'damage', bytes: [at(4) + 10, at(6) + 5], seqs: [4, 6] },
      { kind: 'stranded-records', severity: 'damage', bytes: [at(7), at(10)], seqs: [7, 9], count: 3 },
    ])
  })

  test('zeros in a line of an earlier boot, which nobody claims: what a power cut leaves, to be looked at', async () => {
    const old = tenLines({ boot: otherBoot, claims: false })
    const file = old.bytes.fill(0, old.startOf(9) + 4, old.startOf(9) + 8)
    expect(await told(file)).toEqual([
      { kind: 'nul-run', severity: 'warning', bytes: [old.startOf(9) + 4, old.startOf(9) + 8], seqs: [9, 9] },
    ])
  })

  test('zeros behind the end', async () => {
    expect(await told(Buffer.concat([log.bytes, Buffer.alloc(4_096)]))).toEqual([
      { kind: 'nul-run', severity: 'warning', bytes: [at(10), at(10) + 4_096] },
      { kind: 'torn-tail', severity: 'notice', bytes: [at(10), at(10) + 4_096] },
    ])
  })

  test('the header missing, altered, zeroed (F21)', async () => {
    const rest = { kind: 'stranded-records', severity: 'damage', seqs: [1, 9], count: 9 }
    expect(await told(joined(lines.slice(1)))).toEqual([
      { kind: 'header-missing', severity: 'damage', bytes: [0, 0], seqs: [0, 0] },
      { ...rest, bytes: [0, at(10) - at(1)] },
    ])
    expect(await told(joined(lines.with(0, flipped(lines[0]!))))).toEqual([
      { kind: 'header-damaged', severity: 'damage', bytes: [0, at(1)], seqs: [0, 0] },
      { ...rest, bytes: [at(1), at(10)] },
    ])
    expect(await told(joined(lines.with(0, Buffer.concat([Buffer.alloc(lines[0]!.length - 1), Buffer.from('\n')]))))).toEqual([
      { kind: 'header-damaged', severity: 'damage', bytes: [0, at(1)], seqs: [0, 0] },
      { ...rest, bytes: [at(1), at(10)] },
    ])
  })

  test('two lines welded by a lost newline: one line, both numbers', async () => {
    const file = joined(lines.with(5, lines[5]!.subarray(0, -1)))
    expect((await told(file)).map(({ kind, seqs }) => [kind, seqs])).toEqual([
      ['void-welded', [5, 6]],
      ['stranded-records', [7, 9]],
    ])
  })

  test('one of a batch altered: the rest of the batch could be saved', async () => {
    const batch = new LogText().add('{"a":1}').add('{"b":1}', '{"b":2}', '{"b":3}').add('{"c":1}')
    const file = joined(batch.lines.with(3, flipped(batch.lines[3]!)))
    const { islands } = await look(file)
    expect(islands.map(({ from, to }) => [from, to])).toEqual([
      [2, 2],
      [4, 5],
    ])
  })

  test('the beginning of a batch that another has overtaken is not taken for what is missing', async () => {
    const born = new LogText().add('{"a":1}')
    const killed = batchOf(['{"k":1}', '{"k":2}'], { ...born.next, writer: `${thisBoot}77777777` }).bytes
    const half = killed.subarray(0, killed.indexOf(0x0a) + 1)
    const won = new LogText().add('{"a":1}').add('{"won":1}').add('{"won":2}')
    const file = Buffer.concat([born.bytes, half, flipped(won.lines[2]!), won.lines[3]!])
    const { islands } = await look(file)
    expect(islands.map(({ from, to }) => [from, to])).toEqual([[3, 3]])
  })

  test('what claims to have been on the disk is missed at the end, too (F29)', async () => {
    const late = batchOf(['{"late":1}'], { seq: 5, prev: 1, synced: 9, writer: `${otherBoot}99999999` }).bytes
    const file = Buffer.concat([joined(lines.slice(0, 8)), late])
    expect(await told(file)).toEqual([
      { kind: 'void-superseded', severity: 'notice', bytes: [at(8), at(8) + late.length], seqs: [5, 5] },
      { kind: 'missing-bytes', severity: 'damage', bytes: [at(8) + late.length, at(8) + late.length], seqs: [8, 9], count: 2 },
    ])
  })
})

test('a line that nobody of ours has written is to be looked at; nothing is missing', async () => {
  const log = tenLines()
  const odd = Buffer.from('{"what":"is this"}\n')
  expect(await told(Buffer.concat([log.bytes, odd]))).toEqual([
    { kind: 'void-garbage', severity: 'warning', bytes: [log.bytes.length, log.bytes.length + odd.length] },
  ])
})

test('what stands behind a seal, and a beginning with a whole line behind it', async () => {
  const log = tenLines()
  const torn = batchOf(['{"torn":1}'], { ...log.next, writer: `${thisBoot}11111111` }).bytes.subarray(0, 9)
  const whole = batchOf(['{"whole":1}'], { ...log.next, writer: `${thisBoot}22222222` }).bytes
  expect((await told(Buffer.concat([log.bytes, torn, whole, whole]))).map(({ kind }) => kind)).toEqual(['void-welded'])
  log.add(sealBody())
  const late = batchOf(['{"late":1}'], log.next).bytes
  expect((await told(Buffer.concat([log.bytes, late, late]))).map(({ kind, count }) => [kind, count])).toEqual([['void-sealed', 2]])
})

test('an idempotency id twice in one log (F23)', async () => {
  const log = new LogText().add('{"$$":{"id":"evt-7"},"a":1}').add('{"b":1}').add('{"$$":{"id":"evt-7"},"a":1}')
  const [found] = await told(log.bytes)
  expect(found).toEqual({ kind: 'duplicate-id', severity: 'warning', bytes: [log.startOf(3), log.startOf(4)], seqs: [1, 3] })
})

/** The chain rule decides what is in a log: whatever writers race, die or lag behind, the same records are in for every reader, what was
 *  acknowledged is among them, and nobody is accused of damage (P1, P2, P3, P4; F1, F20, F23). */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { batchOf, headerBody, LogText, readLog, sealBody } from './log-text.js'
import { bornLog, committedLines, races, run } from './races.js'
import { referenceLog } from './reference-chain.js'

const numRuns = process.env.HOLDFAST_SOAK ? 20_000 : 400
const places = fc.array(fc.nat(), { maxLength: 12 })

function expectSameAsReference(file: Buffer, cuts: readonly number[] = []): void {
  const found = readLog(file, { cuts })
  const reference = referenceLog(file)
  expect(found.lines).toEqual(reference.records.map(({ line }) => line))
  expect(found.chain.records).toBe(reference.records.length)
  expect(found.chain.settled).toBe(reference.settled)
  expect(found.chain.openTail).toBe(reference.openTail)
  expect(found.chain.voidLines).toBe(reference.voidLines)
  expect(found.chain.seal !== undefined).toBe(reference.sealed)
  expect(found.chain.seq).toBe(reference.records.at(-1)?.seq ?? -1)
}

describe('any interleaving of whole and torn writes by writers with stale views', () => {
  test('leaves the batches in the log that the reference says', () => {
    fc.assert(
      fc.property(races(), fc.boolean(), ({ steps, claims }, born) => {
        expectSameAsReference(run(steps, { claims, ...(born && { start: bornLog() }) }).file)
      }),
      { numRuns },
    )
  })

  test('keeps every acknowledged record, once, in the order of the acknowledgements', () => {
    fc.assert(
      fc.property(races(), ({ steps, claims }) => {
        const { file, acknowledged } = run(steps, { claims })
        const { lines } = readLog(file)
        const inLog = new Set(acknowledged)
        expect(inLog.size).toBe(acknowledged.length)
        expect(lines.filter((line) => inLog.has(line))).toEqual(acknowledged)
      }),
      { numRuns },
    )
  })

  test('is never taken for damage', () => {
    fc.assert(
      fc.property(races(), places, ({ steps, claims }, cuts) => {
        const { file } = run(steps, { claims })
        expect(readLog(file, { cuts: cuts.map((at) => at % (file.length + 1)) }).damage).toBeUndefined()
      }),
      { numRuns },
    )
  })

  test('shows a reader in between a prefix of what the last reader sees (P4)', () => {
    fc.assert(
      fc.property(races(), ({ steps, claims }) => {
        const { file, ends } = run(steps, { claims })
        const whole = readLog(file).lines
        for (const end of ends) {
          const { lines } = readLog(file.subarray(0, end))
          expect(whole.slice(0, lines.length)).toEqual(lines)
        }
      }),
      { numRuns: numRuns / 4 },
    )
  })

  test('shows batches whole or not at all', () => {
    fc.assert(
      fc.property(races(), fc.nat(), ({ steps, claims }, where) => {
        const { file } = run(steps, { claims })
        const { chain, seqs } = readLog(file.subarray(0, where % (file.length + 1)))
        const last = referenceLog(file).records.find(({ seq, crc }) => seq === chain.seq && Number.parseInt(crc, 16) === chain.crc)
        if (seqs.length > 0) expect(last?.left).toBe(0)
      }),
      { numRuns },
    )
  })
})

describe('cut off at any byte', () => {
  test('a log is what the reference says, a prefix of what it was, and not damaged', () => {
    fc.assert(
      fc.property(races(), fc.nat(), ({ steps, claims }, where) => {
        const { file } = run(steps, { claims })
        const part = file.subarray(0, where % (file.length + 1))
        expectSameAsReference(part)
        const { lines, damage } = readLog(part)
        expect(damage).toBeUndefined()
        expect(readLog(file).lines.slice(0, lines.length)).toEqual(lines)
      }),
      { numRuns },
    )
  })

  test('at every single byte of one log', () => {
    const log = new LogText().add('{"a":1}').add('{"b":1}', '{"b":2}', '{"b":3}').add('{"c":"é"}')
    const { bytes } = log
    for (let end = 0; end <= bytes.length; end++) {
      const { seqs, damage, chain } = readLog(bytes.subarray(0, end))
      const whole = [1, 2, 5, 6].filter((lines) => log.startOf(lines) <= end).at(-1) ?? 0
      expect(seqs).toHaveLength(whole)
      expect(damage).toBeUndefined()
      expect(chain.settled).toBe(log.startOf(whole))
    }
  })

  test('what comes after it, behind a `#` and a newline, is in; the torn line never comes back (F20)', () => {
    const log = new LogText().add('{"a":1}').add('{"b":1}', '{"b":2}')
    const { bytes } = log
    for (let end = log.startOf(1); end < bytes.length; end++) {
      const part = bytes.subarray(0, end)
      const { chain, lines } = readLog(part)
      const next = batchOf(['{"next":true}'], { seq: chain.seq + 1, prev: chain.crc })
      const after = readLog(Buffer.concat([part, Buffer.from(chain.openTail ? '#\n' : ''), next.bytes]))
      expect(after.lines).toEqual([...lines, next.bytes.toString('latin1').trimEnd()])
      expect(after.damage).toBeUndefined()
    }
  })

  test('a bare newline instead of `#` would have brought the torn line to life: that is why it is not used', () => {
    const log = new LogText().add('{"a":1}')
    const torn = log.bytes.subarray(0, -1)
    expect(readLog(torn).seqs).toEqual([0])
    expect(readLog(Buffer.concat([torn, Buffer.from('\n')])).seqs).toEqual([0, 1])
    expect(readLog(Buffer.concat([torn, Buffer.from('#\n')])).seqs).toEqual([0])
  })
})

describe('read in pieces', () => {
  test('however it is cut, the result is that of reading all at once', () => {
    fc.assert(
      fc.property(races(), places, ({ steps, claims }, cuts) => {
        const { file } = run(steps, { claims })
        expectSameAsReference(
          file,
          cuts.map((at) => at % (file.length + 1)),
        )
      }),
      { numRuns },
    )
  })

  test('also byte by byte, and while a batch is still arriving nothing of it is settled', () => {
    const log = new LogText().add('{"a":1}').add('{"b":1}', '{"b":2}')
    const every = Array.from({ length: log.bytes.length }, (_, at) => at)
    expectSameAsReference(log.bytes, every)
    const pending = readLog(log.bytes.subarray(0, log.startOf(3)))
    expect(pending.chain).toMatchObject({ seq: 1, settled: log.startOf(2), openTail: false })
  })
})

describe('bytes of any kind', () => {
  type Change = (file: Buffer, at: number, length: number) => Buffer
  const changes: Record<string, Change> = {
    'a run of NULs': (file, at, length) => Buffer.from(file).fill(0, at, Math.min(file.length, at + length)),
    'bytes that are missing': (file, at, length) => Buffer.concat([file.subarray(0, at), file.subarray(at + length)]),
    'bytes that stand there twice': (file, at, length) => Buffer.concat([file.subarray(0, at + length), file.subarray(at)]),
    'a newline too many': (file, at) => Buffer.concat([file.subarray(0, at), Buffer.from('\n'), file.subarray(at)]),
    'a line of rubbish': (file, at) => {
      const next = file.indexOf(0x0a, at) + 1
      return Buffer.concat([file.subarray(0, next), Buffer.from('{"what":"is this"}\nnot even JSON\n\n'), file.subarray(next)])
    },
    'two lines welded into one': (file, at) => {
      const next = file.indexOf(0x0a, at)
      return next < 0 ? file : Buffer.concat([file.subarray(0, next), file.subarray(next + 1)])
    },
    'a torn line welded to a whole one': (file, at) => {
      const next = file.indexOf(0x0a, at)
      return next < 0 ? file : Buffer.concat([file.subarray(0, at), file.subarray(next + 1)])
    },
  }

  test.each(Object.keys(changes))('%s: the records that count are those that the reference says', (kind) => {
    fc.assert(
      fc.property(races(), fc.nat(), fc.nat(200), ({ steps, claims }, where, length) => {
        const { file } = run(steps, { claims, start: bornLog() })
        const changed = changes[kind]!(file, where % file.length, length)
        expect(readLog(changed).lines).toEqual(committedLines(changed))
      }),
      { numRuns: numRuns / 2 },
    )
  })

  test('nothing becomes a record that nobody wrote', () => {
    fc.assert(
      fc.property(races(), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }), ({ steps, claims }, flips) => {
        const { file } = run(steps, { claims, start: bornLog() })
        const written = new Set(file.toString('latin1').split('\n'))
        const changed = Buffer.from(file)
        for (const [where, by] of flips) changed[where % file.length] = by
        for (const line of readLog(changed).lines) expect(written).toContain(line)
      }),
      { numRuns },
    )
  })
})

describe('in particular', () => {
  const start = () => new LogText().add('{"n":1}')

  test('the first batch in file order that chains is the committed one, whoever held the lock (F1)', () => {
    const log = start()
    const mine = batchOf(['{"mine":1}'], { ...log.next, writer: 'abcd00000aaa' })
    const theirs = batchOf(['{"theirs":1}'], { ...log.next, writer: 'abcd00000bbb' })
    const file = Buffer.concat([log.bytes, theirs.bytes, mine.bytes])
    const { bodies, voids, damage } = readLog(file)
    expect(bodies.slice(1)).toEqual(['{"n":1}', '{"theirs":1}'])
    expect(voids).toEqual(['superseded'])
    expect(damage).toBeUndefined()
  })

  test('equal contents of two writers are told apart by the writer', () => {
    const log = start()
    const [mine, theirs] = ['a', 'b'].map((writer) => batchOf(['{"same":1}'], { ...log.next, writer }))
    const next = batchOf(['{"after":"mine"}'], { seq: 3, prev: mine!.crc })
    expect(readLog(Buffer.concat([log.bytes, theirs!.bytes, mine!.bytes, next.bytes])).bodies).not.toContain('{"after":"mine"}')
  })

  test('a batch that is broken off by another counts for nothing, and the other is tried from its own first line', () => {
    const log = start()
    const torn = batchOf(['{"a":1}', '{"a":2}', '{"a":3}'], { ...log.next, writer: 'abcd00000aaa' })
    const twoLines = torn.bytes.subarray(0, torn.bytes.lastIndexOf('\n', -2) + 1)
    const whole = batchOf(['{"b":1}', '{"b":2}'], { ...log.next, writer: 'abcd00000bbb' })
    const { bodies, voids, damage } = readLog(Buffer.concat([log.bytes, twoLines, whole.bytes]))
    expect(bodies.slice(2)).toEqual(['{"b":1}', '{"b":2}'])
    expect(voids).toEqual(['unfinished', 'unfinished'])
    expect(damage).toBeUndefined()
  })

  test('the middle of a batch does not stand in for its beginning', () => {
    const log = start()
    const batch = batchOf(['{"a":1}', '{"a":2}'], log.next).bytes
    const second = batch.subarray(batch.indexOf(0x0a) + 1)
    expect(readLog(Buffer.concat([log.bytes, second])).seqs).toEqual([0, 1])
  })

  test('nothing chains after a seal, and a late batch there is void without damage', () => {
    const log = start().add(sealBody())
    const late = batchOf(['{"late":1}'], { seq: 2, prev: Number.parseInt(referenceLog(log.bytes).records[1]!.crc, 16) })
    const onTheSeal = batchOf(['{"late":2}'], log.next)
    const { voids, chain, damage } = readLog(Buffer.concat([log.bytes, late.bytes, onTheSeal.bytes]))
    expect(chain.seal).toMatchObject({ reason: 'rotated', next: 'n' })
    expect(voids).toEqual(['sealed', 'sealed'])
    expect(chain.seq).toBe(2)
    expect(damage).toBeUndefined()
  })

  test('of two seals the first one stands', () => {
    const log = start()
    const [first, second] = ['one', 'two'].map((next) => batchOf([sealBody({ next })], { ...log.next, writer: next }))
    expect(readLog(Buffer.concat([log.bytes, first!.bytes, second!.bytes])).chain.seal?.next).toBe('one')
  })

  test('of two headers the first one stands: two who create the same log meet in one', () => {
    const headers = ['aa', 'bb'].map((writer) => batchOf([headerBody({ createdAt: 2 }), '{"by":1}'], { seq: 0, prev: 0, writer }))
    const { seqs, voids, damage } = readLog(Buffer.concat(headers.map(({ bytes }) => bytes)))
    expect(seqs).toEqual([0, 1])
    expect(voids).toEqual(['superseded', 'superseded'])
    expect(damage).toBeUndefined()
  })

  test('a log begins with a header: without one there is none', () => {
    const file = batchOf(['{"n":0}', '{"n":1}'], { seq: 0, prev: 0, writer: '1234ffffffff' }).bytes
    expect(readLog(file).seqs).toEqual([])
  })

  test('a rewritten log goes on where its header says', () => {
    const log = new LogText({ seq: 4_000 }).add('{"n":1}')
    expect(readLog(log.bytes)).toMatchObject({ seqs: [4_000, 4_001], damage: undefined })
  })

  test('a torn header alone is an empty log', () => {
    const header = new LogText().bytes
    for (let end = 0; end < header.length; end++) {
      const { chain, damage } = readLog(header.subarray(0, end))
      expect(chain.seq).toBe(-1)
      expect(damage).toBeUndefined()
      expect(chain.foreign.lines).toBe(0)
    }
  })

  test('the last of the caller’s own records is known beside the last of all', () => {
    const log = start().add('{"n":2}').add(sealBody())
    expect(readLog(log.bytes).chain).toMatchObject({ seq: 3, userSeq: 2 })
    expect(readLog(new LogText().bytes).chain).toMatchObject({ seq: 0, userSeq: 0 })
  })
})

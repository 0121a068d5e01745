/** Reading a log in a window of fixed size gives the verdicts of the chain, byte for byte, however long its lines and its batches are. */
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Chain, type VoidKind } from '../../src/file/log/chain.js'
import { extendedCrc, joinedCrc, suffixCrc } from '../../src/file/log/crc.js'
import type { LineMark } from '../../src/file/log/record.js'
import { scan } from '../../src/file/log/scan.js'
import { bytesSource } from './bytes-source.js'
import { batchOf, LogText, otherBoot, thisBoot } from './log-text.js'
import { bornLog, races, run } from './races.js'

const numRuns = process.env.HOLDFAST_SOAK ? 5_000 : 150

function noting() {
  const seen: unknown[] = []
  return {
    seen,
    sink: {
      record: (mark: LineMark, _bytes: Buffer, _start: number, _end: number, { byte, length }: { byte: number; length: number }) =>
        void seen.push({ ...mark, byte, length }),
      void: (kind: VoidKind, byte: number, length: number) => void seen.push({ kind, byte, length }),
      foreign: (byte: number, length: number) => void seen.push({ byte, length }),
    },
  }
}

function stateOf(chain: Chain) {
  const { seq, crc, userSeq, claimed, settled, end, openTail, header, seal, damage, records, voidLines, foreign } = chain
  return { seq, crc, userSeq, claimed, settled, end, openTail, header, seal, damage, records, voidLines, foreign }
}

async function expectSame(file: Buffer, sizes: { pieceBytes: number; longLineBytes: number }): Promise<void> {
  const fed = new Chain(thisBoot)
  const feeding = noting()
  fed.feed(file, feeding.sink)
  const scanned = new Chain(thisBoot)
  const scanning = noting()
  const tail = await scan(bytesSource(file), scanned, scanning.sink, {}, sizes)
  expect(stateOf(scanned)).toEqual(stateOf(fed))
  expect(scanning.seen).toEqual(feeding.seen)
  expect(tail.byte + tail.length).toBe(file.length)
  expect(tail.pending[0]?.byte ?? tail.byte).toBe(fed.settled)
}

const sizes = fc.record({ pieceBytes: fc.integer({ min: 1, max: 300 }), longLineBytes: fc.integer({ min: 1, max: 700 }) })

describe('a scan says what the chain says', () => {
  test('of any interleaving of whole and torn writes, cut off anywhere', async () => {
    await fc.assert(
      fc.asyncProperty(races(), fc.nat(), sizes, async ({ steps, claims }, where, of) => {
        const { file } = run(steps, { claims })
        await expectSame(file.subarray(0, where % (file.length + 1)), of)
      }),
      { numRuns },
    )
  })

  test('of a log with NULs, holes and welds in it', async () => {
    await fc.assert(
      fc.asyncProperty(races(), fc.nat(), fc.nat(300), fc.nat(2), sizes, async ({ steps, claims }, where, length, how, of) => {
        const { file } = run(steps, { claims, start: bornLog() })
        // Behind the header: before it, only whoever parses a line knows whether it is somebody else's.
        const born = file.indexOf(0x0a) + 1
        const at = born + (where % (file.length - born + 1))
        const newline = file.indexOf(0x0a, at)
        const changed = [
          Buffer.from(file).fill(0, at, Math.min(file.length, at + length)),
          Buffer.concat([file.subarray(0, at), file.subarray(at + length)]),
          newline < 0 ? file : Buffer.concat([file.subarray(0, newline), file.subarray(newline + 1)]),
        ]
        await expectSame(changed[how]!, of)
      }),
      { numRuns },
    )
  })

  test('of lines larger than its window, welded ones among them, and of a batch of them', async () => {
    const long = (n: number) => JSON.stringify({ n, text: '{"é'.repeat(2_000) })
    const log = new LogText({ boot: otherBoot }).add('{"a":1}').add(long(1), '{"b":1}', long(2)).add('{"c":1}')
    const { next } = log
    const torn = batchOf([long(3)], { ...next, writer: `${thisBoot}11111111` }).bytes
    const whole = batchOf([long(4)], { ...next, writer: `${thisBoot}22222222` }).bytes
    const files = [
      log.bytes,
      log.bytes.subarray(0, -2),
      Buffer.concat([log.bytes, torn.subarray(0, 40), whole, whole]),
      Buffer.concat([log.bytes, torn.subarray(0, 9_000), Buffer.from('#\n'), whole]),
      Buffer.concat([log.bytes, torn.subarray(0, -1), whole]),
      Buffer.concat([log.bytes, Buffer.alloc(5_000), Buffer.from('\n'), whole]),
      Buffer.concat([log.bytes, Buffer.alloc(5_000)]),
      Buffer.concat([Buffer.from(`${JSON.stringify({ text: 'x'.repeat(3_000) })}\n`), log.bytes]),
    ]
    for (const file of files)
      for (const longLineBytes of [1, 600, 1_000, 4_096])
        for (const pieceBytes of [7, 512, 5_000]) await expectSame(file, { pieceBytes, longLineBytes })
  })
})

test('a long beginning with many objects in it, and a whole line welded to it, are no damage for a scan either', async () => {
  // A killed writer's record of more than 2 MiB, and behind it, before anybody has seen it, somebody's whole line.
  const parts = JSON.stringify({ text: 'x'.repeat(2_500_000), parts: Array.from({ length: 300 }, (_, n) => ({ n })) })
  const log = new LogText({ boot: otherBoot }).add('{"a":1}')
  const { next } = log
  const torn = batchOf([parts], { ...next, writer: `${thisBoot}11111111` }).bytes
  const whole = batchOf(['{"b":1}'], { ...next, writer: `${thisBoot}22222222` }).bytes
  for (const cut of [60, 2_501_000, torn.length - 400, torn.length - 1]) {
    const file = Buffer.concat([log.bytes, torn.subarray(0, cut), whole, whole])
    const fed = new Chain(thisBoot)
    fed.feed(file)
    const scanned = new Chain(thisBoot)
    await scan(bytesSource(file), scanned, {})
    expect([cut, fed.damage]).toEqual([cut, undefined])
    expect([cut, scanned.damage]).toEqual([cut, fed.damage])
    expect(scanned.seq).toBe(fed.seq)
  }
})

test('the crc of an ending is known from those of the whole and of the beginning; that of the whole from those of its parts', () => {
  const length = 3_000
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: length, size: 'max' }), fc.nat(), (bytes, where) => {
      const at = where % (bytes.length + 1)
      const [first, second] = [bytes.subarray(0, at), bytes.subarray(at)]
      expect(suffixCrc(crc32(bytes), crc32(first), second.length)).toBe(crc32(second))
      expect(joinedCrc(crc32(first), crc32(second), second.length)).toBe(crc32(bytes))
      expect(extendedCrc(crc32(first), Buffer.from(bytes), at, bytes.length)).toBe(crc32(bytes))
    }),
  )
  const large = Buffer.alloc((2 << 20) - 1, 'large')
  expect(joinedCrc(crc32('x'), crc32(large), large.length)).toBe(crc32(large, crc32('x')))
})

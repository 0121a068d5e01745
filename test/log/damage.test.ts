/** Damage is never silent (P5) and never imagined: what only damage can bring about is told from what killed writers, lost races and power
 *  cuts leave behind (F21, F23, F29). Each reason in chain.ts has its cases here, and each case its opposite. */
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { batchOf, headerBody, LogText, otherBoot, readLog, sealBody, thisBoot } from './log-text.js'
import { type Racing, races, run } from './races.js'

const numRuns = process.env.HOLDFAST_SOAK ? 20_000 : 400

/** Six records behind the header. Read by this boot, written by the boot given. */
function sixRecords(options: { boot?: string; claims?: boolean } = {}): LogText {
  const log = new LogText(options)
  for (let n = 1; n <= 6; n++) log.add(JSON.stringify({ n, text: '{"é' }))
  return log
}

function without(log: LogText, ...lines: number[]): Buffer {
  return Buffer.concat(log.lines.filter((_, at) => !lines.includes(at)))
}

function altered(log: LogText, line: number, change: (text: Buffer) => Buffer): Buffer {
  return Buffer.concat(log.lines.map((text, at) => (at === line ? change(Buffer.from(text)) : text)))
}

const flipFirstDigit = (text: Buffer) => {
  text[text.indexOf('"n":') + 4]! ^= 1
  return text
}
const zeroSome = (text: Buffer) => text.fill(0, 2, 9)

describe('a record says that something was on the disk which is not there', () => {
  test('a line is missing: damage, in whatever boot it was written', () => {
    for (const boot of [thisBoot, otherBoot]) {
      const { damage, seqs } = readLog(without(sixRecords({ boot }), 3))
      expect(damage).toMatchObject({ seq: 3 })
      expect(seqs).toEqual([0, 1, 2])
    }
  })

  test('all of the beginning is missing: damage, not an empty log (F21)', () => {
    expect(readLog(without(sixRecords({ boot: otherBoot }), 0)).damage).toMatchObject({ seq: 0 })
    expect(readLog(without(sixRecords({ boot: otherBoot }), 0, 1, 2, 3, 4)).damage).toBeDefined()
  })

  test('nobody says so, and it was another boot: what a power cut leaves, and void', () => {
    const { damage, voids, seqs } = readLog(without(sixRecords({ boot: otherBoot, claims: false }), 3))
    expect(damage).toBeUndefined()
    expect(voids).toEqual(['leftover', 'leftover', 'leftover'])
    expect(seqs).toEqual([0, 1, 2])
  })

  test('the claim counts also when it stands in a void batch', () => {
    const log = sixRecords({ boot: otherBoot, claims: false })
    const late = batchOf(['{"late":1}'], { seq: 5, prev: 0x12345678, synced: 6, writer: `${otherBoot}99999999` })
    expect(readLog(Buffer.concat([without(log, 5, 6), late.bytes])).damage).toMatchObject({ seq: 5 })
  })

  test('a batch that has not arrived whole claims nothing', () => {
    const log = sixRecords()
    const batch = batchOf(['{"a":1}', '{"a":2}'], { seq: 7, prev: log.crc, synced: 99 })
    const part = Buffer.concat([log.bytes, batch.bytes.subarray(0, -1)])
    expect(readLog(part).damage).toBeUndefined()
    expect(readLog(Buffer.concat([log.bytes, batch.bytes])).damage).toBeDefined()
  })
})

describe('a record of this boot continues what is nowhere in the file', () => {
  test('a line is missing although nobody ever synced: damage, for within a boot nothing goes missing by itself', () => {
    expect(readLog(without(sixRecords({ claims: false }), 3)).damage).toMatchObject({ seq: 3 })
    expect(readLog(without(sixRecords({ claims: false }), 0)).damage).toMatchObject({ seq: 0 })
  })

  test('where the system has no boot id, boots cannot be told apart: void', () => {
    const log = sixRecords({ boot: '0000', claims: false })
    expect(readLog(without(log, 3), { boot: '0000' }).damage).toBeUndefined()
  })

  test('a late batch that lost its race continues what is there: void', () => {
    const log = sixRecords()
    const late = batchOf(['{"late":1}'], { seq: 4, prev: 0x0 })
    expect(readLog(Buffer.concat([log.bytes, late.bytes])).damage).toBeUndefined()
  })

  test('the rest of a batch whose first line was welded to a killed writer’s: void', () => {
    const log = sixRecords()
    const torn = batchOf(['{"torn":true}'], { ...log.next, writer: `${thisBoot}11111111` }).bytes.subarray(0, 20)
    const stale = batchOf(['{"a":1}', '{"a":2}', '{"a":3}'], { ...log.next, writer: `${thisBoot}22222222` })
    const { damage, seqs } = readLog(Buffer.concat([log.bytes, torn, stale.bytes]))
    expect(damage).toBeUndefined()
    expect(seqs).toHaveLength(7)
  })

  test('a record that continues one which is void is damage: nobody chains on what is not in the log', () => {
    const log = sixRecords({ claims: false })
    const winner = batchOf(['{"won":1}'], { ...log.next, writer: `${thisBoot}11111111` })
    const loser = batchOf(['{"lost":1}'], { ...log.next, writer: `${thisBoot}22222222` })
    const next = batchOf(['{"next":1}'], { seq: 8, prev: loser.crc, writer: `${thisBoot}33333333` })
    expect(readLog(Buffer.concat([log.bytes, winner.bytes, loser.bytes, next.bytes])).damage).toBeDefined()
  })
})

describe('a whole line whose crc does not fit', () => {
  test('was altered: damage, in whatever boot it was written, and named by its place and sequence number', () => {
    for (const boot of [thisBoot, otherBoot])
      for (const claims of [true, false]) {
        const log = sixRecords({ boot, claims })
        const { damage } = readLog(altered(log, 4, flipFirstDigit))
        expect(damage).toEqual({ why: 'the line of seq 4 has been altered', byte: log.startOf(4), seq: 4 })
      }
  })

  test('the last line too, when it still looks like a record', () => {
    expect(readLog(altered(sixRecords({ boot: otherBoot, claims: false }), 6, flipFirstDigit)).damage).toMatchObject({ seq: 6 })
  })

  test('a header that was altered is damage, not a reason to start afresh (F21)', () => {
    for (const boot of [thisBoot, otherBoot]) {
      const log = sixRecords({ boot, claims: false })
      const { damage, seqs } = readLog(altered(log, 0, (text) => Buffer.from(text.toString().replace('"k"', '"K"'))))
      expect(damage).toMatchObject({ seq: 0, byte: 0 })
      expect(seqs).toEqual([])
    }
  })

  test('with NULs in it, from another boot, is what a power cut leaves: void (F23)', () => {
    const { damage, seqs } = readLog(altered(sixRecords({ boot: otherBoot, claims: false }), 4, zeroSome))
    expect(damage).toBeUndefined()
    expect(seqs).toEqual([0, 1, 2, 3])
  })

  test('with NULs in it, from this boot: damage (F23)', () => {
    expect(readLog(altered(sixRecords({ claims: false }), 4, zeroSome)).damage).toMatchObject({ seq: 4 })
  })

  test('with NULs in it, from another boot, but known to have been on the disk: damage (F23)', () => {
    expect(readLog(altered(sixRecords({ boot: otherBoot }), 4, zeroSome)).damage).toMatchObject({ seq: 4 })
  })

  test('a killed writer’s beginning with another’s whole line behind it: void, and what is tried next is in (F20)', () => {
    const log = sixRecords()
    const torn = batchOf(['{"torn":"{\\"a\\":1"}'], { ...log.next, writer: `${thisBoot}11111111` }).bytes
    const stale = batchOf(['{"stale":1}'], { ...log.next, writer: `${thisBoot}22222222` }).bytes
    const again = batchOf(['{"again":1}'], { ...log.next, writer: `${thisBoot}22222222` }).bytes
    for (let length = 1; length < torn.length; length++) {
      const { damage, bodies } = readLog(Buffer.concat([log.bytes, torn.subarray(0, length), stale, again]))
      expect(damage).toBeUndefined()
      expect(bodies.at(-1)).toBe('{"again":1}')
    }
  })
})

describe('the lines before the header', () => {
  const theirs = '{"type":"session"}\n\n{"type":"message","n":1}\n'
  const named = (text: string, lines: number) => ({
    foreign: { lines, bytes: Buffer.byteLength(text), crc: crc32(text).toString(16).padStart(8, '0') },
  })

  test('are records when the header names them', () => {
    const log = new LogText({ header: headerBody(named(theirs, 2)), seq: 3 }).add('{"ours":1}')
    const { chain, damage, seqs } = readLog(Buffer.concat([Buffer.from(theirs), log.bytes]))
    expect(damage).toBeUndefined()
    expect(chain.foreign.lines).toBe(2)
    expect(seqs).toEqual([3, 4])
  })

  test.each([
    ['one is missing', theirs.slice(19)],
    ['one was altered', theirs.replace('1', '2')],
    ['one was added', `{"more":1}\n${theirs}`],
    ['all are missing', ''],
    ['one has become something else', theirs.replace('{"type":"session"}', 'not JSON at all!!!')],
  ])('%s: damage', (_, text) => {
    const log = new LogText({ header: headerBody(named(theirs, 2)), seq: 3 }).add('{"ours":1}')
    expect(readLog(Buffer.concat([Buffer.from(text), log.bytes])).damage).toMatchObject({ byte: 0 })
  })

  test('that no header names are not ours: void', () => {
    const { chain, damage } = readLog(Buffer.concat([Buffer.from(theirs), new LogText().bytes]))
    expect(damage).toBeUndefined()
    expect(chain).toMatchObject({ foreign: { lines: 0 }, voidLines: 2 })
  })

  test('alone, without any header, are records too', () => {
    const { chain, damage } = readLog(Buffer.from(theirs))
    expect(damage).toBeUndefined()
    expect(chain).toMatchObject({ foreign: { lines: 2 }, seq: -1, voidLines: 0 })
  })
})

describe('a power cut', () => {
  /** What is left of a file: unsynced blocks may be missing (NUL, as ext4 and xfs leave them), and so may the end. */
  function cutPower(file: Buffer, syncedBytes: number, lost: readonly boolean[], cutAt: number): Buffer {
    const left = Buffer.from(file)
    const blockBytes = 64
    for (const [at, isLost] of lost.entries()) {
      const start = syncedBytes + at * blockBytes
      if (isLost && start < left.length) left.fill(0, start, Math.min(left.length, start + blockBytes))
    }
    return left.subarray(0, syncedBytes + (cutAt % (left.length - syncedBytes + 1)))
  }

  const scene: fc.Arbitrary<{ before: Racing; after: Racing; lost: boolean[]; cutAt: number }> = fc.record({
    before: races({ seals: false }),
    after: races({ seals: false, maxSteps: 8 }),
    lost: fc.array(fc.boolean(), { maxLength: 64 }),
    cutAt: fc.nat(),
  })

  test('leaves no damage, and everything that was known to be on the disk', () => {
    fc.assert(
      fc.property(scene, ({ before, lost, cutAt }) => {
        const { file, syncedBytes } = run(before.steps, { boot: otherBoot, claims: before.claims })
        const synced = readLog(file.subarray(0, syncedBytes), { boot: otherBoot })
        const { damage, lines } = readLog(cutPower(file, syncedBytes, lost, cutAt))
        expect(damage).toBeUndefined()
        expect(lines.slice(0, synced.lines.length)).toEqual(synced.lines)
      }),
      { numRuns },
    )
  })

  test('leaves a log that the next boot goes on with, racing as before, without damage and without losing a record', () => {
    fc.assert(
      fc.property(scene, ({ before, after, lost, cutAt }) => {
        const first = run(before.steps, { boot: otherBoot, claims: before.claims })
        const left = cutPower(first.file, first.syncedBytes, lost, cutAt)
        const kept = readLog(left).lines
        const { file, acknowledged } = run(after.steps, { boot: thisBoot, claims: after.claims, start: left })
        const { damage, lines } = readLog(file)
        expect(damage).toBeUndefined()
        expect(lines.slice(0, kept.length)).toEqual(kept)
        expect(lines).toEqual(expect.arrayContaining([...acknowledged]))
      }),
      { numRuns },
    )
  })
})

/** Every single bit of a log is flipped, one after another. */
describe('one flipped bit', () => {
  interface Flip {
    readonly line: number
    /** From the line's last byte, its newline: 0. */
    readonly fromEnd: number
    readonly bit: number
  }

  const known = new Map<string, Flip[]>()

  /** Those that are not reported, of six records written as told. */
  function unreported(how: { name: string; boot: string; claims: boolean }): Flip[] {
    const flips = known.get(how.name) ?? unreportedIn(sixRecords(how))
    known.set(how.name, flips)
    return flips
  }

  /** Whatever is reported or not, no record comes out other than it was written. */
  function unreportedIn(log: LogText): Flip[] {
    const { bytes } = log
    const starts = log.lines.map((_, at) => log.startOf(at))
    const lines = log.lines.map((line) => line.toString('latin1').slice(0, -1))
    const flips: Flip[] = []
    for (let at = 0; at < bytes.length; at++)
      for (let bit = 0; bit < 8; bit++) {
        const flipped = Buffer.from(bytes)
        flipped[at]! ^= 1 << bit
        const found = readLog(flipped)
        expect(lines.slice(0, found.lines.length)).toEqual(found.lines)
        if (found.damage) continue
        expect(found.lines.length).toBeLessThan(lines.length)
        const line = starts.findLastIndex((start) => start <= at)
        flips.push({ line, fromEnd: starts[line]! + log.lines[line]!.length - 1 - at, bit })
      }
    return flips
  }

  const written = [
    { name: 'power, this boot', boot: thisBoot, claims: true },
    { name: 'power, another boot', boot: otherBoot, claims: true },
    { name: 'process, this boot', boot: thisBoot, claims: false },
    { name: 'process, another boot', boot: otherBoot, claims: false },
  ]
  const last = 6
  /** The bytes of `"$":"6.0.5.abcd00000006.…"}` and the comma before it: what makes a line look like a record. */
  const markBytes = 45
  const inMark = ({ fromEnd }: Flip) => fromEnd > 0 && fromEnd <= markBytes
  const isNewline = ({ fromEnd }: Flip) => fromEnd === 0

  test.each(written)('within any line that has lines behind it is damage, as long as the line still looks like a record: $name', (how) => {
    const silent = unreported(how).filter(({ line }) => line < last)
    expect(silent.filter((flip) => !isNewline(flip) && !inMark(flip))).toEqual([])
  })

  test.each(written.filter(({ name }) => name !== 'process, another boot'))(
    'in the mark of a line that has lines behind it is damage: $name',
    (how) => {
      expect(unreported(how).filter((flip) => flip.line < last && inMark(flip))).toEqual([])
    },
  )

  test('in the mark of a line that has lines behind it is damage: process, another boot', () => {
    expect(unreported(written[3]!).filter((flip) => flip.line < last && inMark(flip))).toEqual([])
  })

  test.each(written)('of a newline between two lines is damage: $name', (how) => {
    expect(unreported(how).filter((flip) => flip.line < last && isNewline(flip))).toEqual([])
  })

  test.each(written)(
    'in the last line costs at most that line, and goes unreported only where it no longer looks like one: $name',
    (how) => {
      const silent = unreported(how).filter(({ line }) => line === last)
      expect(silent.filter((flip) => !isNewline(flip) && !inMark(flip))).toEqual([])
    },
  )

  test.each(written)('in the mark of the last line is damage: $name', (how) => {
    expect(unreported(how).filter((flip) => flip.line === last && inMark(flip))).toEqual([])
  })

  test('of a seal is damage, or leaves the log open as it was before the seal', () => {
    const log = sixRecords().add(sealBody())
    for (const { line } of unreportedIn(log)) expect(line).toBeGreaterThanOrEqual(last)
  })
})

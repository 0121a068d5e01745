/** Opening a log by its end gives what reading all of it gives, and costs the tail (P9; F45, F47). */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Disk, nodeDisk } from '../../src/file/durable.js'
import type { Chain } from '../../src/file/log/chain.js'
import { openTail, openWhole } from '../../src/file/log/tail.js'
import { batchOf, LogText, otherBoot, sealBody, thisBoot } from './log-text.js'
import { races, run } from './races.js'

const numRuns = process.env.HOLDFAST_SOAK ? 2_000 : 60
/** The first look that openTail takes. */
const windowBytes = 64 << 10

class BytesOnDisk {
  read = 0
  readonly disk: Disk
  readonly bytes: Buffer

  constructor(bytes: Buffer) {
    this.bytes = bytes
    this.disk = {
      ...nodeDisk,
      read: (_, into, offset, length, position) => {
        const got = bytes.copy(into, offset, position, position + length)
        this.read += got
        return got
      },
    }
  }

  tail(records: number, boot = thisBoot, after?: number): { chain: Chain; seqs: number[] } {
    const seqs: number[] = []
    const reach = after === undefined ? { records } : { records, after }
    const chain = openTail(this.disk, 0, this.bytes.length, boot, reach, { record: ({ seq }) => void seqs.push(seq) })
    return { chain, seqs }
  }

  whole(boot = thisBoot): { chain: Chain; seqs: number[] } {
    const seqs: number[] = []
    const chain = openWhole(this.disk, 0, this.bytes.length, boot, { record: ({ seq }) => void seqs.push(seq) })
    return { chain, seqs }
  }
}

const stateOf = ({ seq, crc, settled, openTail: open, seal, userSeq, damage }: Chain) => ({
  seq,
  crc,
  settled,
  open,
  seal,
  userSeq,
  damage,
})

/** A log larger than the first window several times over, with void batches, torn lines and pauses for breath. */
const largeRace = races({ maxSteps: 90, seals: false })
const padding = 9_000

function expectSame(bytes: Buffer, records: number, boot: string): void {
  const file = new BytesOnDisk(bytes)
  const [tail, whole] = [file.tail(records, boot), file.whole(boot)]
  expect(stateOf(tail.chain)).toEqual(stateOf(whole.chain))
  expect(whole.seqs.slice(-tail.seqs.length || whole.seqs.length)).toEqual(tail.seqs)
}

describe('opened by its end', () => {
  test('a log stands where it stands when all of it is read, at whatever byte it ends', () => {
    fc.assert(
      fc.property(
        largeRace,
        fc.array(fc.nat(), { minLength: 3, maxLength: 6 }),
        fc.integer({ min: 1, max: 5 }),
        ({ steps, claims }, ends, records) => {
          const { file } = run(steps, { claims, padding })
          for (const end of [0, ...ends]) expectSame(file.subarray(0, file.length - (end % (file.length + 1))), records, thisBoot)
        },
      ),
      { numRuns },
    )
  })

  test('also one of another boot, of which only what somebody called durable may be trusted', () => {
    fc.assert(
      fc.property(largeRace, fc.nat(), ({ steps, claims }, end) => {
        const { file } = run(steps, { claims, padding })
        expectSame(file.subarray(0, file.length - (end % (file.length + 1))), 1, otherBoot)
      }),
      { numRuns },
    )
  })

  test('also one that two boots have written, one after the other', () => {
    fc.assert(
      fc.property(largeRace, largeRace, (before, after) => {
        const start = run(before.steps, { claims: before.claims, padding, boot: otherBoot }).file
        expectSame(run(after.steps, { claims: after.claims, padding, start }).file, 2, thisBoot)
      }),
      { numRuns: numRuns / 2 },
    )
  })

  test('also one whose size is just that of the window', () => {
    const log = new LogText()
    while (log.bytes.length < windowBytes + 400) log.add('{"text":"some record of some size"}')
    for (let size = windowBytes - 3; size < windowBytes + 300; size++) expectSame(log.bytes.subarray(0, size), 1, thisBoot)
  })

  test('also one that ends in a batch larger than the window, in a seal, or in what came too late for it', () => {
    const log = new LogText()
    while (log.bytes.length < 2 * windowBytes) log.add(JSON.stringify({ text: 'x'.repeat(900) }))
    const place = log.next
    const large = new LogText().add('{"n":1}')
    const text = JSON.stringify({ text: 'x'.repeat(windowBytes) })
    large.add(text, text, text)
    expectSame(large.bytes, 1, thisBoot)
    expectSame(large.add('{"n":2}').bytes, 1, thisBoot)
    const late = batchOf(['{"late":1}'], { ...place, writer: `${thisBoot}99999999` })
    expectSame(Buffer.concat([log.add(sealBody()).bytes]), 1, thisBoot)
    expectSame(Buffer.concat([log.bytes, late.bytes]), 1, thisBoot)
    const sealed = new BytesOnDisk(Buffer.concat([log.bytes, late.bytes])).tail(1)
    expect(sealed.chain.seal?.reason).toBe('rotated')
  })

  test('foreign lines that reach far back are counted', () => {
    const foreign = Array.from({ length: 900 }, (_, n) => `${JSON.stringify({ n, text: 'y'.repeat(100) })}\n`).join('')
    const { chain } = new BytesOnDisk(Buffer.from(foreign)).tail(1)
    expect(chain.foreign.lines).toBe(900)
  })
})

describe('what is handed out', () => {
  const log = new LogText()
  for (let n = 1; n <= 1_000; n++) log.add(JSON.stringify({ n, text: 'x'.repeat(600) }))

  test.each([0, 1, 2, 50, 104, 999, 1_000, 1_001, 5_000])('reaches back at least %i records where there are so many', (records) => {
    const { seqs } = new BytesOnDisk(log.bytes).tail(records)
    expect(seqs.length).toBeGreaterThanOrEqual(Math.min(records, 1_000))
    expect(seqs.at(-1)).toBe(1_000)
  })

  test.each([0, 1, 500, 998, 999, 1_000, 2_000])('reaches back to everything after seq %i', (after) => {
    const { seqs } = new BytesOnDisk(log.bytes).tail(0, thisBoot, after)
    const wanted = Array.from({ length: Math.max(0, 1_000 - after) }, (_, at) => after + 1 + at)
    expect(seqs.filter((seq) => seq > after)).toEqual(wanted)
  })

  test('reaches as far over void batches between the records', () => {
    const lines = [...log.lines]
    for (let at = 990; at > 10; at -= 7)
      lines.splice(at, 0, Buffer.from('{"torn":tr#\n'), batchOf(['{"late":1}'], { seq: at - 1, prev: 1, writer: thisBoot }).bytes)
    const file = new BytesOnDisk(Buffer.concat(lines))
    expect(stateOf(file.tail(40).chain)).toEqual(stateOf(file.whole().chain))
    expect(file.tail(40).seqs.length).toBeGreaterThanOrEqual(40)
  })

  test('reaches as far when the file ends in a void batch of several records', () => {
    const winner = batchOf(['{"won":1}'], { ...log.next, writer: `${thisBoot}11111111` })
    const loser = batchOf(['{"lost":1}', '{"lost":2}', '{"lost":3}'], { ...log.next, writer: `${thisBoot}22222222` })
    const file = new BytesOnDisk(Buffer.concat([log.bytes, winner.bytes, loser.bytes]))
    expect(file.tail(3).seqs.slice(-3)).toEqual([999, 1_000, 1_001])
  })
})

describe('the cost', () => {
  const sizes = [1_000, 20_000]
  const files = sizes.map((count) => {
    const log = new LogText()
    for (let n = 1; n <= count; n++) log.add(`{"n":${n},"text":"${'x'.repeat(300)}"}`)
    return new BytesOnDisk(log.bytes)
  })

  test('of opening a long log to append is that of opening a short one', () => {
    const costs = files.map((file) => {
      file.read = 0
      file.tail(1)
      return file.read
    })
    expect(costs).toEqual([windowBytes, windowBytes])
  })

  test('of the last fifty records is theirs', () => {
    for (const file of files) {
      file.read = 0
      file.tail(50)
      expect(file.read).toBe(windowBytes)
    }
  })

  test('is a few windows for many records, not the file', () => {
    const large = files[1]!
    large.read = 0
    large.tail(1_000)
    expect(large.read).toBeLessThan(large.bytes.length / 3)
  })
})

/** A log that is made anew holds the records that were to stay, under their numbers, and damage to it is seen as to any other (P1, P5). */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Disk, nodeDisk } from '../../src/file/durable.js'
import { Chain } from '../../src/file/log/chain.js'
import { keeping, Rechain, replacingHeader } from '../../src/file/log/rechain.js'
import { hex8, readBody, type Seal, systemBody } from '../../src/file/log/record.js'
import { openTail, openWhole } from '../../src/file/log/tail.js'
import { Ids } from '../../src/file/transcripts/ids.js'
import { headerBody, LogText, otherBoot, readLog, sealBody, thisBoot } from './log-text.js'
import { bornLog, races, run } from './races.js'
import { referenceLog } from './reference-chain.js'

const numRuns = process.env.HOLDFAST_SOAK ? 5_000 : 200
const writer = `${thisBoot}99999999`

/** What a compaction makes of a log, as far as its lines are concerned. */
function remade(file: Buffer, from: number, { by = writer, ids }: { by?: string; ids?: Ids } = {}): Buffer {
  const old = new Chain(by.slice(0, 4))
  let headerCrc = 0
  let headerSeq = 0
  old.feed(file, {
    record: (mark, bytes, start) => {
      if (mark.prev === 0) [headerCrc, headerSeq] = [mark.crc, mark.seq]
      if (mark.seq < from) ids?.note(mark, bytes, start)
    },
  })
  const keepsForeign = old.foreign.lines > 0 && from <= headerSeq + 1
  const seq = keepsForeign ? headerSeq : Math.max(headerSeq, from - 1)
  const header = replacingHeader(old.header!, headerCrc, { ids: ids?.forHeader(), ...(keepsForeign && { foreign: old.header!.foreign }) })
  const anew = new Rechain({ header, seq, writer: by })
  const chain = new Chain(by.slice(0, 4))
  const made: Buffer[] = keepsForeign ? [file.subarray(0, old.foreign.bytes)] : []
  // As a reader that comes by again and again, taking what there is.
  for (let end = 0; end < file.length; end = Math.min(file.length, end + 997)) {
    chain.feed(file.subarray(chain.settled, end), keeping(anew, from))
    made.push(...anew.take())
  }
  chain.feed(file.subarray(chain.settled), keeping(anew, from))
  made.push(...anew.take())
  expect(anew.bytes).toBe(Buffer.concat(made).length - (keepsForeign ? old.foreign.bytes : 0))
  return Buffer.concat(made)
}

interface Kept {
  readonly seq: number
  readonly text: string
}

/** Number and text of each record, without header and seal. */
function recordsOf(file: Buffer, from = 0): Kept[] {
  const kept: Kept[] = []
  const chain = new Chain(thisBoot)
  chain.feed(file, {
    record(mark, bytes, start) {
      const { json, system } = readBody(bytes, start, mark)
      if (!system?.header && !system?.seal && mark.seq >= from) kept.push({ seq: mark.seq, text: JSON.stringify([system, json]) })
    },
  })
  return kept
}

function withIds(count: number, claims = true): LogText {
  const log = new LogText({ claims })
  for (let n = 1; n <= count; n++) log.add(JSON.stringify({ $$: { id: `id-${n}` }, n }))
  return log
}

describe('whatever writers have raced over it', () => {
  test('the new log chains without a void line and holds the same records under the same numbers', () => {
    fc.assert(
      fc.property(races(), fc.nat(20), ({ steps, claims }, from) => {
        const { file } = run(steps, { claims, start: bornLog() })
        const anew = remade(file, from)
        const { chain, damage } = readLog(anew)
        expect(damage).toBeUndefined()
        expect(chain.voidLines).toBe(0)
        expect(chain.openTail).toBe(false)
        expect(recordsOf(anew)).toEqual(recordsOf(file, from))
        expect(referenceLog(anew).records.map(({ seq }) => seq)).toEqual([
          chain.seq - chain.records + 1,
          ...recordsOf(anew).map(({ seq }) => seq),
        ])
        expect(chain.header?.replaces).toEqual([referenceLog(file).records[0]!.crc])
      }),
      { numRuns },
    )
  })

  test('two who make it make the same bytes', () => {
    fc.assert(
      fc.property(races(), fc.nat(20), ({ steps, claims }, from) => {
        const { file } = run(steps, { claims, start: bornLog() })
        expect(remade(file, from).equals(remade(file, from))).toBe(true)
        // Once more from the result: only the header says so.
        const again = remade(remade(file, from), from)
        expect(recordsOf(again)).toEqual(recordsOf(file, from))
      }),
      { numRuns },
    )
  })

  test('writers that go on with it lose nothing and are accused of nothing', () => {
    fc.assert(
      fc.property(races({ seals: false }), races(), fc.nat(20), fc.boolean(), ({ steps, claims }, { steps: later }, from, rebooted) => {
        const { file } = run(steps, { claims, start: bornLog() })
        const anew = remade(file, Math.min(from, readLog(file).chain.seq))
        const boot = rebooted ? otherBoot : thisBoot
        const { file: after, acknowledged } = run(later, { boot, claims, start: anew })
        const { damage, lines, chain } = readLog(after, { boot })
        expect(damage).toBeUndefined()
        expect(lines.slice(0, readLog(anew).lines.length)).toEqual(readLog(anew).lines)
        expect(lines.filter((line) => acknowledged.includes(line))).toEqual(acknowledged)
        expect(chain.seq).toBe(referenceLog(after).records.at(-1)!.seq)
      }),
      { numRuns },
    )
  })
})

describe('what it remembers', () => {
  test('ids of records that are gone, with their numbers and session (at least 10,000)', () => {
    const ids = new Ids('s')
    const anew = remade(withIds(12_000).bytes, 11_001, { ids })
    const known = new Ids('s')
    new Chain(thisBoot).feed(anew, { record: (mark, bytes, start) => known.note(mark, bytes, start) })
    expect(known.get('id-1001')).toEqual({ sessionId: 's', seq: 1_001, count: 1 })
    expect(known.get('id-12000')).toEqual({ sessionId: 's', seq: 12_000, count: 1 })
    expect(readLog(anew).seqs[0]).toBe(11_000)
  })

  test('the crcs of the headers before, last first, at most 16', () => {
    let file = withIds(3).bytes
    const crcs: string[] = []
    for (let n = 0; n < 20; n++) {
      crcs.unshift(referenceLog(file).records[0]!.crc)
      file = remade(file, 0, { by: `${thisBoot}${hex8(n)}` })
      expect(readLog(file).chain.header?.replaces).toEqual(crcs.slice(0, 16))
    }
    expect(recordsOf(file).map(({ seq }) => seq)).toEqual([1, 2, 3])
  })

  test('what the header said beside: key, session, the one before, when it was made', () => {
    const log = new LogText({ header: headerBody({ previous: 'p', createdAt: 17 }) }).add('{"n":1}')
    expect(readLog(remade(log.bytes, 1)).chain.header).toMatchObject({
      key: 'k',
      sessionId: 's',
      previous: 'p',
      createdAt: 17,
      log: 'transcript',
    })
  })

  test('lines of another program in front stay byte for byte', () => {
    const foreign = Buffer.from('{"role":"user","text":"Hello"}\n{"role":"assistant","text":"Hi."}\n')
    const probe = new Chain(thisBoot)
    probe.feed(foreign)
    const header = headerBody({ foreign: { lines: 2, bytes: foreign.length, crc: hex8(probe.foreign.crc) } })
    const file = Buffer.concat([foreign, new LogText({ header, seq: 3 }).add('{"n":4}').add('{"n":5}').bytes])
    const anew = remade(file, 0)
    expect(anew.subarray(0, foreign.length)).toEqual(foreign)
    const { damage, seqs, chain } = readLog(anew)
    expect(damage).toBeUndefined()
    expect(seqs).toEqual([3, 4, 5])
    expect(chain.foreign.lines).toBe(2)
    // Cut away, they are so as a whole.
    expect(readLog(remade(file, 5))).toMatchObject({ seqs: [4, 5], damage: undefined })
  })

  test('an empty record, and texts of the store’s own', () => {
    const log = new LogText().add('{}', '{"a":"é😀"}').add(systemBody({ summary: { upTo: 1, records: 1, text: 's', at: 1 } }))
    const anew = remade(log.bytes, 1)
    expect(recordsOf(anew)).toEqual(recordsOf(log.bytes))
    expect(readLog(anew).chain.userSeq).toBe(2)
  })
})

describe('its end is found without the rest', () => {
  test('by a reader of this boot and of a later one: the lines claim what is before them', () => {
    const anew = remade(withIds(3_000, false).bytes, 500)
    expect(anew.length).toBeGreaterThan(200_000)
    for (const boot of [thisBoot, otherBoot]) {
      let read = 0
      const disk: Disk = {
        ...nodeDisk,
        read(_, into, offset, length, position) {
          const got = anew.copy(into, offset, position, position + length)
          read += got
          return got
        },
      }
      const tail = openTail(disk, 0, anew.length, boot, { records: 5 })
      expect(read).toBeLessThan(100_000)
      const whole = openWhole(disk, 0, anew.length, boot)
      expect([tail.seq, tail.crc, tail.userSeq, tail.damage]).toEqual([whole.seq, whole.crc, whole.userSeq, undefined])
    }
  })

  test('a reader that asks for what comes after a number gets the same from either side of the cut', () => {
    const anew = remade(withIds(2_000).bytes, 500)
    const disk: Disk = { ...nodeDisk, read: (_, into, offset, length, at) => anew.copy(into, offset, at, at + length) }
    for (const after of [0, 10, 498, 499, 500, 1_990]) {
      const seqs: number[] = []
      const sink = { record: ({ seq }: { seq: number }) => void (seq > after && seq >= 500 && seqs.push(seq)) }
      const chain = openTail(disk, 0, anew.length, thisBoot, { records: 0, after }, sink)
      expect(chain.damage).toBeUndefined()
      expect(seqs).toEqual(Array.from({ length: 2_000 - Math.max(after, 499) }, (_, at) => Math.max(after, 499) + 1 + at))
    }
  })
})

describe('damage to it is never silent (P5)', () => {
  const anew = remade(withIds(40, false).bytes, 11)
  const lines = anew.toString('latin1').split(/(?<=\n)/)

  test.each([thisBoot, otherBoot])('a missing line, but the last, is damage in boot %s', (boot) => {
    for (let missing = 1; missing < lines.length - 1; missing++) {
      const without = Buffer.from(lines.filter((_, at) => at !== missing).join(''), 'latin1')
      expect(readLog(without, { boot }).damage, `without line ${missing}`).toBeDefined()
    }
  })

  test.each([thisBoot, otherBoot])('a changed byte in any line is damage in boot %s', (boot) => {
    fc.assert(
      fc.property(fc.nat(anew.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(anew)
        changed[at]! ^= flip
        const { damage, chain } = readLog(changed, { boot })
        // Of the last line nobody knows yet; and a lost newline at the end is a torn tail.
        if (at < anew.length - lines.at(-1)!.length) expect(damage).toBeDefined()
        else expect(damage !== undefined || chain.seq === 39).toBe(true)
      }),
      { numRuns: numRuns * 2 },
    )
  })

  test('a sealed log is made anew without its seal', () => {
    const seal: Partial<Seal> = { reason: 'compacted', from: 3 }
    const log = withIds(5).add(sealBody(seal))
    const { chain, seqs } = readLog(remade(log.bytes, 3))
    expect(chain.seal).toBeUndefined()
    expect(seqs).toEqual([2, 3, 4, 5])
  })
})

/** Whatever happens to a log, every record whose bytes are intact comes back, in its place, and nothing comes back that was not written
 *  (P5, F20-F23). Damage at random; the seed is printed by fast-check when it fails. */
import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { batchOf, headerBody, LogText, otherBoot, readLog, thisBoot } from '../../log/log-text.js'
import { salvaged } from './salvaging.js'

const soak = process.env.HOLDFAST_SOAK !== undefined
const numRuns = soak ? 20_000 : 500
if (soak) vi.setConfig({ testTimeout: 3_600_000 })

type Damage =
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number }
  | { readonly kind: 'cut'; readonly at: number; readonly length: number }
  | { readonly kind: 'garbage'; readonly at: number; readonly length: number }
  | { readonly kind: 'drop'; readonly line: number }
  | { readonly kind: 'double'; readonly line: number }
  | { readonly kind: 'join'; readonly line: number }
  | { readonly kind: 'carriage-return'; readonly line: number }
  | { readonly kind: 'swap'; readonly line: number; readonly other: number }

const position = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })
const length = fc.integer({ min: 1, max: 300 })
const damages: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: position, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('zero' as const), at: position, length }),
  fc.record({ kind: fc.constant('cut' as const), at: position, length }),
  fc.record({ kind: fc.constant('garbage' as const), at: position, length }),
  fc.record({ kind: fc.constant('drop' as const), line: position }),
  fc.record({ kind: fc.constant('double' as const), line: position }),
  fc.record({ kind: fc.constant('join' as const), line: position }),
  fc.record({ kind: fc.constant('carriage-return' as const), line: position }),
  fc.record({ kind: fc.constant('swap' as const), line: position, other: position }),
)

interface Written {
  readonly bytes: Buffer
  /** Body by sequence number. */
  readonly bodies: ReadonlyMap<number, string>
  /** Line by sequence number. */
  readonly lines: ReadonlyMap<number, Buffer>
  /** Bodies that were void from the start, by the number they claim. */
  readonly rivals: ReadonlyMap<number, string>
  /** First and last number of each batch. */
  readonly batches: readonly (readonly [first: number, last: number])[]
}

/** A log of batches of these sizes; behind some of them a late rival, or a torn line that was broken off. */
function written(sizes: readonly number[], wear: readonly number[], boot: string, claims: boolean): Written {
  const log = new LogText({ boot, claims })
  const chunks = [log.bytes]
  const bodies = new Map<number, string>()
  const lines = new Map<number, Buffer>()
  const rivals = new Map<number, string>()
  const batches: [number, number][] = []
  let n = 0
  for (const [at, size] of sizes.entries()) {
    const place = log.next
    batches.push([place.seq, place.seq + size - 1])
    const texts = Array.from({ length: size }, () => JSON.stringify({ n: ++n, text: 'some text of some length {"é' }))
    const from = log.lines.length
    log.add(...texts)
    for (const [of, line] of log.lines.slice(from).entries()) {
      bodies.set(place.seq + of, texts[of]!)
      lines.set(place.seq + of, line)
      chunks.push(line)
    }
    if (wear[at] === 1) {
      const body = JSON.stringify({ late: n })
      rivals.set(place.seq, body)
      chunks.push(batchOf([body], { ...place, writer: `${boot}eeee${String(at).padStart(4, '0')}` }).bytes)
    }
    if (wear[at] === 2) chunks.push(Buffer.from('{"torn":"in the mid#\n'))
  }
  return { bytes: Buffer.concat(chunks), bodies, lines, rivals, batches }
}

function damaged(bytes: Buffer, damage: Damage): Buffer {
  const copy = Buffer.from(bytes)
  const lines = bytes.toString('latin1').split(/(?<=\n)/)
  const joined = () => Buffer.from(lines.join(''), 'latin1')
  const lineAt = (line: number) => Math.floor(line * lines.length)
  if (damage.kind === 'flip') {
    copy[Math.floor(damage.at * copy.length)]! ^= 1 << damage.bit
    return copy
  }
  if (damage.kind === 'zero' || damage.kind === 'cut' || damage.kind === 'garbage') {
    const from = Math.floor(damage.at * copy.length)
    const to = Math.min(copy.length, from + damage.length)
    if (damage.kind === 'zero') return copy.fill(0, from, to)
    const between = damage.kind === 'cut' ? Buffer.alloc(0) : Buffer.from('garbage '.repeat(8))
    return Buffer.concat([copy.subarray(0, from), between, copy.subarray(to)])
  }
  const at = lineAt(damage.line)
  const line = lines[at]
  if (line === undefined) return copy
  if (damage.kind === 'drop') lines.splice(at, 1)
  else if (damage.kind === 'double') lines.splice(at, 0, line)
  else if (damage.kind === 'join') lines[at] = line.replace(/\n$/, ' ')
  else if (damage.kind === 'carriage-return') lines[at] = line.replace(/\n$/, '\r\n')
  else if (damage.kind === 'swap') {
    const other = lineAt(damage.other)
    lines[at] = lines[other]!
    lines[other] = line
  }
  return joined()
}

/** Numbers of the records whose lines stand in the file as they were written. A batch without its end, and with nothing behind it, is not
 *  told from a killed writer's. */
function intactIn(bytes: Buffer, { lines, batches }: Written): number[] {
  const present = new Set(bytes.toString('latin1').split(/(?<=\n)/))
  const intact = [...lines].filter(([, line]) => present.has(line.toString('latin1'))).map(([seq]) => seq)
  const last = intact[intact.length - 1] ?? 0
  return intact.filter((seq) => {
    const [first, end] = batches.find(([from, to]) => seq >= from && seq <= to)!
    return last > end || intact.filter((it) => it >= first && it <= end).length === end - first + 1
  })
}

test('every record that is intact comes back under its number; nothing comes back altered; every byte is kept or removed', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 12 }),
      fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 12, maxLength: 12 }),
      fc.constantFrom(thisBoot, otherBoot),
      fc.boolean(),
      fc.array(damages, { minLength: 1, maxLength: 3 }),
      async (sizes, wear, boot, claims, what) => {
        // Which of two rivals came first, only the order of the lines tells.
        const log = written(sizes, what.some(({ kind }) => kind === 'swap') ? [] : wear, boot, claims)
        const broken = what.reduce(damaged, log.bytes)
        const { action, bytes, removed } = await salvaged(broken, thisBoot)
        const { seqs, bodies, damage, voids, chain } = readLog(bytes)
        expect({ damage, voids, tail: bytes.length - chain.settled }).toEqual({ damage: undefined, voids: [], tail: 0 })
        expect(seqs).toEqual(seqs.map((_, at) => seqs[0]! + at))
        const found = new Map(seqs.map((seq, at) => [seq, bodies[at]!]))
        for (const [seq, body] of found) {
          if (seq === seqs[0] || body === '{}') continue
          expect([log.bodies.get(seq), log.rivals.get(seq)]).toContain(body)
        }
        for (const seq of intactIn(broken, log)) expect(found.get(seq)).toBe(log.bodies.get(seq))
        const kept = keptOf(action)
        expect(kept + removed).toBe(broken.length)
      },
    ),
    { numRuns },
  )
})

/** Bytes of the damaged file that stay: records, and the header's line. */
function keptOf(action: Awaited<ReturnType<typeof salvaged>>['action']): number {
  let removed = 0
  for (const { ranges } of action.quarantines) for (const { from, to } of ranges) removed += to - from
  return (action.requires[0]?.bytes ?? 0) - removed
}

describe('single cases', () => {
  test('a log with nothing wrong comes out with the same records', async () => {
    const log = written([1, 2, 3], [0, 1, 2], thisBoot, true)
    const { bytes, action } = await salvaged(log.bytes, thisBoot)
    expect(readLog(bytes).bodies.slice(1)).toEqual([...log.bodies.values()])
    expect(action.loses.seqs).toEqual([])
  })

  test('the header is gone: all records come back, under a header made from what the metadata know', async () => {
    const log = written([1, 1, 1], [], otherBoot, true)
    const { bytes, action } = await salvaged(log.bytes.subarray(log.bytes.indexOf(10) + 1), thisBoot)
    expect(readLog(bytes).seqs).toEqual([0, 1, 2, 3])
    expect(readLog(bytes).chain.header).toMatchObject({ key: 'k', sessionId: 's', replaces: [expect.stringMatching(/^[0-9a-f]{8}$/)] })
    expect(action.loses.notes).toHaveLength(1)
  })

  test('a header of another session, and what follows it, is not taken for this one’s', async () => {
    const log = written([1, 1], [], thisBoot, true)
    const other = new LogText({ header: headerBody({ sessionId: 'other' }) }).add('{"of":"another"}').add('{"of":"another"}').add('{"x":1}')
    const { bytes } = await salvaged(Buffer.concat([other.bytes, log.bytes]), thisBoot)
    expect(readLog(bytes).bodies.slice(1)).toEqual([...log.bodies.values()])
  })

  test('only the crc of a line is wrong: the record behind it proves that the line is intact', async () => {
    const log = written([1, 1, 1], [], otherBoot, true)
    const line = log.lines.get(2)!
    const wrong = Buffer.from(line)
    wrong[line.length - 4] = wrong[line.length - 4] === 0x30 ? 0x31 : 0x30
    const broken = Buffer.from(log.bytes.toString('latin1').replace(line.toString('latin1'), wrong.toString('latin1')), 'latin1')
    expect(readLog(broken).damage).toBeDefined()
    const { bytes, action } = await salvaged(broken, thisBoot)
    expect(readLog(bytes).bodies.slice(1)).toEqual([...log.bodies.values()])
    expect(action.loses.seqs).toEqual([])
  })

  test('a newline became another byte: both records come back (F20)', async () => {
    const log = written([1, 1, 1], [], otherBoot, true)
    const text = log.bytes.toString('latin1').split('\n')
    const broken = Buffer.from(`${text[0]}\n${text[1]}x${text[2]}\n${text[3]}\n`, 'latin1')
    const { bytes, action } = await salvaged(broken, thisBoot)
    expect(readLog(bytes).bodies.slice(1)).toEqual([...log.bodies.values()])
    expect(action.quarantines).toMatchObject([{ bytes: 1 }])
  })

  test('what a killed writer left, and what had lost its race, does not come to life', async () => {
    const log = written([1, 1, 1], [1, 0, 1], thisBoot, true)
    const { bytes } = await salvaged(damaged(log.bytes, { kind: 'cut', at: 0.99, length: 1 }), thisBoot)
    const { bodies } = readLog(bytes)
    expect(bodies.filter((body) => body.includes('late'))).toEqual([])
  })

  test('numbers that were on the disk are not given again', async () => {
    const log = written([1, 1, 1], [], otherBoot, true)
    const { bytes, action } = await salvaged(log.bytes.subarray(0, log.bytes.length - 5), thisBoot, { knownSeq: 5 })
    expect(action.loses.seqs).toEqual([{ from: 3, to: 5 }])
    expect(readLog(bytes).seqs).toEqual([0, 1, 2, 3, 4, 5])
  })

  test('a last line that lacks only its newline comes back when it is known to have been on the disk', async () => {
    const log = written([1, 1], [], otherBoot, true)
    const torn = log.bytes.subarray(0, -1)
    expect(readLog((await salvaged(torn, thisBoot)).bytes).seqs).toEqual([0, 1])
    expect(readLog((await salvaged(torn, thisBoot, { knownSeq: 2 })).bytes).seqs).toEqual([0, 1, 2])
  })
})

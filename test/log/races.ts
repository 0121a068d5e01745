/** Histories of a log: several writers that look, write, are killed in mid-write, lose races, seal; and what they were told. */
import fc from 'fast-check'
import { batchOf, headerBody, LogWriter, sealBody, thisBoot } from './log-text.js'
import { referenceLog } from './reference-chain.js'

export interface Step {
  readonly writer: number
  readonly records: number
  /** Whether it looks at the file first. One that does not writes on what it saw before: it has lost its lock and does not know. */
  readonly looks: boolean
  /** How much of its write arrives before it is killed; 1: all of it. */
  readonly arrives: number
  readonly seals: boolean
  readonly syncs: boolean
}

export interface Race {
  readonly file: Buffer
  /** Lines that were acknowledged, in the order of the acknowledgements. */
  readonly acknowledged: readonly string[]
  /** Ends of the file after each step. */
  readonly ends: readonly number[]
  /** How much of the file was on the disk for certain when it ended. */
  readonly syncedBytes: number
}

const step = (seals: boolean): fc.Arbitrary<Step> =>
  fc.record({
    writer: fc.nat(3),
    records: fc.integer({ min: 1, max: 3 }),
    looks: fc.boolean(),
    arrives: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })),
    seals: seals ? fc.integer({ min: 0, max: 14 }).map((dice) => dice === 0) : fc.constant(false),
    syncs: fc.boolean(),
  })

/** Contents that are easily mistaken for the ends or beginnings of lines. */
const contents = ['x', '","$":"0.0.-1.a.00000000.00000000"}', 'é\\n{"', '\ud83d\ude00#', '{"$$":{"header":']

function bodyOf(at: number, padding: number): string {
  return JSON.stringify({ n: at, text: contents[at % contents.length], ...(padding && { padding: 'p'.repeat((at * 7_919) % padding) }) })
}

/** Carries the steps out. `boot` and `start` let a second history go on where a first one ended; `padding` makes records larger. */
export function run(steps: readonly Step[], { boot = thisBoot, claims = true, start = Buffer.alloc(0) as Buffer, padding = 0 } = {}): Race {
  let file = start
  let count = 0
  let syncedBytes = start.length
  const writers: LogWriter[] = []
  const acknowledged: string[] = []
  const ends: number[] = []
  const fresh = () => new LogWriter(boot, claims)
  for (const { writer: at, records, looks, arrives, seals, syncs } of steps) {
    let writer = writers[at]
    if (!writer || looks) {
      writer ??= fresh()
      writer.look(file)
      writers[at] = writer
    }
    const bodies = seals ? [sealBody()] : Array.from({ length: records }, () => bodyOf(count++, padding))
    const batch = writer.batch(bodies, String(count++).padStart(8, '0'))
    if (!batch) continue
    const whole = arrives === 1
    file = Buffer.concat([file, whole ? batch : batch.subarray(0, Math.floor(batch.length * arrives))])
    ends.push(file.length)
    if (!whole) {
      delete writers[at]
      continue
    }
    const before = writer.acknowledged.length
    writer.landed(file, batch, syncs)
    if (syncs) syncedBytes = file.length
    acknowledged.push(...writer.acknowledged.slice(before))
  }
  return { file, acknowledged, ends, syncedBytes }
}

export interface Racing {
  readonly steps: readonly Step[]
  readonly claims: boolean
}

export function races({ seals = true, maxSteps = 16 } = {}): fc.Arbitrary<Racing> {
  return fc.record({ steps: fc.array(step(seals), { minLength: 1, maxLength: maxSteps }), claims: fc.boolean() })
}

/** A log that is there already: so that the first step of a race is not always the birth of the file. */
export function bornLog(boot = thisBoot): Buffer {
  return batchOf([headerBody()], { seq: 0, prev: 0, writer: `${boot}ffffffff` }).bytes
}

/** The lines that the chain rule accepts, by the reference. */
export function committedLines(file: Buffer): string[] {
  return referenceLog(file).records.map(({ line }) => line)
}

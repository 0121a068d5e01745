/** Logs as bytes, for tests: written by as many writers as wanted, each with its own, possibly stale, view of the file. */
import { Chain, type ChainDamage, type VoidKind } from '../../src/file/log/chain.js'
import { encodeLine, type Header, type LineMark, readBody, type Seal, systemBody } from '../../src/file/log/record.js'
import { referenceLog } from './reference-chain.js'

export const thisBoot = 'abcd'
export const otherBoot = '1234'

export const headerBody = (more: Partial<Header> = {}): string =>
  systemBody({ header: { log: 'transcript', version: 1, key: 'k', sessionId: 's', createdAt: 1, ...more } })
export const sealBody = (more: Partial<Seal> = {}): string => systemBody({ seal: { reason: 'rotated', next: 'n', at: 1, ...more } })

export interface Batch {
  readonly bytes: Buffer
  readonly crc: number
  readonly seq: number
}

/** Where a batch begins, and what its writer says about itself. */
export interface BatchPlace {
  readonly seq: number
  readonly prev: number
  readonly synced?: number
  readonly writer?: string
}

/** The bytes of one write. */
export function batchOf(bodies: readonly string[], place: BatchPlace): Batch {
  let { seq, prev } = place
  let text = ''
  for (const [at, body] of bodies.entries()) {
    const { line, crc } = encodeLine(body, {
      seq,
      left: bodies.length - 1 - at,
      synced: place.synced ?? -1,
      writer: place.writer ?? `${thisBoot}00000000`,
      prev,
    })
    text += line
    prev = crc
    seq++
  }
  return { bytes: Buffer.from(text), crc: prev, seq: seq - 1 }
}

/** A log as one undisturbed writer writes it: a header, then the batches. */
export class LogText {
  readonly lines: Buffer[] = []
  seq = -1
  crc = 0
  #writer: string
  #claims: boolean
  #count = 0

  /** @param claims  each batch says that all before it is on the disk, as an awaited writer with durability `power` does. */
  constructor({ boot = thisBoot, claims = true, header = headerBody(), seq = 0 } = {}) {
    this.#writer = boot
    this.#claims = claims
    this.seq = seq - 1
    this.add(header)
  }

  add(...bodies: string[]): this {
    const place = { ...this.next, writer: `${this.#writer}${String(this.#count++).padStart(8, '0')}` }
    const batch = batchOf(bodies, place)
    for (const line of batch.bytes.toString('latin1').split(/(?<=\n)/)) this.lines.push(Buffer.from(line, 'latin1'))
    this.seq = batch.seq
    this.crc = batch.crc
    return this
  }

  /** Where the next batch begins. */
  get next(): BatchPlace {
    return { seq: this.seq + 1, prev: this.crc, synced: this.#claims ? this.seq : -1 }
  }

  get bytes(): Buffer {
    return Buffer.concat(this.lines)
  }

  /** The offset at which a line begins. */
  startOf(line: number): number {
    return this.lines.slice(0, line).reduce((sum, { length }) => sum + length, 0)
  }
}

/** What the chain rule makes of bytes. */
export interface Verdict {
  readonly lines: string[]
  readonly seqs: number[]
  readonly bodies: string[]
  readonly damage: ChainDamage | undefined
  readonly voids: VoidKind[]
  readonly chain: Chain
}

/** Feeds everything at once, or cut at the given places as a reader would that comes by again and again. */
export function readLog(bytes: Buffer, { boot = thisBoot, cuts = [] as readonly number[] } = {}): Verdict {
  const chain = new Chain(boot)
  const lines: string[] = []
  const seqs: number[] = []
  const bodies: string[] = []
  const voids: VoidKind[] = []
  const sink = {
    record(mark: LineMark, piece: Buffer, start: number, end: number) {
      lines.push(piece.toString('latin1', start, end))
      seqs.push(mark.seq)
      bodies.push(readBody(piece, start, mark).json)
    },
    void: (kind: VoidKind) => void voids.push(kind),
  }
  for (const end of [...[...cuts].sort((a, b) => a - b), bytes.length]) chain.feed(bytes.subarray(chain.settled, end), sink)
  return { lines, seqs, bodies, damage: chain.damage, voids, chain }
}

/** One process that writes to the log, as far as its bytes are concerned. It sees the file when it looks, and writes on what it saw then. */
export class LogWriter {
  readonly acknowledged: string[] = []
  #boot: string
  #seen = { seq: -1, prev: 0, openTail: false, sealed: false, empty: true }
  #claims: boolean
  #synced = -1

  constructor(boot: string, claims: boolean) {
    this.#boot = boot
    this.#claims = claims
  }

  look(file: Buffer): void {
    const { records, openTail, sealed } = referenceLog(file)
    const last = records[records.length - 1]
    const claimed = records.reduce((most, { synced }) => Math.max(most, synced), -1)
    this.#seen = { seq: last?.seq ?? -1, prev: last ? Number.parseInt(last.crc, 16) : 0, openTail, sealed, empty: !last }
    this.#synced = Math.max(this.#synced, claimed)
  }

  /** What it would write now. Nothing once it has seen a seal. */
  batch(bodies: readonly string[], writer: string): Buffer | undefined {
    if (this.#seen.sealed) return undefined
    const all = this.#seen.empty ? [headerBody(), ...bodies] : bodies
    const { bytes } = batchOf(all, {
      seq: this.#seen.seq + 1,
      prev: this.#seen.prev,
      synced: this.#claims ? this.#synced : -1,
      writer: this.#boot + writer,
    })
    return this.#seen.openTail ? Buffer.concat([Buffer.from('#\n'), bytes]) : bytes
  }

  /** Looks whether the batch is in; if so it is acknowledged, and, `power` only, known to be on the disk. */
  landed(file: Buffer, batch: Buffer, synced: boolean): boolean {
    const lines = batch
      .toString('latin1')
      .split('\n')
      .filter((line) => line.length > 1)
    const log = referenceLog(file)
    const inLog = new Set(log.records.map(({ line }) => line))
    const landed = lines.every((line) => inLog.has(line))
    if (landed) this.acknowledged.push(...lines)
    this.look(file)
    if (synced) this.#synced = Math.max(this.#synced, log.records[log.records.length - 1]?.seq ?? -1)
    return landed
  }
}

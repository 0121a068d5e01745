/** The file that is to take a log's place, while it is made: follows the old log, from its beginning to wherever it ends by now, and writes
 *  down what stays. What the records that do not stay have to be remembered for is in the new header. */
import { type Disk, readFully, writeFully } from '../durable.js'
import { Chain, type ChainSink } from '../log/chain.js'
import { pieces } from '../log/pieces.js'
import { keeping, Rechain, replacingHeader } from '../log/rechain.js'
import { headerPrefix, startsWith } from '../log/record.js'
import { readOn } from '../log/tail.js'
import { Ids } from './ids.js'
import { TurnLog } from './turn-log.js'

export interface CopySource {
  readonly disk: Disk
  readonly fd: number
  readonly tag: string
  readonly sessionId: string
}

export interface CopyPlan {
  /** The first record that stays. */
  readonly from: number
  readonly writer: string
}

export class LogCopy {
  readonly chain: Chain
  /** Written so far. */
  bytes = 0
  #source: CopySource
  #into: number
  #plan: CopyPlan
  #ids: Ids
  #turns: TurnLog
  #header = { seq: 0, crc: 0 }
  #rechain: Rechain | undefined
  #sink: ChainSink

  constructor(source: CopySource, into: number, plan: CopyPlan) {
    this.#source = source
    this.#into = into
    this.#plan = plan
    this.chain = new Chain(source.tag)
    this.#ids = new Ids(source.sessionId)
    this.#turns = new TurnLog(source.sessionId)
    this.#sink = {
      record: (mark, bytes, start, end, line) => {
        const isHeader = mark.prev === 0 && startsWith(bytes, start, headerPrefix)
        if (isHeader) this.#header = { seq: mark.seq, crc: mark.crc }
        if (isHeader || mark.seq < plan.from) {
          this.#ids.note(mark, bytes, start)
          this.#turns.note(mark, bytes, start)
        } else keeping(this.#begun(), plan.from).record(mark, bytes, start, end, line)
      },
    }
  }

  /** Of the last record that was written. */
  get seq(): number {
    return this.#begun().seq
  }

  /** To `size`, with room for other work between. */
  async follow(size: number, signal?: AbortSignal, onProgress?: (bytes: number) => void): Promise<void> {
    const { disk, fd } = this.#source
    for await (const bytes of pieces(disk, fd, size, this.chain, this.#sink, signal)) {
      this.#write()
      onProgress?.(bytes)
    }
  }

  /** The same at once, for what is left under the lock. */
  followNow(size: number): void {
    readOn(this.#source.disk, this.#source.fd, size, this.chain, this.#sink)
    this.#write()
  }

  /** Adds a record of the store's own. */
  add(body: string): void {
    this.#begun().addBody(body)
    this.#write()
  }

  #begun(): Rechain {
    if (this.#rechain) return this.#rechain
    const { from, writer } = this.#plan
    const { header, foreign } = this.chain
    const { seq, crc } = this.#header
    // Somebody else's lines stay as a whole, or go as a whole: the header counts them from the first.
    const whole = from <= seq + 1
    const carried = { ids: this.#ids.forHeader(), turns: this.#turns.forHeader(), foreign: whole ? header?.foreign : undefined }
    if (whole && foreign.bytes > 0) this.#copyForeign(foreign.bytes)
    const write = (made: Buffer) => this.#put(made)
    this.#rechain = new Rechain({ header: replacingHeader(header!, crc, carried), seq: whole ? seq : from - 1, writer, write })
    return this.#rechain
  }

  #copyForeign(bytes: number): void {
    const { disk, fd } = this.#source
    const step = 1 << 20
    for (let at = 0; at < bytes; at += step) this.#put(readFully(disk, fd, at, Math.min(step, bytes - at)))
  }

  #write(): void {
    this.#rechain?.flush()
  }

  #put(bytes: Uint8Array): void {
    writeFully(this.#source.disk, this.#into, bytes)
    this.bytes += bytes.length
  }
}

export interface Survey {
  /** The first record that may stay: what is before it is behind a summary, and parts no turn and no input from the rest. */
  readonly from: number
  /** Bytes that can go, as far as it was looked: at least `enough`, or all. */
  readonly removable: number
}

/** What there is to be removed. Reads no further than it takes to know. */
export async function survey(source: CopySource, size: number, wanted: number, enough: number, signal?: AbortSignal): Promise<Survey> {
  const chain = new Chain(source.tag)
  const turns = new TurnLog(source.sessionId)
  let quiet = -1
  let quietBytes = 0
  let passed = 0
  let voids = 0
  const sink: ChainSink = {
    record(mark, bytes, start, end) {
      if (mark.seq >= wanted && quiet >= 0) return
      turns.note(mark, bytes, start)
      const isHeader = quiet < 0
      if (!isHeader) passed += end + 1 - start
      // Behind it everything can be told from the header and what follows: who is active, and what waits.
      if (isHeader || (!turns.active && turns.pending.size === 0)) {
        quiet = mark.seq
        quietBytes = passed
      }
    },
    void: (_kind, _byte, length) => {
      voids += length
    },
  }
  for await (const _ of pieces(source.disk, source.fd, size, chain, sink, signal))
    if (chain.seq >= wanted - 1 && quietBytes + voids >= enough) break
  return { from: quiet + 1, removable: quietBytes + voids }
}

/** The chain rule over bytes that come in pieces from anywhere: a repository, a decompressor. */
import { Chain, type ChainSink } from '../../file/log/chain.js'
import { hex8 } from '../../file/log/record.js'
import type { LogFacts } from './log-reading.js'

/** Feeds a chain with whatever pieces come. What is undecided is kept between them: at most one batch. */
export class ChainFeed {
  readonly chain: Chain
  #sink: ChainSink
  #undecided: Buffer = Buffer.alloc(0)
  #waiting: Uint8Array[] = []
  #waitingBytes = 0

  constructor(tag: string, sink: ChainSink) {
    this.chain = new Chain(tag)
    this.#sink = sink
  }

  push(piece: Uint8Array): void {
    this.#waiting.push(piece)
    this.#waitingBytes += piece.length
    // A long batch must not be looked at again for every piece of it: only when it has doubled.
    if (this.#waitingBytes >= this.#undecided.length && piece.includes(0x0a)) this.finish()
  }

  finish(): void {
    if (this.#waiting.length === 0) return
    const all = Buffer.concat([this.#undecided, ...this.#waiting])
    this.#waiting = []
    this.#waitingBytes = 0
    const before = this.chain.settled
    this.chain.feed(all, this.#sink)
    this.#undecided = Buffer.from(all.subarray(this.chain.settled - before))
  }
}

/** What there is to say of a log that comes in pieces. `bytes` is the end of its last record.
 *  @param watch  records whose crcs are wanted. */
export async function followLog(
  bytes: AsyncIterable<Uint8Array>,
  tag: string,
  watch: { has(seq: number): boolean } = new Set<number>(),
  sink: ChainSink = {},
): Promise<LogFacts> {
  const crcs = new Map<number, string>()
  let first: { crc: string; seq: number } | undefined
  const feed = new ChainFeed(tag, {
    ...sink,
    record(mark, bytes, start, end, line) {
      first ??= { crc: hex8(mark.crc), seq: mark.seq }
      if (watch.has(mark.seq)) crcs.set(mark.seq, hex8(mark.crc))
      sink.record?.(mark, bytes, start, end, line)
    },
  })
  for await (const piece of bytes) feed.push(piece)
  feed.finish()
  const { chain } = feed
  return {
    bytes: chain.end,
    seq: chain.seq,
    crc: hex8(chain.crc),
    records: chain.records,
    voidLines: chain.voidLines,
    pendingBytes: 0,
    header: first && chain.header && { ...chain.header, ...first },
    seal: chain.seal,
    foreignLines: chain.foreign.lines,
    damage: chain.damage,
    crcs,
  }
}

/** The chain rule over bytes that come in pieces from anywhere: a repository, a decompressor. */
import { Chain, type ChainSink } from '../../file/log/chain.js'
import { hex8 } from '../../file/log/record.js'
import type { LogFacts } from './log-reading.js'

/** Follows a log to its end. What is undecided is kept between pieces: at most one batch. */
export async function followChain(bytes: AsyncIterable<Uint8Array>, tag: string, sink: ChainSink = {}): Promise<Chain> {
  const chain = new Chain(tag)
  let undecided: Buffer = Buffer.alloc(0)
  let waiting: Uint8Array[] = []
  let waitingBytes = 0
  const feed = () => {
    const all = waiting.length === 0 ? undecided : Buffer.concat([undecided, ...waiting])
    waiting = []
    waitingBytes = 0
    const before = chain.settled
    chain.feed(all, sink)
    undecided = Buffer.from(all.subarray(chain.settled - before))
  }
  for await (const piece of bytes) {
    waiting.push(piece)
    waitingBytes += piece.length
    // A long batch must not be looked at again for every piece of it: only when it has doubled.
    if (waitingBytes >= undecided.length && piece.includes(0x0a)) feed()
  }
  if (waiting.length > 0) feed()
  return chain
}

/** What there is to say of a log that comes in pieces. `bytes` is the end of its last record.
 *  @param watch  records whose crcs are wanted. */
export async function followLog(
  bytes: AsyncIterable<Uint8Array>,
  tag: string,
  watch: readonly number[] = [],
  sink: ChainSink = {},
): Promise<LogFacts> {
  const crcs = new Map<number, string>()
  let first: { crc: string; seq: number } | undefined
  const chain = await followChain(bytes, tag, {
    ...sink,
    record(mark, bytes, start, end, line) {
      first ??= { crc: hex8(mark.crc), seq: mark.seq }
      if (watch.includes(mark.seq)) crcs.set(mark.seq, hex8(mark.crc))
      sink.record?.(mark, bytes, start, end, line)
    },
  })
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

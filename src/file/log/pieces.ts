/** Long reading, in pieces, with room for other work between them: no call may hold up the event loop for long. */
import { type Disk, readFully } from '../durable.js'
import type { Chain, ChainSink } from './chain.js'

const pieceBytes = 512 << 10

/** Feeds the chain from its settled offset to `size`, and yields after every piece. Throws the signal's reason when it aborts. */
export async function* pieces(
  disk: Disk,
  fd: number,
  size: number,
  chain: Chain,
  sink: ChainSink,
  signal?: AbortSignal,
): AsyncGenerator<number> {
  for (let span = pieceBytes; chain.settled < size; ) {
    signal?.throwIfAborted()
    const before = chain.settled
    const length = Math.min(span, size - before)
    chain.feed(readFully(disk, fd, before, length), sink)
    yield chain.settled
    if (before + length >= size) return
    if (chain.settled === before) span *= 2
    await new Promise((resolve) => setImmediate(resolve))
  }
}

export async function readInPieces(
  disk: Disk,
  fd: number,
  size: number,
  chain: Chain,
  sink: ChainSink,
  signal?: AbortSignal,
): Promise<void> {
  for await (const _ of pieces(disk, fd, size, chain, sink, signal));
}

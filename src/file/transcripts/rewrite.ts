/** What a log that has been sealed as suspect is written anew from. */
import { type Disk, readFully } from '../durable.js'
import { Chain } from '../log/chain.js'
import type { LogFile } from '../log/log-file.js'
import { readInPieces } from '../log/pieces.js'

/** Every committed line up to the seal, byte for byte; the seal itself and what is void stay behind. undefined when there is no seal. */
export async function committedLines(disk: Disk, log: LogFile, tag: string): Promise<Buffer[] | undefined> {
  const lines: Buffer[] = []
  const chain = new Chain(tag)
  await readInPieces(disk, log.fd, log.size, chain, {
    record(_mark, bytes, start, end) {
      if (!chain.seal) lines.push(Buffer.from(bytes.subarray(start, end + 1)))
    },
  })
  if (!chain.seal) return undefined
  const foreign = chain.foreign.bytes
  return foreign > 0 ? [readFully(disk, log.fd, 0, foreign), ...lines] : lines
}

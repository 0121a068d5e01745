/** Whether a request waits in a transcript that nobody has answered, for one who only looks. */
import { Chain, type ChainSink } from '../log/chain.js'
import { logCorrupt } from '../log/log-file.js'
import { pieces } from '../log/pieces.js'
import { openTail } from '../log/tail.js'
import { openSource, type Source } from './reading.js'
import { TurnLog } from './turn-log.js'

/** How far back to look for the last turn, in records, before the whole log is read in pieces. */
const searchRecords = [32, 2_048]

/** undefined when that takes reading the whole log, and it is not to be done.
 *  @throws LOG_CORRUPT */
export async function hasPendingInput(source: Source, whole: boolean): Promise<boolean | undefined> {
  const fd = openSource(source)
  if (fd === undefined) return false
  try {
    const { size } = source.disk.fstat(fd)
    for (const records of searchRecords) {
      const turns = new TurnLog('')
      const chain = openTail(source.disk, fd, size, source.tag, { records }, noting(turns))
      if (chain.damage) throw logCorrupt(source.label, chain.damage)
      if (turns.known) return turns.pending.size > 0
    }
    if (!whole) return undefined
    const turns = new TurnLog('')
    const chain = new Chain(source.tag)
    for await (const _ of pieces(source.disk, fd, size, chain, noting(turns))) if (chain.damage) break
    if (chain.damage) throw logCorrupt(source.label, chain.damage)
    return turns.pending.size > 0
  } finally {
    source.disk.close(fd)
  }
}

function noting(turns: TurnLog): ChainSink {
  return { record: (mark, bytes, start) => turns.note(mark, bytes, start) }
}

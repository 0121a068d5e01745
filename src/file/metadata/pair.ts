/** Reading snapshot and journal as a pair that belongs together: the journal names the snapshot's hash, as what it builds on or, once it
 *  is sealed, as what it has been folded into. */
import { StoreError } from '../../errors.js'
import { type Disk, type FileStat, readFully } from '../durable.js'
import type { Cells } from './cells.js'
import type { MetadataPlaces } from './checkpoint.js'
import { type Journal, missing, symlinkRefused } from './journal.js'
import { hashOf, parseSnapshot } from './snapshot.js'

export interface Pair {
  /** The snapshot's entries; the journal's operations wait in the journal. */
  readonly cells: Cells
  readonly journal: Journal
  readonly snapshot: FileStat
}

/** The pair, or why what was read is none. Somebody may be between the two renames of a checkpoint: then it is worth another look.
 *  @throws STORE_CORRUPT, LOG_CORRUPT for what no other look will change. */
export async function loadPair(disk: Disk, places: MetadataPlaces, openJournal: () => Journal): Promise<Pair | string> {
  const named = disk.stat(places.snapshot)
  if (!named) throw missing('sessions.json')
  if (named.kind === 'symlink') throw symlinkRefused('sessions.json')
  const fd = disk.open(places.snapshot, 'read')
  let journal: Journal | undefined
  try {
    const stat = disk.fstat(fd)
    const bytes = readFully(disk, fd, 0, stat.size)
    journal = openJournal()
    const snapshot = disk.stat(places.snapshot)
    if (!snapshot || snapshot.ino !== stat.ino || snapshot.size !== stat.size || snapshot.dev !== stat.dev)
      return 'they change while they are read'
    const wrong = whyNoPair(hashOf(bytes), journal)
    if (wrong) return wrong
    const pair = { cells: await parseSnapshot(bytes), journal, snapshot }
    journal = undefined
    return pair
  } finally {
    disk.close(fd)
    journal?.log.retire()
  }
}

/** Why a snapshot with that hash and this journal do not belong together; undefined when they do.
 *  @throws LOG_CORRUPT  the journal is damaged. */
export function whyNoPair(hash: string, journal: Journal): string | undefined {
  const { chain } = journal.log
  journal.log.assertSound()
  if (chain.seq < 0) return 'the journal has no header'
  if (chain.seal?.reason === 'checkpoint' && chain.seal.next === hash) {
    journal.skip()
    return undefined
  }
  if (journal.base === hash) return undefined
  return `sessions.json has the hash ${hash.slice(0, 12)}…, the journal builds on ${journal.base?.slice(0, 12)}…`
}

export function noPair(why: string): StoreError {
  return new StoreError('STORE_CORRUPT', `sessions.json and sessions.journal.jsonl do not belong together: ${why}.`, {
    details: { file: 'sessions.json', why },
    hint: 'Nothing was written. Was sessions.json edited or restored by hand? Put the old file back, or let `holdfast repair` show what adopting the new one would change (docs/errors.md#store_corrupt).',
  })
}

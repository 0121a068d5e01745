/** What a log is made from when it is not appended to: the one that follows a rotation, and the one that replaces a suspect one. */
import { errnoOf } from '../../errors.js'
import { type Disk, readFully } from '../durable.js'
import type { Host } from '../host.js'
import type { Held } from '../lock/baton.js'
import { Chain } from '../log/chain.js'
import { type LogFile, type LogPlace, logCorrupt } from '../log/log-file.js'
import { readInPieces } from '../log/pieces.js'
import { encodeLine, type Header, type Seal, systemBody } from '../log/record.js'
import { openTail } from '../log/tail.js'
import type { SharedSync } from '../shared-sync.js'
import { replaceFile } from '../stage.js'
import type { TurnLog } from './turn-log.js'

/** Every committed line up to the seal, byte for byte; the seal itself and what is void stay behind. undefined when there is no seal.
 *  @throws LOG_CORRUPT  damage lies before the seal: what stands behind it is not thrown away for it */
async function committedLines(disk: Disk, log: LogFile, tag: string): Promise<Buffer[] | undefined> {
  const lines: Buffer[] = []
  const chain = new Chain(tag)
  await readInPieces(disk, log.fd, log.size, chain, {
    record(_mark, bytes, start, end) {
      if (!chain.seal) lines.push(Buffer.from(bytes.subarray(start, end + 1)))
    },
  })
  if (chain.damage) throw logCorrupt(log.label, chain.damage)
  if (!chain.seal) return undefined
  const foreign = chain.foreign.bytes
  return foreign > 0 ? [readFully(disk, log.fd, 0, foreign), ...lines] : lines
}

/** The whole of the log of a session that goes on from another: a header with the ids that the old one remembers, and the inputs that no
 *  turn has taken. A function of the sealed log, so that two who make it make the same. */
export function nextLog(
  old: { readonly sessionId: string; readonly place: LogPlace; readonly log: LogFile | undefined },
  seal: Seal,
  { ids, turns }: { ids: NonNullable<Header['ids']>; turns: TurnLog },
  writer: string,
): Buffer {
  const carried = turns.forHeader()
  const header: Header = {
    log: 'transcript',
    version: 1,
    key: seal.key!,
    sessionId: seal.next!,
    previous: old.sessionId,
    ...(ids.length > 0 && { ids }),
    ...((carried.last > 0 || carried.requests) && { turns: carried }),
    createdAt: seal.at,
  }
  const bodies = [systemBody({ header }), ...pendingBodies(old, turns)]
  let prev = 0
  const lines = bodies.map((body, seq) => {
    const { line, crc } = encodeLine(body, { seq, left: bodies.length - 1 - seq, synced: -1, writer, prev })
    prev = crc
    return line
  })
  return Buffer.from(lines.join(''))
}

/** The records of the inputs that are pending, as they stand in the log. */
function pendingBodies({ place, log }: { readonly place: LogPlace; readonly log: LogFile | undefined }, turns: TurnLog): string[] {
  const wanted = new Set<number>()
  for (const [, seq, count] of turns.pending.values()) for (let at = 0; at < count; at++) wanted.add(seq + at)
  if (wanted.size === 0 || !log) return []
  const bodies: string[] = []
  openTail(
    place.disk,
    log.fd,
    log.size,
    place.tag,
    { records: 0, after: Math.min(...wanted) - 1 },
    {
      record(mark, bytes, start) {
        if (wanted.has(mark.seq)) bodies.push(`${bytes.toString('utf8', start, start + mark.bodyBytes)}}`)
      },
    },
  )
  return bodies
}

/** Puts a log in place. False when the lock is lost: the stage is gone, and nothing happens. */
export async function putLog(host: Host, held: Held, path: string, slices: readonly Buffer[], names: SharedSync): Promise<boolean> {
  try {
    await replaceFile(host, held, path, slices)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
  await names.run()
  return true
}

/** Writes a suspect log anew. */
export async function rewriteLog(host: Host, held: Held, path: string, log: LogFile, tag: string, names: SharedSync): Promise<boolean> {
  const slices = await committedLines(host.disk, log, tag)
  return slices !== undefined && putLog(host, held, path, slices, names)
}

/** Source and target are this session's alone, and ids are never used twice: a second or a late rename finds nothing to do. True when there
 *  was something; then the directory that it has left has to be synced, too. */
export async function archiveLog(disk: Disk, path: string, archive: string, name: string): Promise<boolean> {
  try {
    disk.rename(path, `${archive}/${name}`)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    return false
  }
  await disk.syncDirectory(archive)
  return true
}

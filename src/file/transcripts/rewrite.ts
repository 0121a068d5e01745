/** What a log is made from when it is not appended to: the one that follows a rotation, and the one that replaces a suspect one. */
import { errnoOf } from '../../errors.js'
import { type Disk, readFully } from '../durable.js'
import type { Host } from '../host.js'
import type { Held } from '../lock/baton.js'
import { Chain } from '../log/chain.js'
import type { LogFile } from '../log/log-file.js'
import { readInPieces } from '../log/pieces.js'
import { encodeLine, type Header, type Seal, systemBody } from '../log/record.js'
import type { SharedSync } from '../shared-sync.js'
import { replaceFile } from '../stage.js'

/** Every committed line up to the seal, byte for byte; the seal itself and what is void stay behind. undefined when there is no seal. */
async function committedLines(disk: Disk, log: LogFile, tag: string): Promise<Buffer[] | undefined> {
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

/** The whole of the log of a session that goes on from another: a header with the ids that the old one remembers. */
export function nextLog(old: { readonly sessionId: string }, seal: Seal, ids: NonNullable<Header['ids']>, writer: string): Buffer {
  const header: Header = {
    log: 'transcript',
    version: 1,
    key: seal.key!,
    sessionId: seal.next!,
    previous: old.sessionId,
    ...(ids.length > 0 && { ids }),
    createdAt: seal.at,
  }
  return Buffer.from(encodeLine(systemBody({ header }), { seq: 0, left: 0, synced: -1, writer, prev: 0 }).line)
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

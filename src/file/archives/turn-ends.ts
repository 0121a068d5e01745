/** The end of a turn that is not in its session's transcript any more: what an old request was answered with. */
import { errnoOf } from '../../errors.js'
import type { Disk } from '../durable.js'
import { Chain } from '../log/chain.js'
import { startsWith, type TurnEvent, turnPrefix } from '../log/record.js'
import { readEvent } from '../transcripts/turn-log.js'
import { archiveBytes, feedAll } from './archive-bytes.js'
import { type ArchiveName, parseArchiveFile } from './archive-name.js'

type EndEvent = TurnEvent & { event: 'end' }

/** Archives of a session, those first that may hold the record: a compaction's, by where they end, then the one that closed it. */
export function archivesOf(disk: Disk, directory: string, sessionId: string): (ArchiveName & { readonly file: string })[] {
  const mine = disk.readdir(directory).flatMap((file) => {
    const name = parseArchiveFile(file)
    return name?.sessionId === sessionId ? [{ ...name, file }] : []
  })
  const end = ({ lastSeq }: ArchiveName) => lastSeq ?? Number.POSITIVE_INFINITY
  return mine.sort((a, b) => end(a) - end(b) || Number(a.compressed) - Number(b.compressed))
}

export async function archivedEnd(
  disk: Disk,
  directory: string,
  tag: string,
  sessionId: string,
  seq: number,
): Promise<EndEvent | undefined> {
  for (const { file, lastSeq, compressed } of archivesOf(disk, directory, sessionId)) {
    if (lastSeq !== undefined && lastSeq < seq) continue
    const end = await endIn(disk, `${directory}/${file}`, `archive/${file}`, compressed, tag, seq)
    if (end) return end
  }
  return undefined
}

/** undefined too when the file is gone: compressed meanwhile, or removed. */
async function endIn(
  disk: Disk,
  path: string,
  label: string,
  compressed: boolean,
  tag: string,
  seq: number,
): Promise<EndEvent | undefined> {
  let found: TurnEvent | undefined
  const sink = {
    record(mark: Parameters<typeof readEvent>[2], bytes: Buffer, start: number) {
      if (mark.seq === seq && startsWith(bytes, start, turnPrefix)) found = readEvent(bytes, start, mark)
    },
  }
  try {
    const bytes = archiveBytes({ disk, path, label, compressed })
    for await (const _ of feedAll(bytes, new Chain(tag), sink)) if (found) break
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
  return found?.event === 'end' ? found : undefined
}

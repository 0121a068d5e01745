/** What can be told of an archived transcript without reading it through: its header, its end, and, of a compressed one, the note beside it. */
import { z } from 'zod'
import type { ArchiveInfo } from '../../archives.js'
import { errnoOf } from '../../errors.js'
import { type Disk, readFully } from '../durable.js'
import { Chain } from '../log/chain.js'
import type { Header, Seal } from '../log/record.js'
import { openTail } from '../log/tail.js'
import { type ArchiveFile, archiveBytes, feedAll } from './archive-bytes.js'
import { type ArchiveName, noteFile } from './archive-name.js'

/** Beside a compressed archive: what reading all of it would tell. */
const noteSchema = z.object({
  version: z.literal(1),
  key: z.string(),
  sessionId: z.string(),
  previous: z.string().optional(),
  next: z.string().optional(),
  reason: z.enum(['rotated', 'deleted', 'compacted', 'unknown']),
  why: z.string().optional(),
  entry: z.custom<Readonly<Record<string, unknown>>>((value) => typeof value === 'object' && value !== null).optional(),
  at: z.number(),
  firstSeq: z.number(),
  lastSeq: z.number(),
  records: z.number(),
  bytes: z.number(),
  sha256: z.string(),
})

export type ArchiveNote = z.infer<typeof noteSchema>
export type Facts = Omit<ArchiveNote, 'version' | 'sha256'>

/** How much is read at once to find the header. */
const frontBytes = 64 << 10

/** By header and end of a log. undefined when it has no header that can be read. */
export function factsOfLog(disk: Disk, fd: number, tag: string): Facts | undefined {
  const { size } = disk.fstat(fd)
  const front = new Chain(tag)
  let headerSeq = -1
  for (let span = frontBytes; front.seq < 0 && front.settled < size && !front.damage; span *= 2) {
    const bytes = readFully(disk, fd, front.settled, Math.min(span, size - front.settled))
    front.feed(bytes, {
      record(mark) {
        if (headerSeq < 0) headerSeq = mark.seq
      },
    })
    if (front.seq < 0 && span > size) break
  }
  return factsOfChain(front.header, openTail(disk, fd, size, tag, { records: 1 }), headerSeq, size)
}

/** The same of a compressed one whose note is gone: reads all of it. */
export async function factsOfPacked(file: ArchiveFile, tag: string): Promise<Facts | undefined> {
  const chain = new Chain(tag)
  let headerSeq = -1
  let bytes = 0
  const sink = {
    record(mark: { readonly seq: number }) {
      if (headerSeq < 0) headerSeq = mark.seq
    },
  }
  for await (const fed of feedAll(archiveBytes(file), chain, sink)) bytes = fed
  return factsOfChain(chain.header, chain, headerSeq, bytes)
}

function factsOfChain(header: Header | undefined, end: Chain, headerSeq: number, bytes: number): Facts | undefined {
  if (!header?.key || !header.sessionId) return undefined
  const seal = end.seal && end.seal.reason !== 'checkpoint' && end.seal.reason !== 'suspect' ? end.seal : undefined
  const foreign = header.foreign?.lines ?? 0
  return {
    key: header.key,
    sessionId: header.sessionId,
    ...(header.previous !== undefined && { previous: header.previous }),
    ...sealFacts(seal, header.createdAt),
    firstSeq: foreign > 0 ? 1 : headerSeq + 1,
    lastSeq: end.seq,
    records: end.seq - headerSeq + foreign - (seal ? 1 : 0),
    bytes,
  }
}

function sealFacts(seal: Seal | undefined, createdAt: number): Pick<Facts, 'next' | 'reason' | 'why' | 'entry' | 'at'> {
  if (!seal) return { reason: 'unknown', at: createdAt }
  const { reason, next, why, entry, at } = seal
  return {
    reason: reason as Facts['reason'],
    at,
    ...(reason === 'rotated' && next !== undefined && { next }),
    ...(why !== undefined && { why }),
    ...(entry && { entry }),
  }
}

/** undefined where there is none, or none that can be read. */
export function readNote(disk: Disk, directory: string, archive: string): ArchiveNote | undefined {
  try {
    const fd = disk.open(`${directory}/${noteFile(archive)}`, 'read')
    try {
      return noteSchema.parse(JSON.parse(readFully(disk, fd, 0, disk.fstat(fd).size).toString('utf8')))
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError || error instanceof z.ZodError) return undefined
    throw error
  }
}

export function infoOf(
  name: Pick<ArchiveName, 'archive' | 'sessionId' | 'compressed'>,
  file: string,
  facts: Facts | undefined,
  unfinished: boolean,
): ArchiveInfo {
  const { archive, sessionId, compressed } = name
  return {
    archive,
    file,
    key: facts?.key,
    sessionId,
    previous: facts?.previous,
    next: facts?.next,
    reason: facts?.reason ?? 'unknown',
    why: facts?.why,
    entry: facts?.entry,
    at: facts?.at,
    firstSeq: facts?.firstSeq,
    lastSeq: facts?.lastSeq,
    records: facts?.records,
    bytes: facts?.bytes,
    compressed,
    unfinished,
  }
}

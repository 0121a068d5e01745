/** What is to be done about a damaged log: read it once, and say which of its bytes make the new one. */
import { crc32 } from 'node:zlib'
import { type Disk, readFully } from '../../file/durable.js'
import type { Header } from '../../file/log/record.js'
import { breathe } from '../../file/stage.js'
import type { Range } from '../../findings.js'
import type { LogRewrite, Losses, RepairAction } from '../../repair-plan.js'
import { type About, type Assembled, assemble, replacesOf } from './assembly.js'
import { Salvage } from './salvage.js'

const pieceBytes = 512 << 10

export interface LogAbout extends About {
  readonly key: string | undefined
  /** Of the entry; for a header that has to be made anew. */
  readonly createdAt: number
}

export type Draft = Omit<RepairAction, 'id'>

/** Reads the whole of it, in pieces. */
export async function salvageOf(disk: Disk, fd: number, size: number, signal?: AbortSignal): Promise<Salvage> {
  const salvage = new Salvage()
  for (let span = pieceBytes; salvage.size < size; ) {
    signal?.throwIfAborted()
    const length = Math.min(span, size - salvage.size)
    const isLast = salvage.size + length >= size
    const taken = salvage.feed(readFully(disk, fd, salvage.size, length), isLast)
    // A line that is longer than the piece.
    span = taken === 0 ? span * 2 : pieceBytes
    await breathe()
  }
  if (size === 0) salvage.feed(Buffer.alloc(0), true)
  return salvage
}

/** @param file  relative to the store */
export async function planLog(disk: Disk, path: string, file: string, about: LogAbout, signal?: AbortSignal): Promise<Draft> {
  const fd = disk.open(path, 'read')
  try {
    const { size } = disk.fstat(fd)
    const salvage = await salvageOf(disk, fd, size, signal)
    const prefixCrc = (bytes: number) => crc32(readFully(disk, fd, 0, bytes))
    return draft(file, salvage, assemble(salvage, about, prefixCrc), about)
  } finally {
    disk.close(fd)
  }
}

function draft(file: string, salvage: Salvage, found: Assembled, about: LogAbout): Draft {
  const header = headerFor(found, about)
  const key = header.key ?? about.key
  const removed = removedFrom(salvage.size, found)
  const work: LogRewrite = {
    kind: 'rewrite-log',
    header: header as unknown as Record<string, unknown>,
    headerSeq: found.headerSeq,
    prefix: found.prefix,
    foreign: found.foreign,
    keep: found.keep,
    upTo: found.upTo,
    last: found.last,
  }
  return {
    kind: 'rewrite-log',
    file,
    key,
    sessionId: about.sessionId,
    does: `Writes ${file} anew with the ${found.records} records that are whole${found.lost.length > 0 ? ', and a mark in the place of each that is lost' : ''}.`,
    recovers: { records: found.records, keys: 0, notes: [] },
    loses: lossesOf(found, about),
    quarantines: removed.length > 0 ? [{ file, ranges: removed, bytes: removed.reduce((sum, { from, to }) => sum + to - from, 0) }] : [],
    requires: [{ file, bytes: salvage.size, crc: salvage.crc, mayGrow: true }],
    work,
  }
}

function headerFor({ header: found, headerCrc, prefix }: Assembled, { key, sessionId, createdAt, knownHeader }: LogAbout): Header {
  const replaces = replacesOf(found?.header, headerCrc, knownHeader)
  if (!found) return { log: 'transcript', version: 1, ...(key !== undefined && { key }), sessionId, replaces, createdAt }
  const { foreign, replaces: _replaces, createdAt: since, ...same } = found.header
  return { ...same, ...(foreign && prefix > 0 && { foreign }), replaces, createdAt: since }
}

function lossesOf({ header, lost, records }: Assembled, { key }: LogAbout): Losses {
  const notes: string[] = []
  if (!header) {
    notes.push(
      'The header is lost, and with it what it carried from earlier sessions of the key: idempotency ids, answered requests, the session before.',
    )
    if (key === undefined) notes.push('Whose transcript it is, nothing says any more.')
    if (records === 0 && lost.length === 0) notes.push('No record is left, and nothing says how many there were.')
  }
  return { seqs: lost, keys: [], notes }
}

/** Every byte that is neither kept nor the old header. */
function removedFrom(size: number, { header, prefix, keep, foreign }: Assembled): Range[] {
  const kept: [number, number][] = [[0, prefix], ...keep.map(([from, to]): [number, number] => [from, to])]
  for (const [from, to] of foreign) kept.push([from, to])
  if (header) kept.push(header.at)
  kept.sort((a, b) => a[0] - b[0])
  const removed: Range[] = []
  let at = 0
  for (const [from, to] of kept) {
    if (from > at) removed.push({ from: at, to: from })
    at = Math.max(at, to)
  }
  if (size > at) removed.push({ from: at, to: size })
  return removed
}

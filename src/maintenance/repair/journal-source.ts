/** What is left of a journal: every change that is whole, in the order of the numbers, also behind a gap. */
import type { Inside } from '../../file/backend.js'
import { type Disk, readFully } from '../../file/durable.js'
import { Chain } from '../../file/log/chain.js'
import { readInPieces } from '../../file/log/pieces.js'
import { claimedMark, type LineMark, readBody, type Seal } from '../../file/log/record.js'
import type { Range } from '../../findings.js'
import { assemble } from './assembly.js'
import { salvageOf } from './log-plan.js'
import { type StoredEntry, storedEntry } from './snapshot-source.js'

/** entry undefined: deleted. */
export interface SourceOp {
  readonly key: string
  readonly entry: StoredEntry | undefined
  /** Of a deletion: the session that the key named. */
  readonly sessionId: string
}

export interface JournalSource {
  /** The chain rule finds nothing wrong with it. */
  readonly sound: boolean
  readonly base: string | undefined
  readonly seal: Seal | undefined
  readonly ops: readonly SourceOp[]
  /** Numbers of changes that are gone. */
  readonly lost: readonly Range[]
  readonly lastSeq: number
  readonly last: { readonly seq: number; readonly crc: number }
}

export async function journalSource(disk: Disk, fd: number, size: number, tag: string, signal?: AbortSignal): Promise<JournalSource> {
  const chain = new Chain(tag)
  const ops: SourceOp[] = []
  await readInPieces(disk, fd, size, chain, { record: (mark, bytes, start) => note(ops, bytes, start, mark) }, signal)
  const { seq, crc, header, seal, damage } = chain
  if (!damage && seq >= 0) return { sound: true, base: header?.base, seal, ops, lost: [], lastSeq: seq, last: { seq, crc } }
  return salvaged(disk, fd, size, signal)
}

async function salvaged(disk: Disk, fd: number, size: number, signal?: AbortSignal): Promise<JournalSource> {
  const salvage = await salvageOf(disk, fd, size, signal)
  const about = { sessionId: '', knownSeq: -1, knownHeader: undefined, hasEarlier: true }
  const found = assemble(salvage, about, () => 0)
  const ops: SourceOp[] = []
  for (const [from, to] of found.keep) {
    const bytes = readFully(disk, fd, from, to - from)
    for (let start = 0; start < bytes.length; ) {
      const newline = bytes.indexOf(0x0a, start)
      const end = newline < 0 ? bytes.length : newline
      const mark = claimedMark(bytes, start, end)
      if (mark) note(ops, bytes, start, mark)
      start = end + 1
    }
  }
  const { header, lost, upTo, last } = found
  return { sound: false, base: header?.header.base, seal: undefined, ops, lost, lastSeq: upTo, last }
}

/** Sessions that a key named and names no more, as far as the journals tell. */
export async function droppedIn({ host: { disk }, places, tag }: Inside, signal?: AbortSignal): Promise<Set<string>> {
  const ops: SourceOp[] = []
  // The present one first: a checkpoint in between makes it the one before.
  for (const path of [places.journal, places.previousJournal]) {
    if (disk.stat(path)?.kind !== 'file') continue
    const fd = disk.open(path, 'read')
    try {
      ops.unshift(...(await journalSource(disk, fd, disk.fstat(fd).size, tag, signal)).ops)
    } finally {
      disk.close(fd)
    }
  }
  return droppedBy(ops)
}

export function droppedBy(ops: readonly SourceOp[]): Set<string> {
  const dropped = new Set<string>()
  const named = new Map<string, string>()
  for (const { key, entry, sessionId } of ops) {
    const before = named.get(key)
    if (before !== undefined && before !== sessionId) dropped.add(before)
    if (!entry) dropped.add(sessionId)
    else {
      named.set(key, sessionId)
      // Brought back.
      dropped.delete(sessionId)
    }
  }
  return dropped
}

function note(ops: SourceOp[], bytes: Buffer, start: number, mark: LineMark): void {
  const { json, system } = readBody(bytes, start, mark)
  if (system) return
  const { op, key, entry, sessionId } = JSON.parse(json) as { op: string; key: string; entry?: unknown; sessionId?: string }
  if (op === 'del') ops.push({ key, entry: undefined, sessionId: sessionId ?? '' })
  else if (op === 'put') {
    const stored = storedEntry(entry)
    if (stored) ops.push({ key, entry: stored, sessionId: stored.sessionId })
  }
}

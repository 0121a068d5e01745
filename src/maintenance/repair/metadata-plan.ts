/** What is to be done about damaged metadata. Reads all that is left of them: four files, and the first lines of the transcripts. */
import { crc32 } from 'node:zlib'
import { errnoOf } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { readFully } from '../../file/durable.js'
import { Chain } from '../../file/log/chain.js'
import { readInPieces } from '../../file/log/pieces.js'
import { openTail } from '../../file/log/tail.js'
import type { Cells } from '../../file/metadata/cells.js'
import { renderSnapshot } from '../../file/metadata/snapshot.js'
import type { MetadataRebuild, Removal, Requirement } from '../../repair-plan.js'
import { type JournalSource, journalSource } from './journal-source.js'
import type { Draft } from './log-plan.js'
import { folded, type HeaderFacts, type MetadataSources, merge } from './metadata-merge.js'
import { type SnapshotSource, type StoredEntry, snapshotSource } from './snapshot-source.js'

const firstBytes = 64 << 10

/** The new sessions.json, and how it comes about. */
export interface MetadataDraft {
  readonly draft: Draft
  readonly entries: ReadonlyMap<string, StoredEntry>
  readonly slices: readonly Buffer[]
  /** The end of the old journal. */
  readonly last: JournalSource['last'] | undefined
}

interface Read<T> {
  readonly source: T
  readonly bytes: number
  readonly crc: number
}

/** undefined when snapshot and journal are a pair, and nothing is wrong with either. */
export async function planMetadata(inside: Inside, signal?: AbortSignal): Promise<MetadataDraft | undefined> {
  const { places } = inside
  const snapshot = await readWhole(inside, places.snapshot)
  const journal = await readJournal(inside, places.journal, signal)
  if (isSymlink(inside, places.snapshot) || isSymlink(inside, places.journal)) return undefined
  const base = journal?.source.sound ? journal.source.base : undefined
  if (snapshot && journal?.source.sound && isPair(snapshot.source, journal.source)) return undefined
  const previousSnapshot = await readWhole(inside, places.previousSnapshot)
  const previousJournal = await readJournal(inside, places.previousJournal, signal)
  const requires = [
    required('sessions.json', snapshot),
    required('sessions.journal.jsonl', journal),
    required('sessions.prev.json', previousSnapshot),
    required('sessions.prev.journal.jsonl', previousJournal),
  ]
  const exact = base === undefined ? undefined : await exactly(base, previousSnapshot?.source, previousJournal?.source)
  if (exact && !snapshot?.source.whole) return exactDraft(exact, base!, requires, snapshot)
  const sources: MetadataSources = {
    snapshot: snapshot?.source,
    journal: journal?.source,
    previousSnapshot: previousSnapshot?.source,
    previousJournal: previousJournal?.source,
    headers: await headersIn(inside, signal),
    archived: archivedIn(inside),
  }
  return draftAnew(sources, exact, requires)
}

function isPair({ hash }: SnapshotSource, { base, seal }: JournalSource): boolean {
  return base === hash || (seal?.reason === 'checkpoint' && seal.next === hash)
}

/** The snapshot with that hash, from the generation before. */
async function exactly(
  base: string,
  snapshot: SnapshotSource | undefined,
  journal: JournalSource | undefined,
): Promise<Map<string, StoredEntry> | undefined> {
  if (!snapshot) return undefined
  for (const entries of [folded(snapshot, journal?.ops ?? []), snapshot.entries])
    if ((await renderSnapshot(cellsOf(entries))).hash === base) return entries
  return undefined
}

export function cellsOf(entries: ReadonlyMap<string, StoredEntry>): Cells {
  return new Map(
    [...entries].map(([key, { json }]) => {
      const bytes = Buffer.from(json)
      return [key, { bytes, start: 0, end: bytes.length, entry: undefined }]
    }),
  )
}

async function exactDraft(
  entries: Map<string, StoredEntry>,
  hash: string,
  requires: readonly Requirement[],
  snapshot: Read<SnapshotSource> | undefined,
): Promise<MetadataDraft> {
  const { slices } = await renderSnapshot(cellsOf(entries))
  const work: MetadataRebuild = { kind: 'rebuild-metadata', how: 'exact', hash, seq: 0 }
  const draft: Draft = {
    kind: 'rebuild-metadata',
    file: 'sessions.json',
    key: undefined,
    sessionId: undefined,
    does: 'Writes sessions.json anew from the generation before: the very bytes whose hash the journal names.',
    recovers: { records: 0, keys: entries.size, notes: ['Nothing is lost: the hash proves it.'] },
    loses: { seqs: [], keys: [], notes: [] },
    quarantines: removals([requires[0]!]),
    // The journal goes on as it is, and others may be writing to it.
    requires: requires.map((it, at) => (at === 1 ? { ...it, mayGrow: true } : it)),
    work,
  }
  if (!snapshot) return { draft: { ...draft, quarantines: [] }, entries, slices, last: undefined }
  return { draft, entries, slices, last: undefined }
}

async function draftAnew(
  sources: MetadataSources,
  exact: Map<string, StoredEntry> | undefined,
  requires: readonly Requirement[],
): Promise<MetadataDraft> {
  const { entries, keysLost, recovered, lost } = merge(sources, exact)
  const { slices, hash } = await renderSnapshot(cellsOf(entries))
  const work: MetadataRebuild = {
    kind: 'rebuild-metadata',
    how: 'anew',
    hash,
    seq: Math.max(sources.journal?.lastSeq ?? -1, sources.previousJournal?.lastSeq ?? -1) + 4,
  }
  return {
    entries,
    slices,
    last: sources.journal?.last,
    draft: {
      kind: 'rebuild-metadata',
      file: sources.snapshot?.whole || !sources.journal?.sound ? 'sessions.journal.jsonl' : 'sessions.json',
      key: undefined,
      sessionId: undefined,
      does: `Writes sessions.json and sessions.journal.jsonl anew with ${entries.size} ${entries.size === 1 ? 'entry' : 'entries'}.`,
      recovers: { records: 0, keys: entries.size, notes: recovered },
      loses: { seqs: sources.journal?.lost ?? [], keys: keysLost, notes: lost },
      quarantines: removals(requires),
      requires,
      work,
    },
  }
}

function removals(requires: readonly Requirement[]): Removal[] {
  return requires.flatMap(({ file, bytes }) =>
    bytes === undefined || bytes === 0 ? [] : [{ file, ranges: [{ from: 0, to: bytes }], bytes }],
  )
}

function required(file: string, read: Read<unknown> | undefined): Requirement {
  return { file, bytes: read?.bytes, crc: read?.crc, mayGrow: false }
}

function isSymlink({ host }: Inside, path: string): boolean {
  const kind = host.disk.stat(path)?.kind
  return kind !== undefined && kind !== 'file'
}

async function readOf<T>(
  { host: { disk } }: Inside,
  path: string,
  use: (fd: number, size: number) => Promise<T> | T,
): Promise<T | undefined> {
  let fd: number
  try {
    fd = disk.open(path, 'read')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
  try {
    return await use(fd, disk.fstat(fd).size)
  } finally {
    disk.close(fd)
  }
}

function readWhole(inside: Inside, path: string): Promise<Read<SnapshotSource> | undefined> {
  return readOf(inside, path, (fd, size) => {
    const bytes = readFully(inside.host.disk, fd, 0, size)
    return { source: snapshotSource(bytes), bytes: bytes.length, crc: crc32(bytes) }
  })
}

function readJournal(inside: Inside, path: string, signal?: AbortSignal): Promise<Read<JournalSource> | undefined> {
  const { disk } = inside.host
  return readOf(inside, path, async (fd, size) => {
    const crc = crc32(readFully(disk, fd, 0, size))
    return { source: await journalSource(disk, fd, size, inside.tag, signal), bytes: size, crc }
  })
}

const transcriptPattern = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.jsonl$/

/** Of every transcript that is open. */
async function headersIn(inside: Inside, signal?: AbortSignal): Promise<HeaderFacts[]> {
  const { host, places } = inside
  const found: HeaderFacts[] = []
  if (!host.disk.stat(places.transcripts)) return found
  for (const name of host.disk.readdir(places.transcripts).sort()) {
    const sessionId = transcriptPattern.exec(name)?.[1]
    if (!sessionId) continue
    signal?.throwIfAborted()
    const facts = await headerOf(inside, `${places.transcripts}/${name}`, sessionId)
    if (facts) found.push(facts)
  }
  return found
}

function headerOf(inside: Inside, path: string, sessionId: string): Promise<HeaderFacts | undefined> {
  const { tag } = inside
  const { disk } = inside.host
  return readOf(inside, path, async (fd, size) => {
    const first = new Chain(tag)
    await readInPieces(disk, fd, Math.min(size, firstBytes), first, {})
    // A header that is long, or behind many lines of another program.
    if (!first.header && size > firstBytes) await readInPieces(disk, fd, size, first, {})
    const { key, createdAt } = first.header ?? {}
    if (key === undefined || createdAt === undefined) return undefined
    const { seal } = openTail(disk, fd, size, tag, { records: 1 })
    return seal && seal.reason !== 'suspect' && seal.reason !== 'compacted' ? undefined : { sessionId, key, createdAt }
  })
}

function archivedIn({ host, places }: Inside): Set<string> {
  const names = host.disk.stat(places.archive) ? host.disk.readdir(places.archive) : []
  return new Set(names.flatMap((name) => /^([0-9a-f-]{36})\.jsonl(?:\.gz)?$/.exec(name)?.[1] ?? []))
}

/** Reading a transcript: no lock, no memory of earlier reads; what was acknowledged before the call is in it. */
import { errnoOf, ioError, StoreError } from '../../errors.js'
import type { StoredRecord } from '../../types.js'
import { type Disk, readFully } from '../durable.js'
import { Chain, type ChainDamage, type ChainSink } from '../log/chain.js'
import { logCorrupt } from '../log/log-file.js'
import { pieces } from '../log/pieces.js'
import { isSystemOnly, type LineMark, readBody, type SystemPart } from '../log/record.js'
import { openTail } from '../log/tail.js'
import { isSymlinkRefusal, symlinkRefused } from './transcript.js'

export interface Source {
  readonly disk: Disk
  readonly path: string
  readonly label: string
  readonly tag: string
  /** How to let go of the files that are being read; for when the store is closed under somebody who does not go on. */
  readonly readers: Set<() => void>
  /** What the file behind the descriptor has lost. @throws LOG_CORRUPT  there is no file, and should be one. */
  readonly lacks?: (fd: number | undefined) => ChainDamage | undefined
}

export interface Range {
  readonly after: number
  readonly limit: number
  readonly signal?: AbortSignal | undefined
  /** What comes first, in the place of everything up to `after`; asked once the file is open. */
  readonly begin?: ((source: Source, fd: number, size: number) => Promise<{ first: Raw | undefined; after: number }>) | undefined
}

/** A record on its way to the reader; parsed when it gets there. */
export interface Raw {
  readonly seq: number
  readonly json: string
  readonly system: SystemPart | undefined
}

/** undefined when there is no such file. @throws LOG_CORRUPT  it has lost something, or there should be one. */
export function openSource(source: Source): number | undefined {
  const fd = openFile(source)
  try {
    const damage = source.lacks?.(fd)
    if (damage) throw logCorrupt(source.label, damage)
    return fd
  } catch (error) {
    if (fd !== undefined) source.disk.close(fd)
    throw error
  }
}

function openFile(source: Source): number | undefined {
  try {
    return source.disk.open(source.path, 'read')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    if (isSymlinkRefusal(error)) throw symlinkRefused(source.label)
    throw ioError(error, `reading ${source.label}`, 'none')
  }
}

/** @throws LOG_CORRUPT  after everything before the damage has been handed out · STORE_CLOSED  when the store has been closed meanwhile. */
export async function* readRange(source: Source, range: Range): AsyncGenerator<StoredRecord, boolean> {
  const fd = openFile(source)
  if (fd === undefined) {
    source.lacks?.(undefined)
    return false
  }
  const reader = openReader(source, fd)
  try {
    const lacking = source.lacks?.(fd)
    const { size } = source.disk.fstat(fd)
    let left = range.limit
    if (left <= 0) return true
    const { first, after } = (await range.begin?.(reader, fd, size)) ?? { first: undefined, after: range.after }
    if (first && !(lacking && first.seq >= lacking.seq)) {
      yield parsed(first)
      if (--left <= 0) return true
    }
    for await (const raw of after > 0 ? rawsAfter(reader, fd, size, after) : rawsFromStart(reader, fd, size, range)) {
      if (raw.seq <= after) continue
      if (lacking && raw.seq >= lacking.seq) break
      range.signal?.throwIfAborted()
      yield parsed(raw)
      if (--left <= 0) return true
    }
    if (lacking) throw logCorrupt(source.label, lacking)
    return true
  } finally {
    reader.letGo()
  }
}

/** The source with a descriptor that is closed once, and not read from afterwards: its number may be another file's by then. */
function openReader(source: Source, fd: number): Source & { letGo(): void } {
  let open = true
  const letGo = () => {
    source.readers.delete(letGo)
    if (open) source.disk.close(fd)
    open = false
  }
  source.readers.add(letGo)
  const disk: Disk = {
    ...source.disk,
    read(...of) {
      if (open) return source.disk.read(...of)
      throw new StoreError('STORE_CLOSED', 'the store has been closed while it was read.', { hint: 'Nothing was done. Open it again.' })
    },
  }
  return { ...source, disk, letGo }
}

/** Goes back from the end only as far as `after`. */
async function* rawsAfter(source: Source, fd: number, size: number, after: number): AsyncGenerator<Raw> {
  const raws: Raw[] = []
  const foreign: [number, number][] = []
  const sink = collecting(raws, foreign, after)
  const chain = openTail(source.disk, fd, size, source.tag, { records: 0, after }, sink)
  for (const raw of foreignRaws(source, fd, chain, foreign)) yield raw
  yield* raws
  if (chain.damage) throw logCorrupt(source.label, chain.damage)
}

async function* rawsFromStart(source: Source, fd: number, size: number, range: Range): AsyncGenerator<Raw> {
  const raws: Raw[] = []
  const foreign: [number, number][] = []
  const chain = new Chain(source.tag)
  let begun = false
  for await (const _ of pieces(source.disk, fd, size, chain, collecting(raws, foreign, 0), range.signal)) {
    // Only the header says whether the lines before it count.
    if (!begun && chain.seq < 0) continue
    if (!begun) yield* foreignRaws(source, fd, chain, foreign)
    begun = true
    yield* raws.splice(0)
    if (chain.damage) throw logCorrupt(source.label, chain.damage)
  }
  if (!begun) yield* foreignRaws(source, fd, chain, foreign)
  if (chain.damage) throw logCorrupt(source.label, chain.damage)
}

/** The last `count` records, oldest first. */
export function readTail(source: Source, count: number): StoredRecord[] | undefined {
  const fd = openSource(source)
  if (fd === undefined) return undefined
  try {
    const raws: Raw[] = []
    const foreign: [number, number][] = []
    const keep = collecting(raws, foreign, 0)
    const sink: ChainSink = {
      ...keep,
      record(mark, bytes, start, end, line) {
        keep.record?.(mark, bytes, start, end, line)
        if (raws.length > 2 * count + 1_000) raws.splice(0, raws.length - count)
      },
    }
    const chain = openTail(source.disk, fd, source.disk.fstat(fd).size, source.tag, { records: count }, sink)
    if (chain.damage) throw logCorrupt(source.label, chain.damage)
    const lacking = count - raws.length
    const before = lacking > 0 ? [...foreignRaws(source, fd, chain, foreign)].slice(-lacking) : []
    return [...before, ...raws.slice(-count)].map(parsed)
  } finally {
    source.disk.close(fd)
  }
}

function collecting(raws: Raw[], foreign: [number, number][], after: number): ChainSink {
  return {
    record(mark, bytes, start) {
      if (mark.seq > after && !isSystemOnly(bytes, start)) raws.push(rawOf(mark, bytes, start))
    },
    foreign(byte, length) {
      foreign.push([byte, length])
    },
  }
}

export function rawOf(mark: LineMark, bytes: Buffer, start: number): Raw {
  return { seq: mark.seq, ...readBody(bytes, start, mark) }
}

export function* foreignRaws(source: Source, fd: number, chain: Chain, foreign: readonly [number, number][]): Generator<Raw> {
  for (let at = 0; at < chain.foreign.lines; at++) {
    const [byte, length] = foreign[at]!
    yield { seq: at + 1, json: readFully(source.disk, fd, byte, length).toString('utf8'), system: undefined }
  }
}

export function parsed({ seq, json, system }: Raw): StoredRecord {
  const record = JSON.parse(json) as Record<string, unknown>
  if (!system) return { seq, record }
  const { id, by, input } = system
  return {
    seq,
    ...(id !== undefined && { id }),
    ...(by !== undefined && { turn: by }),
    ...(input !== undefined && { request: input }),
    record,
  }
}

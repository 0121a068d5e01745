/** A repository in memory: what the seam promises, and nothing else. For tests of what uses it. */
import { createHash } from 'node:crypto'
import type {
  ChunkRef,
  FileFacts,
  FileRow,
  Manifest,
  ManifestFacts,
  PreviousFile,
  Repository,
  SnapshotFacts,
  SnapshotInfo,
  SnapshotWriter,
  StoredFile,
} from '../../src/backup/repository/repository.js'
import { StoreError } from '../../src/errors.js'

const chunkBytes = 16 << 10

export class MemoryRepository implements Repository {
  readonly id = 'memory'
  readonly readable = true
  readonly chunks = new Map<string, Buffer>()
  readonly manifests: Manifest[] = []
  #made = 0

  async snapshots(): Promise<SnapshotInfo[]> {
    return this.manifests.map(({ info }) => info).reverse()
  }

  async manifest(id: string): Promise<Manifest> {
    const found = this.manifests.find(({ info }) => info.id === id)
    if (!found) throw new StoreError('NOT_FOUND', `no snapshot ${id}.`)
    return found
  }

  async begin(facts: SnapshotFacts): Promise<SnapshotWriter> {
    return new MemoryWriter(this, facts, `s${String(++this.#made).padStart(6, '0')}`)
  }

  async *read(file: FileRow, options: { from?: number | undefined } = {}): AsyncGenerator<Buffer> {
    let at = 0
    for (const [name, bytes] of file.chunks) {
      const chunk = this.chunks.get(name)
      if (!chunk) throw new StoreError('BACKUP_MISMATCH', `a chunk of ${file.path} is missing.`)
      const skip = Math.max(0, (options.from ?? 0) - at)
      if (skip < bytes) yield chunk.subarray(skip)
      at += bytes
    }
  }

  check(): never {
    throw new Error('not here')
  }
  forget(): never {
    throw new Error('not here')
  }
  prune(): never {
    throw new Error('not here')
  }
  async close(): Promise<void> {}

  async text(row: FileRow): Promise<string> {
    const pieces: Buffer[] = []
    for await (const piece of this.read(row)) pieces.push(piece)
    return Buffer.concat(pieces).toString('utf8')
  }
}

class MemoryWriter implements SnapshotWriter {
  readonly id: string
  #repository: MemoryRepository
  #facts: SnapshotFacts
  #rows: FileRow[] = []

  constructor(repository: MemoryRepository, facts: SnapshotFacts, id: string) {
    this.#repository = repository
    this.#facts = facts
    this.id = id
  }

  async file(
    given: FileFacts | (() => FileFacts),
    bytes?: (from: number) => AsyncIterable<Uint8Array>,
    previous?: PreviousFile,
  ): Promise<StoredFile> {
    const whole = previous?.whole === true && !previous.reread
    const from = previous && !previous.reread ? (whole ? previous.row.bytes : previous.keepBytes - (previous.keepBytes % chunkBytes)) : 0
    const pieces: Uint8Array[] = []
    if (bytes && !whole) for await (const piece of bytes(from)) pieces.push(Buffer.from(piece))
    const read = Buffer.concat(pieces)
    const kept = previous ? keptChunks(previous.row, from) : []
    const chunks: ChunkRef[] = [...kept]
    let newBytes = 0
    for (let at = 0; at < read.length; at += chunkBytes) {
      const chunk = read.subarray(at, at + chunkBytes)
      const name = createHash('sha256').update(chunk).digest('hex')
      if (!this.#repository.chunks.has(name)) newBytes += chunk.length
      this.#repository.chunks.set(name, chunk)
      chunks.push([name, chunk.length])
    }
    const changed = previous?.reread ? difference(previous, chunks) : undefined
    const row = { ...(typeof given === 'function' ? given() : given), bytes: from + read.length, chunks }
    this.#rows.push(row)
    return { row, readFrom: bytes && !whole ? from : undefined, readBytes: read.length, newBytes, changed }
  }

  async commit(facts: ManifestFacts): Promise<SnapshotInfo> {
    const info: SnapshotInfo = {
      id: this.id,
      time: facts.time ?? Date.now(),
      storeId: this.#facts.storeId,
      host: this.#facts.host,
      source: facts.source,
      damaged: facts.damaged,
      findings: facts.findings,
      files: this.#rows.length,
      sessions: this.#rows.filter(({ session }) => session).length,
      bytes: this.#rows.reduce((sum, { bytes }) => sum + bytes, 0),
      addedBytes: 0,
      extra: facts.extra ?? {},
    }
    this.#repository.manifests.push({ info, files: [...this.#rows].sort((a, b) => (a.path < b.path ? -1 : 1)) })
    return info
  }

  async abandon(): Promise<void> {}
}

function keptChunks(row: FileRow, to: number): ChunkRef[] {
  const kept: ChunkRef[] = []
  let at = 0
  for (const ref of row.chunks) {
    if (at + ref[1] > to) break
    kept.push(ref)
    at += ref[1]
  }
  return kept
}

function difference({ row, keepBytes }: PreviousFile, now: readonly ChunkRef[]): { from: number; to: number } | undefined {
  let at = 0
  let found: { from: number; to: number } | undefined
  for (const [n, [name, bytes]] of row.chunks.entries()) {
    if (at + bytes > keepBytes) break
    if (now[n]?.[0] !== name) found = { from: found?.from ?? at, to: at + bytes }
    at += bytes
  }
  return found
}

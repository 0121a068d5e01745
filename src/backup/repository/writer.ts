/** A snapshot in the making.
 *
 *  1 its hold stands in `running/`    from here on no prune removes what is there; crash: the hold grows stale, and a prune ends it
 *  2 look at what there is            marks, index, packs
 *  3 packs, and the index of them     crash: bytes that nobody names
 *  4 its manifest, where nothing is   crash before: no snapshot; after: a complete one. A prune that has given this backup up has put
 *                                     something there itself: then the put is refused, and nothing that it removed is named
 *  5 the hold goes                    crash before: the hold of a complete snapshot; the next prune removes it */
import { hostname } from 'node:os'
import { StoreError } from '../../errors.js'
import { type ChunkIndex, type IndexMemory, indexOf, lookAround } from './chunk-index.js'
import { chunksOf, listingChunks } from './chunker.js'
import { type FileContent, nothingRead, storeFile } from './file-storing.js'
import { Hold } from './hold.js'
import { checkedRow, decodeRoot, encodeRoot, encodeRow, infoOf, type Listing } from './manifest.js'
import { Packing } from './packing.js'
import type {
  ChunkRef,
  FileFacts,
  FileRow,
  ManifestFacts,
  PreviousFile,
  SignalOption,
  SnapshotFacts,
  SnapshotInfo,
  SnapshotWriter,
  StoredFile,
} from './repository.js'
import { freshSnapshotId, packPattern, snapshotName, type Vault } from './vault.js'

const findingsMax = 1000
const extraBytesMax = 64 << 10

export async function beginSnapshot(
  vault: Vault,
  memory: IndexMemory,
  facts: SnapshotFacts,
  { signal }: SignalOption = {},
): Promise<SnapshotWriter> {
  vault.keyring.assertMayWrite()
  const time = facts.time ?? Date.now()
  const hold = await Hold.take(vault.target, () => freshSnapshotId(Date.now()), signal)
  try {
    const holdings = await lookAround(vault, memory, signal)
    return new Writer(vault, { ...facts, time }, hold, indexOf(holdings, false), signal)
  } catch (error) {
    await hold.release()
    throw error
  }
}

class Writer implements SnapshotWriter {
  readonly id: string
  readonly #vault: Vault
  readonly #facts: SnapshotFacts & { readonly time: number }
  readonly #hold: Hold
  readonly #known: ChunkIndex
  readonly #packing: Packing
  readonly #signal: AbortSignal | undefined
  readonly #rows = new Map<string, FileRow>()
  #storing = 0
  #ended = false

  constructor(
    vault: Vault,
    facts: SnapshotFacts & { readonly time: number },
    hold: Hold,
    known: ChunkIndex,
    signal: AbortSignal | undefined,
  ) {
    this.id = hold.id
    this.#vault = vault
    this.#facts = facts
    this.#hold = hold
    this.#known = known
    this.#signal = signal
    this.#packing = new Packing(vault, { known, by: hold.id, signal })
  }

  async file(
    facts: FileFacts | (() => FileFacts),
    bytes?: (from: number) => AsyncIterable<Uint8Array>,
    previous?: PreviousFile,
  ): Promise<StoredFile> {
    this.#assertOpen()
    // Facts that are not known yet are those of a file with bytes.
    if (typeof facts !== 'function' && facts.type !== 'file') return this.#listed(facts, { bytes: 0, chunks: [] }, nothingRead)
    this.#storing++
    try {
      const { content, ...read } = await storeFile({ packing: this.#packing, keyring: this.#vault.keyring }, bytes, previous)
      return this.#listed(typeof facts === 'function' ? facts() : facts, content, read)
    } finally {
      this.#storing--
    }
  }

  #listed(facts: FileFacts, content: FileContent, read: Omit<StoredFile, 'row'>): StoredFile {
    const row = checkedRow({ ...facts, ...content })
    if (this.#rows.has(row.path)) throw new StoreError('INVALID_OPTION', `${JSON.stringify(row.path)} stands in the snapshot already.`)
    this.#rows.set(row.path, row)
    return { row, ...read }
  }

  async commit(facts: ManifestFacts): Promise<SnapshotInfo> {
    this.#assertOpen()
    if (this.#storing > 0) throw new StoreError('INVALID_OPTION', 'commit() was called while files were still being stored.')
    this.#ended = true
    try {
      const rows = this.#sortedRows()
      const listing = await this.#storeListing(rows)
      await this.#packing.finish()
      await this.#assertPresent(rows, listing.chunks)
      const info = this.#info(facts, rows)
      await this.#putRoot(info, await encodeRoot(this.#vault, info, listing))
      return info
    } finally {
      await this.#end()
    }
  }

  async abandon(): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    await this.#end()
  }

  #sortedRows(): FileRow[] {
    return [...this.#rows.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
  }

  async #storeListing(rows: readonly FileRow[]): Promise<Listing> {
    const { keyring } = this.#vault
    const chunks: ChunkRef[] = []
    let bytes = 0
    for await (const chunk of chunksOf(listingPieces(rows), keyring.gear, listingChunks)) {
      const name = keyring.nameOf(chunk)
      await this.#packing.add(name, chunk, 'catalogue')
      chunks.push([name, chunk.length])
      bytes += chunk.length
    }
    return { bytes, chunks }
  }

  /** Everything that the manifest will name is there, now: what this backup relied on has been read an hour ago. */
  async #assertPresent(rows: readonly FileRow[], listing: readonly ChunkRef[]): Promise<void> {
    const there = new Set<string>()
    for (const { name } of await this.#vault.target.list('packs/', { signal: this.#signal })) there.add(packPattern.exec(name)?.[2] ?? '')
    const gone = () =>
      new StoreError('LOCK_LOST', `A pack of ${this.#vault.target.place} that this backup relied on has been removed meanwhile.`, {
        details: { snapshot: this.id, place: this.#vault.target.place },
        hint: 'No snapshot was made. Begin again: what was stored and is still there is not sent a second time.',
      })
    for (const pack of this.#packing.packs) if (!there.has(pack)) throw gone()
    const seen = new Set<string>()
    const look = ([name]: ChunkRef) => {
      if (seen.has(name)) return
      seen.add(name)
      let place = this.#known.find(name)
      if (!place) return
      while (place && !there.has(place.line.pack)) place = place.next
      if (!place) throw gone()
    }
    for (const row of rows) row.chunks.forEach(look)
    listing.forEach(look)
  }

  async #putRoot(info: SnapshotInfo, root: Buffer): Promise<void> {
    const { target } = this.#vault
    const name = snapshotName(this.#vault, this.id)
    // Where two puts can both succeed, all that is left is to look, just before and just after.
    const isExclusive = await target.isExclusive(this.#signal)
    if (!isExclusive) await this.#hold.assertStands(this.#signal)
    if (await target.put(name, root, { ifAbsent: true, signal: this.#signal })) {
      if (isExclusive || (await this.#hold.stands(this.#signal))) return
      await target.delete(name)
      throw this.#hold.lost()
    }
    const found = await target.get(name, { signal: this.#signal })
    const standing = found && (await decodeRoot(this.#vault, this.id, found))
    // Put by ourselves: the first answer was lost on its way, and the put made again.
    if (standing && !('abandoned' in standing) && infoOf(standing).addedBytes === info.addedBytes) return
    throw this.#hold.lost()
  }

  #info(facts: ManifestFacts, rows: readonly FileRow[]): SnapshotInfo {
    const extra = facts.extra ?? {}
    if (JSON.stringify(extra).length > extraBytesMax)
      throw new StoreError('INVALID_OPTION', `extra may have ${extraBytesMax} bytes as JSON.`)
    return {
      id: this.id,
      time: facts.time ?? this.#facts.time,
      storeId: this.#facts.storeId,
      host: this.#facts.host || hostname(),
      source: facts.source,
      damaged: facts.damaged,
      findings: facts.findings.slice(0, findingsMax),
      files: rows.length,
      sessions: rows.filter(({ session }) => session).length,
      bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
      addedBytes: this.#packing.addedBytes,
      extra,
    }
  }

  #assertOpen(): void {
    this.#signal?.throwIfAborted()
    if (this.#ended) throw new StoreError('STORE_CLOSED', `The snapshot ${this.id} has been committed or abandoned.`)
  }

  async #end(): Promise<void> {
    await this.#packing.leave()
    await this.#hold.release()
  }
}

const rowsPerPiece = 500

async function* listingPieces(rows: readonly FileRow[]): AsyncGenerator<Buffer> {
  for (let at = 0; at < rows.length; at += rowsPerPiece) {
    const lines = rows.slice(at, at + rowsPerPiece).map((row) => `${encodeRow(row)}\n`)
    yield Buffer.from(lines.join(''))
  }
}

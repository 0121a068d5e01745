/** Snapshots as they stand on the target: found, opened, listed. Remembers only what never changes. */
import { isStoreError, StoreError } from '../../errors.js'
import { type ChunkIndex, type Holdings, type IndexMemory, indexOf, lookAround, problemOf } from './chunk-index.js'
import { decodeListing, decodeRoot, infoOf, type Root, unreadableInfo } from './manifest.js'
import type { PackLine } from './pack.js'
import { PackReader } from './reading.js'
import type { ChunkRef, Manifest, SnapshotInfo } from './repository.js'
import { forEachAtOnce } from './slots.js'
import { lineOfStray, strayPacks } from './strays.js'
import { mismatch, snapshotName, snapshotPattern, type Vault } from './vault.js'

/** Where lines stand that packs have said of themselves. */
export const strayLines = 'packs/'

export class Shelf {
  readonly vault: Vault
  readonly memory: IndexMemory = new Map()
  readonly packs: PackReader
  readonly #strays = new Map<string, PackLine>()
  #index: Promise<ChunkIndex> | undefined

  constructor(vault: Vault) {
    this.vault = vault
    this.packs = new PackReader(vault)
  }

  async ids(signal?: AbortSignal): Promise<string[]> {
    const found = await this.vault.target.list('snapshots/', { signal })
    return found.flatMap(({ name }) => snapshotPattern.exec(name)?.[1] ?? [])
  }

  /** Complete ones, newest first. */
  async list(signal?: AbortSignal): Promise<SnapshotInfo[]> {
    const found: SnapshotInfo[] = []
    await forEachAtOnce(await this.ids(signal), this.vault.target.concurrentMax, async (id) => {
      try {
        const root = await this.root(id, signal)
        if (root) found.push(infoOf(root))
      } catch (error) {
        found.push(unreadableInfo(id, problemOf(id, error).problem))
      }
    })
    return found.sort((a, b) => (a.id < b.id ? 1 : -1))
  }

  /** undefined: there is none, or what stands there says that it never will be.
   *  @throws BACKUP_MISMATCH */
  async root(id: string, signal?: AbortSignal): Promise<Root | undefined> {
    const bytes = await this.vault.target.get(snapshotName(this.vault, id), { signal })
    const root = bytes && (await decodeRoot(this.vault, id, bytes))
    return root && 'abandoned' in root ? undefined : root
  }

  /** @throws NOT_FOUND · BACKUP_MISMATCH */
  async manifest(id: string, signal?: AbortSignal): Promise<Manifest> {
    const root = await this.root(id, signal)
    if (!root) throw this.#noSuch(id)
    return this.manifestOf(root, signal)
  }

  async manifestOf(root: Root, signal?: AbortSignal): Promise<Manifest> {
    const parts: Buffer[] = []
    for (const ref of root.listing.chunks) parts.push(await this.chunk(ref, signal))
    const listing = Buffer.concat(parts)
    if (listing.length !== root.listing.bytes) throw mismatch(this.vault, snapshotName(this.vault, root.id), 'its list has another length')
    return decodeListing(this.vault, root, listing)
  }

  /** From where the index says. Where that is wrong, it may have changed since it was read; or a part of it is lost, and what packs say of
   *  themselves must do. */
  async chunk(ref: ChunkRef, signal?: AbortSignal): Promise<Buffer> {
    const index = await this.#lookUp(signal)
    try {
      return await this.packs.chunk(index, ref, signal)
    } catch (error) {
      if (!isStoreError(error, 'BACKUP_MISMATCH')) throw error
      if (this.#index && (await this.#index) === index) this.#index = undefined
    }
    const fresh = await this.#lookUp(signal)
    try {
      return await this.packs.chunk(fresh, ref, signal)
    } catch (error) {
      if (!isStoreError(error, 'BACKUP_MISMATCH') || fresh.find(ref[0])) throw error
    }
    const holdings = await this.withStrays(await lookAround(this.vault, this.memory, signal), signal)
    this.#index = Promise.resolve(indexOf(holdings, true))
    return this.packs.chunk(await this.#index, ref, signal)
  }

  /** A fresh look, which reading goes by from now on. */
  async look(signal?: AbortSignal): Promise<Holdings> {
    const holdings = await lookAround(this.vault, this.memory, signal)
    this.#index = Promise.resolve(indexOf(holdings, true))
    return holdings
  }

  /** The same, and what packs say of themselves that no part of the index names. Each is read once. */
  async withStrays(holdings: Holdings, signal?: AbortSignal): Promise<Holdings> {
    const lines: PackLine[] = []
    for (const pack of strayPacks(holdings)) {
      const line = this.#strays.get(pack) ?? (await lineOfStray(this.vault, pack, signal))
      if (!line) continue
      this.#strays.set(pack, line)
      lines.push(line)
    }
    return { ...holdings, indexes: new Map([...holdings.indexes, [strayLines, lines]]) }
  }

  /** The id that begins so. @throws NOT_FOUND · INVALID_OPTION  several do. */
  async whole(id: string, signal?: AbortSignal): Promise<string> {
    const ids = (await this.ids(signal)).filter((it) => it.startsWith(id))
    if (ids.includes(id)) return id
    if (ids.length === 0) throw this.#noSuch(id)
    if (ids.length > 1) throw new StoreError('INVALID_OPTION', `${ids.length} snapshots begin with "${id}".`, { details: { ids } })
    return ids[0]!
  }

  #lookUp(signal?: AbortSignal): Promise<ChunkIndex> {
    this.#index ??= lookAround(this.vault, this.memory, signal).then(
      (holdings) => indexOf(holdings, true),
      (error: unknown) => {
        this.#index = undefined
        throw error
      },
    )
    return this.#index
  }

  #noSuch(id: string): StoreError {
    return new StoreError('NOT_FOUND', `There is no snapshot ${JSON.stringify(id)} in ${this.vault.target.place}.`, {
      hint: 'Run `holdfast backup list` to see those that are there.',
    })
  }
}

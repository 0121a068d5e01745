/** Reads chunks out of packs. A pack is read in part as long as little of it is wanted, then whole, and the last few stay in memory: files
 *  lie next to each other as they were stored, so the neighbour is most often wanted next. */
import { isStoreError, StoreError } from '../../errors.js'
import type { ChunkIndex, Place } from './chunk-index.js'
import { type ChunkPlace, chunkOf } from './pack.js'
import type { ChunkRef } from './repository.js'
import { awaited } from './slots.js'
import { mismatch, packName, type Vault } from './vault.js'

const keptBytesMax = 48 << 20

export class PackReader {
  readonly #vault: Vault
  /** Oldest first. */
  readonly #kept = new Map<string, Promise<Buffer | undefined>>()
  readonly #sizes = new Map<string, number>()
  readonly #touched = new Set<string>()

  constructor(vault: Vault) {
    this.#vault = vault
  }

  /** @throws BACKUP_MISMATCH  in none of the places is what was stored. */
  async chunk(index: ChunkIndex, [name, bytes]: ChunkRef, signal?: AbortSignal): Promise<Buffer> {
    let failure: unknown
    for (let place = index.find(name); place; place = place.next) {
      try {
        if (place.at[3] !== bytes) throw mismatch(this.#vault, `chunk ${name}`, `it has ${place.at[3]} bytes instead of ${bytes}`)
        return await this.#chunkAt(place, signal)
      } catch (error) {
        if (!isStoreError(error, 'BACKUP_MISMATCH')) throw error
        failure = error
      }
    }
    throw failure ?? mismatch(this.#vault, `chunk ${name}`, 'no pack has it')
  }

  async #chunkAt({ line, at }: Place, signal?: AbortSignal): Promise<Buffer> {
    const member = await this.#member(line.pack, line.of, line.bytes, at, signal)
    if (!member || member.length !== at[2]) throw mismatch(this.#vault, `pack ${line.pack}`, 'it is missing or ends too early')
    return chunkOf(this.#vault, line.pack, member, at)
  }

  async #member(pack: string, of: 'contents' | 'catalogue', bytes: number, [, offset, stored]: ChunkPlace, signal?: AbortSignal) {
    if (of === 'contents' && !this.#vault.keyring.canReadContents)
      throw new StoreError('INVALID_OPTION', 'This key adds snapshots; it does not open what they contain.', {
        hint: 'Open the repository with its passphrase, or with an identity of one of its recipients.',
      })
    const isWanted = this.#kept.has(pack) || this.#touched.has(pack) || this.#vault.keyring.suffix !== '' || stored * 2 > bytes
    if (!isWanted) {
      this.#touched.add(pack)
      return this.#vault.target.get(packName(this.#vault, pack), { signal, range: { from: offset, length: stored } })
    }
    const whole = await this.#whole(pack, of, bytes, signal)
    return whole?.subarray(offset, offset + stored)
  }

  async #whole(pack: string, of: 'contents' | 'catalogue', bytes: number, signal?: AbortSignal): Promise<Buffer | undefined> {
    const loading = this.#kept.get(pack) ?? this.#load(pack, of)
    this.#kept.delete(pack)
    this.#kept.set(pack, loading)
    this.#sizes.set(pack, bytes)
    this.#letGo(pack)
    loading.catch(() => {
      if (this.#kept.get(pack) === loading) this.#kept.delete(pack)
    })
    return awaited(loading, signal)
  }

  async #load(pack: string, of: 'contents' | 'catalogue'): Promise<Buffer | undefined> {
    const name = packName(this.#vault, pack)
    const object = await this.#vault.target.get(name)
    return object && this.#vault.keyring.unwrap(object, of, name)
  }

  #letGo(current: string): void {
    let bytes = 0
    for (const pack of this.#kept.keys()) bytes += this.#sizes.get(pack) ?? 0
    for (const pack of this.#kept.keys()) {
      if (bytes <= keptBytesMax || pack === current) return
      bytes -= this.#sizes.get(pack) ?? 0
      this.#kept.delete(pack)
    }
  }

  /** Frees what is kept. */
  clear(): void {
    this.#kept.clear()
    this.#touched.clear()
  }
}

/** The repository over a target: ties its parts together and remembers only what never changes. */
import { isStoreError, StoreError } from '../../errors.js'
import { checkRepository } from './check.js'
import { type ChunkIndex, type IndexMemory, indexOf, lookAround, problemOf } from './chunk-index.js'
import { chooseKept } from './forget.js'
import { decodeListing, decodeRoot, infoOf, type Root, unreadableInfo } from './manifest.js'
import { PackReader } from './reading.js'
import type {
  CheckOptions,
  CheckReport,
  ChunkRef,
  FileRow,
  ForgetOptions,
  ForgetPolicy,
  ForgetReport,
  Manifest,
  PruneOptions,
  PruneReport,
  ReadFileOptions,
  Repository,
  SignalOption,
  SnapshotFacts,
  SnapshotInfo,
  SnapshotWriter,
} from './repository.js'
import { forEachAtOnce } from './slots.js'
import { mismatch, snapshotName, snapshotPattern, type Vault } from './vault.js'
import { beginSnapshot } from './writer.js'

export class ObjectRepository implements Repository {
  readonly #vault: Vault
  readonly #memory: IndexMemory = new Map()
  readonly #packs: PackReader
  #index: Promise<ChunkIndex> | undefined
  #closed = false

  constructor(vault: Vault) {
    this.#vault = vault
    this.#packs = new PackReader(vault)
  }

  get id(): string {
    return this.#vault.repositoryId
  }

  get readable(): boolean {
    return this.#vault.keyring.canReadContents
  }

  async snapshots({ signal }: SignalOption = {}): Promise<SnapshotInfo[]> {
    this.#assertOpen()
    const found: SnapshotInfo[] = []
    const names = await this.#vault.target.list('snapshots/', { signal })
    const ids = names.flatMap(({ name }) => snapshotPattern.exec(name)?.[1] ?? [])
    await forEachAtOnce(ids, this.#vault.target.concurrentMax, async (id) => {
      try {
        const root = await this.#root(id, signal)
        if (root) found.push(infoOf(root))
      } catch (error) {
        found.push(unreadableInfo(id, problemOf(id, error).problem))
      }
    })
    return found.sort((a, b) => (a.id < b.id ? 1 : -1))
  }

  async manifest(id: string, { signal }: SignalOption = {}): Promise<Manifest> {
    this.#assertOpen()
    const root = await this.#root(await this.#whole(id, signal), signal)
    if (!root) throw this.#noSuch(id)
    return this.#manifestOf(root, signal)
  }

  async begin(facts: SnapshotFacts, options: SignalOption = {}): Promise<SnapshotWriter> {
    this.#assertOpen()
    return beginSnapshot(this.#vault, this.#memory, facts, options)
  }

  async *read(file: FileRow, { from = 0, signal }: ReadFileOptions = {}): AsyncGenerator<Buffer> {
    let at = 0
    let ahead: { readonly ref: ChunkRef; readonly chunk: Promise<Buffer> } | undefined
    const wanted = file.chunks.filter(([, bytes]) => {
      at += bytes
      return at > from
    })
    let skip = from - (file.bytes - wanted.reduce((sum, [, bytes]) => sum + bytes, 0))
    for (const [number, ref] of wanted.entries()) {
      signal?.throwIfAborted()
      const loading = ahead?.ref === ref ? ahead.chunk : this.#chunk(ref, signal)
      const next = wanted[number + 1]
      const chunk = await loading
      if (next) {
        // Loaded while the caller is busy with this one; a failure is told when it is its turn.
        ahead = { ref: next, chunk: this.#chunk(next, signal) }
        ahead.chunk.catch(() => {})
      }
      yield skip > 0 ? chunk.subarray(skip) : chunk
      skip = 0
    }
  }

  async check(options: CheckOptions = {}): Promise<CheckReport> {
    this.#assertOpen()
    const { signal } = options
    const holdings = await lookAround(this.#vault, this.#memory, signal)
    const all = await this.snapshots({ signal })
    const ids = options.snapshots && (await Promise.all(options.snapshots.map((id) => this.#whole(id, signal))))
    this.#index = Promise.resolve(indexOf(holdings, true))
    return checkRepository(
      {
        vault: this.#vault,
        holdings,
        snapshots: ids ? all.filter(({ id }) => ids.includes(id)) : all,
        files: async ({ id }) => (await this.manifest(id, { signal })).files,
        listing: async ({ id }) => (await this.#root(id, signal))?.listing.chunks.map(([name]) => name) ?? [],
      },
      options,
    )
  }

  async forget(policy: ForgetPolicy, { dryRun = false, signal }: ForgetOptions = {}): Promise<ForgetReport> {
    this.#assertOpen()
    const { kept, removed } = chooseKept(await this.snapshots({ signal }), policy)
    if (!dryRun)
      for (const { id } of removed) {
        signal?.throwIfAborted()
        await this.#vault.target.delete(snapshotName(this.#vault, id), { signal })
      }
    return { dryRun, kept, removed }
  }

  async prune(_options: PruneOptions = {}): Promise<PruneReport> {
    throw new StoreError('INVALID_OPTION', 'prune is not there yet.')
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#packs.clear()
    await this.#vault.target.close()
  }

  /** undefined: there is none, or what stands there says that it never will be. */
  async #root(id: string, signal?: AbortSignal): Promise<Root | undefined> {
    const bytes = await this.#vault.target.get(snapshotName(this.#vault, id), { signal })
    const root = bytes && (await decodeRoot(this.#vault, id, bytes))
    return root && 'abandoned' in root ? undefined : root
  }

  async #manifestOf(root: Root, signal?: AbortSignal): Promise<Manifest> {
    const parts: Buffer[] = []
    for (const ref of root.listing.chunks) parts.push(await this.#chunk(ref, signal))
    const listing = Buffer.concat(parts)
    if (listing.length !== root.listing.bytes)
      throw mismatch(this.#vault, snapshotName(this.#vault, root.id), 'its list has another length')
    return decodeListing(this.#vault, root, listing)
  }

  /** From where the index says; where that is wrong, it may have changed since it was read. */
  async #chunk(ref: ChunkRef, signal?: AbortSignal): Promise<Buffer> {
    this.#assertOpen()
    const index = await this.#lookUp(signal)
    try {
      return await this.#packs.chunk(index, ref, signal)
    } catch (error) {
      if (!isStoreError(error, 'BACKUP_MISMATCH')) throw error
      if (this.#index && (await this.#index) === index) this.#index = undefined
      const fresh = await this.#lookUp(signal)
      return this.#packs.chunk(fresh, ref, signal)
    }
  }

  #lookUp(signal?: AbortSignal): Promise<ChunkIndex> {
    this.#index ??= lookAround(this.#vault, this.#memory, signal).then(
      (holdings) => indexOf(holdings, true),
      (error: unknown) => {
        this.#index = undefined
        throw error
      },
    )
    return this.#index
  }

  async #whole(id: string, signal?: AbortSignal): Promise<string> {
    const names = await this.#vault.target.list('snapshots/', { signal })
    const ids = names.flatMap(({ name }) => snapshotPattern.exec(name)?.[1] ?? []).filter((it) => it.startsWith(id))
    if (ids.includes(id)) return id
    if (id === '' || ids.length !== 1)
      throw ids.length === 0 ? this.#noSuch(id) : new StoreError('INVALID_OPTION', `${ids.length} snapshots begin with "${id}".`)
    return ids[0]!
  }

  #noSuch(id: string): StoreError {
    return new StoreError('NOT_FOUND', `There is no snapshot ${JSON.stringify(id)} in ${this.#vault.target.place}.`, {
      hint: 'Run `holdfast backup list` to see those that are there.',
    })
  }

  #assertOpen(): void {
    if (this.#closed) throw new StoreError('STORE_CLOSED', `The repository ${this.#vault.target.place} has been closed.`)
  }
}

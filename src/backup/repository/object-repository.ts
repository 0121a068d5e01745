/** The repository over a target: ties its parts together. */
import { StoreError } from '../../errors.js'
import { checkRepository } from './check.js'
import { chooseKept } from './forget.js'
import { pruneRepository } from './prune.js'
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
import { Shelf } from './shelf.js'
import { snapshotName, type Vault } from './vault.js'
import { beginSnapshot } from './writer.js'

export class ObjectRepository implements Repository {
  readonly #vault: Vault
  readonly #shelf: Shelf
  /** Of its own files. */
  readonly #damaged: readonly string[]
  #closed = false

  constructor(vault: Vault, damaged: readonly string[] = []) {
    this.#vault = vault
    this.#shelf = new Shelf(vault)
    this.#damaged = damaged
  }

  get id(): string {
    return this.#vault.repositoryId
  }

  get readable(): boolean {
    return this.#vault.keyring.canReadContents
  }

  async snapshots({ signal }: SignalOption = {}): Promise<SnapshotInfo[]> {
    this.#assertOpen()
    return this.#shelf.list(signal)
  }

  async manifest(id: string, { signal }: SignalOption = {}): Promise<Manifest> {
    this.#assertOpen()
    return this.#shelf.manifest(await this.#shelf.whole(id, signal), signal)
  }

  async begin(facts: SnapshotFacts, options: SignalOption = {}): Promise<SnapshotWriter> {
    this.#assertOpen()
    return beginSnapshot(this.#vault, this.#shelf.memory, facts, options)
  }

  async *read(file: FileRow, { from = 0, signal }: ReadFileOptions = {}): AsyncGenerator<Buffer> {
    let at = 0
    const wanted = file.chunks.filter(([, bytes]) => {
      at += bytes
      return at > from
    })
    let skip = from - (file.bytes - wanted.reduce((sum, [, bytes]) => sum + bytes, 0))
    let loading: Promise<Buffer> | undefined
    for (const [number, ref] of wanted.entries()) {
      signal?.throwIfAborted()
      const chunk = await (loading ?? this.#chunk(ref, signal))
      const next = wanted[number + 1]
      // Loaded while the caller is busy with this one; a failure is told when it is its turn.
      loading = next && this.#chunk(next, signal)
      loading?.catch(() => {})
      yield skip > 0 ? chunk.subarray(skip) : chunk
      skip = 0
    }
  }

  async check(options: CheckOptions = {}): Promise<CheckReport> {
    this.#assertOpen()
    const { signal } = options
    const ids = options.snapshots && (await Promise.all(options.snapshots.map((id) => this.#shelf.whole(id, signal))))
    // Listed before looking around: what these need stands already.
    const all = await this.#shelf.list(signal)
    const holdings = await this.#shelf.withStrays(await this.#shelf.look(signal), signal)
    const subject = { shelf: this.#shelf, holdings, snapshots: all, ids, damaged: this.#damaged }
    return checkRepository(subject, options)
  }

  async forget(policy: ForgetPolicy, { dryRun = false, signal }: ForgetOptions = {}): Promise<ForgetReport> {
    this.#assertOpen()
    const { kept, removed } = chooseKept(await this.#shelf.list(signal), policy)
    if (!dryRun)
      for (const { id } of removed) {
        signal?.throwIfAborted()
        await this.#vault.target.delete(snapshotName(this.#vault, id), { signal })
      }
    return { dryRun, kept, removed }
  }

  async prune(options: PruneOptions = {}): Promise<PruneReport> {
    this.#assertOpen()
    return pruneRepository(this.#shelf, options)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#shelf.packs.clear()
    await this.#vault.target.close()
  }

  #chunk(ref: ChunkRef, signal?: AbortSignal): Promise<Buffer> {
    this.#assertOpen()
    return this.#shelf.chunk(ref, signal)
  }

  #assertOpen(): void {
    if (this.#closed) throw new StoreError('STORE_CLOSED', `The repository ${this.#vault.target.place} has been closed.`)
  }
}

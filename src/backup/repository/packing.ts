/** Puts chunks into packs, packs onto the target, and says in the index where they are, in that order: whatever the index names is there.
 *
 *  crash before a pack stands   nothing has happened
 *  crash before the index does  a pack that nobody knows; its table says what is in it, and a prune removes it
 *  Bounded: chunks under way, packs under way, whatever the number of callers. */
import { randomBytes } from 'node:crypto'
import type { Compartment } from '../encryption/keyring.js'
import type { ChunkIndex } from './chunk-index.js'
import { addToPack, finishPack, type OpenPack, type PackLine } from './pack.js'
import { Slots } from './slots.js'
import { compressed, freshName, indexName, packName, sealText, type Vault } from './vault.js'

/** Packs that stand before the index names them: what an interrupted backup sends again at most. */
const unindexedMax = 4
const chunksAtOnce = 8
const packsAtOnce = 2

export interface PackingOptions {
  readonly signal?: AbortSignal | undefined
  /** Chunks that need not be stored. */
  readonly known: ChunkIndex
  /** The snapshot, or the prune, that stores. */
  readonly by: string
}

export class Packing {
  /** Stored so far, as it stands on the target. */
  addedBytes = 0
  readonly #vault: Vault
  readonly #options: PackingOptions
  readonly #open = new Map<Compartment, OpenPack>()
  readonly #mine = new Set<string>()
  readonly #chunkSlots = new Slots(chunksAtOnce)
  readonly #packSlots = new Slots(packsAtOnce)
  readonly #work = new Set<Promise<void>>()
  #unindexed: PackLine[] = []
  /** Every pack that this has stored. */
  readonly packs = new Set<string>()
  #failure: { readonly error: unknown } | undefined

  constructor(vault: Vault, options: PackingOptions) {
    this.#vault = vault
    this.#options = options
  }

  has(name: string): boolean {
    return this.#mine.has(name) || this.#options.known.find(name) !== undefined
  }

  /** Stores a chunk unless it is there. Returns before it is: `finish` waits for all. @returns whether it is new. */
  async add(name: string, chunk: Uint8Array, of: Compartment): Promise<boolean> {
    this.#check()
    if (this.has(name)) return false
    this.#mine.add(name)
    await this.#chunkSlots.take()
    this.#start(async () => {
      let full: OpenPack | undefined
      try {
        full = this.#fill(name, await compressed(chunk), chunk.length, of)
      } finally {
        this.#chunkSlots.give()
      }
      if (full) await this.#store(full)
    })
    // Whoever fills packs faster than they can be sent waits here.
    await this.#packSlots.run(async () => {})
    return true
  }

  /** Everything is on the target, and the index names it. */
  async finish(): Promise<void> {
    await this.#settle()
    for (const pack of this.#open.values()) this.#start(() => this.#store(pack))
    this.#open.clear()
    await this.#settle()
    await this.#writeIndex()
  }

  /** Ends what is under way, and says in the index what has come to stand, so that the next backup need not send it. Never fails. */
  async leave(): Promise<void> {
    await this.#quiet()
    if (this.#unindexed.length > 0) await putIndex(this.#vault, this.#unindexed).catch(() => {})
    this.#unindexed = []
  }

  async #quiet(): Promise<void> {
    while (this.#work.size > 0) await Promise.allSettled(this.#work)
  }

  #fill(name: string, member: Buffer, bytes: number, of: Compartment): OpenPack | undefined {
    const pack = this.#open.get(of) ?? { pack: freshName(), of, by: this.#options.by, parts: [], chunks: [], bytes: 0 }
    addToPack(pack, name, member, bytes)
    if (pack.bytes < this.#vault.packBytes) {
      this.#open.set(of, pack)
      return undefined
    }
    this.#open.delete(of)
    return pack
  }

  async #store(pack: OpenPack): Promise<void> {
    await this.#packSlots.run(async () => {
      this.#check()
      const { object, line } = await finishPack(this.#vault, pack)
      await this.#vault.target.put(packName(this.#vault, pack.pack), object, { signal: this.#options.signal })
      this.addedBytes += object.length
      this.packs.add(pack.pack)
      this.#unindexed.push(line)
      if (this.#unindexed.length >= unindexedMax) await this.#writeIndex()
    })
  }

  async #writeIndex(): Promise<void> {
    const lines = this.#unindexed
    if (lines.length === 0) return
    this.#unindexed = []
    this.addedBytes += await putIndex(this.#vault, lines, this.#options.signal)
  }

  /** In the background; the first failure fails everything that follows. */
  #start(work: () => Promise<void>): void {
    const running = work()
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#work.delete(running))
    this.#work.add(running)
  }

  async #settle(): Promise<void> {
    await this.#quiet()
    this.#check()
  }

  #check(): void {
    if (this.#failure) throw this.#failure.error
    this.#options.signal?.throwIfAborted()
  }
}

/** @returns bytes stored. */
export async function putIndex(vault: Vault, lines: readonly PackLine[], signal?: AbortSignal): Promise<number> {
  const object = await sealText(
    vault,
    lines.map((line) => JSON.stringify(line)),
  )
  await vault.target.put(indexName(vault, randomBytes(16).toString('hex')), object, { signal })
  return object.length
}

/** Objects in memory. `before` is called before each call takes effect: a test can hold it, fail it, or stop the world there. */
import type { GetOptions, ObjectFacts, PutOptions, Target } from '../../../src/backup/targets/target.js'

export type Before = (call: string, name: string, who: string) => Promise<void>

export interface Shared {
  readonly objects: Map<string, { bytes: Buffer; modifiedMs: number }>
  nowMs: number
}

export class MemoryTarget implements Target {
  readonly place = 'memory'
  readonly concurrentMax = 2
  readonly shared: Shared
  readonly who: string
  isExclusiveTarget = true
  readonly #before: Before

  constructor(shared: Shared = { objects: new Map(), nowMs: 0 }, who = '', before: Before = async () => {}) {
    this.shared = shared
    this.who = who
    this.#before = before
  }

  async get(name: string, { range }: GetOptions = {}): Promise<Buffer | undefined> {
    await this.#before('get', name, this.who)
    const bytes = this.shared.objects.get(name)?.bytes
    return bytes && (range ? bytes.subarray(range.from, range.from + range.length) : bytes)
  }

  async put(name: string, bytes: Uint8Array, { ifAbsent = false }: PutOptions = {}): Promise<boolean> {
    await this.#before('put', name, this.who)
    if (ifAbsent && this.shared.objects.has(name)) return false
    this.shared.objects.set(name, { bytes: Buffer.from(bytes), modifiedMs: this.shared.nowMs })
    return true
  }

  async list(prefix: string): Promise<ObjectFacts[]> {
    await this.#before('list', prefix, this.who)
    return [...this.shared.objects].flatMap(([name, { bytes, modifiedMs }]) =>
      name.startsWith(prefix) ? { name, bytes: bytes.length, modifiedMs } : [],
    )
  }

  async delete(name: string): Promise<void> {
    await this.#before('delete', name, this.who)
    this.shared.objects.delete(name)
  }

  async isEmpty(): Promise<boolean> {
    return this.shared.objects.size === 0
  }

  async nowMs(): Promise<number> {
    return this.shared.nowMs
  }

  async isExclusive(): Promise<boolean> {
    return this.isExclusiveTarget
  }

  async sweep(): Promise<void> {}
  async close(): Promise<void> {}
}

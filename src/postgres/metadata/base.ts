/** What a mutator's decision rests on: rows that are known here, perhaps no longer true, and which of them were looked at. The database compares
 *  exactly those when the change is committed, so a mutator that reads one entry contends with nobody who changes another. */
import type { EntryRow } from './rows.js'

/** Thrown at a mutator that asks for what has not been fetched yet: it runs again when it has been. */
export class Starved extends Error {}

export class Base {
  /** undefined: there is none. */
  readonly #rows: Map<string, EntryRow | undefined>
  /** All entries are in `rows`. */
  readonly whole: boolean
  /** Keys that were looked at, and whether all were. */
  readonly reads = new Set<string>()
  readsAll = false
  /** Something was asked for that is not known here. */
  starved = false

  constructor(rows: Map<string, EntryRow | undefined>, whole: boolean) {
    this.#rows = rows
    this.whole = whole
  }

  get(key: string): EntryRow | undefined {
    this.reads.add(key)
    if (this.whole || this.#rows.has(key)) return this.#rows.get(key)
    this.starved = true
    throw new Starved()
  }

  keys(): Iterable<string> {
    this.readsAll = true
    if (this.whole) return this.#rows.keys()
    this.starved = true
    throw new Starved()
  }

  get size(): number {
    this.keys()
    return this.#rows.size
  }
}

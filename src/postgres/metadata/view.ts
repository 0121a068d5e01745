/** What a mutator sees: what is committed, as far as it looks, with its own changes laid over it. */
import { StoreError } from '../../errors.js'
import type { Entry, SessionsView } from '../../types.js'
import type { Base } from './base.js'
import { deepFreeze, type EntryRow, entryOf } from './rows.js'

type Fields = Record<string, unknown>

interface Below {
  get(key: string): EntryRow | undefined
  keys(): Iterable<string>
  readonly size: number
}

/** Changes laid over what is below. undefined: deleted. */
export class Overlay implements Below {
  readonly changes = new Map<string, EntryRow | undefined>()
  readonly #below: Below

  constructor(below: Base | Overlay) {
    this.#below = below
  }

  get(key: string): EntryRow | undefined {
    return this.changes.has(key) ? this.changes.get(key) : this.#below.get(key)
  }

  *keys(): Generator<string> {
    for (const key of this.#below.keys()) if (!this.changes.has(key) || this.changes.get(key)) yield key
    for (const [key, row] of this.changes) if (row && !this.#below.get(key)) yield key
  }

  get size(): number {
    let { size } = this.#below
    for (const [key, row] of this.changes) size += (row ? 1 : 0) - (this.#below.get(key) ? 1 : 0)
    return size
  }

  merge(other: Overlay): void {
    for (const [key, row] of other.changes) this.changes.set(key, row)
  }
}

export interface ViewTools {
  mintId(): string
  nowMs(): number
  checkKey(key: unknown): asserts key is string
}

/** A mutator's view. Once closed it refuses to be used. */
export class MutatorView implements SessionsView<Fields> {
  readonly #overlay: Overlay
  readonly #tools: ViewTools
  /** Of those in the overlay, which this view has made or changed: a commit raises a revision once. */
  readonly #changed = new Set<string>()
  #open = true

  constructor(overlay: Overlay, tools: ViewTools) {
    this.#overlay = overlay
    this.#tools = tools
  }

  close(): void {
    this.#open = false
  }

  get(key: string): Entry | undefined {
    this.#assertOpen()
    const row = this.#overlay.get(key)
    return row && entryOf(row)
  }

  has(key: string): boolean {
    this.#assertOpen()
    return this.#overlay.get(key) !== undefined
  }

  set(key: string, fields: Fields): Entry {
    this.#assertOpen()
    this.#tools.checkKey(key)
    return this.#put(key, fields, this.#overlay.get(key))
  }

  patch(key: string, fields: Fields): Entry {
    this.#assertOpen()
    this.#tools.checkKey(key)
    const row = this.#overlay.get(key)
    return this.#put(key, { ...(row && entryOf(row)), ...fields }, row)
  }

  delete(key: string): boolean {
    this.#assertOpen()
    if (!this.#overlay.get(key)) return false
    this.#overlay.changes.set(key, undefined)
    this.#changed.delete(key)
    return true
  }

  *keys(): IterableIterator<string> {
    this.#assertOpen()
    yield* this.#overlay.keys()
  }

  *entries(): IterableIterator<[string, Entry]> {
    this.#assertOpen()
    for (const key of this.#overlay.keys()) yield [key, entryOf(this.#overlay.get(key)!)]
  }

  get size(): number {
    this.#assertOpen()
    return this.#overlay.size
  }

  #put(key: string, fields: Fields, before: EntryRow | undefined): Entry {
    assertObject(key, fields)
    const nowMs = this.#tools.nowMs()
    // What the caller says of the store's own fields counts for nothing.
    const { sessionId: _, createdAt: __, updatedAt: ___, revision: ____, ...theirs } = fields
    const row: EntryRow = {
      sessionId: before?.sessionId ?? this.#tools.mintId(),
      createdAt: before?.createdAt ?? nowMs,
      updatedAt: Math.max(nowMs, before?.updatedAt ?? 0),
      revision: (before?.revision ?? 0) + (this.#changed.has(key) ? 0 : 1),
      fields: fieldsJson(key, theirs),
      change: 0,
      entry: undefined,
    }
    this.#overlay.changes.set(key, row)
    this.#changed.add(key)
    return deepFreeze(entryOf(row))
  }

  #assertOpen(): void {
    if (this.#open) return
    throw new StoreError('ASYNC_MUTATOR', 'the view of a mutator was used after the mutator had returned.', {
      hint: 'Do all reading and changing synchronously inside the mutator; what it returns is handed to the caller.',
    })
  }
}

function assertObject(key: string, fields: unknown): void {
  if (typeof fields === 'object' && fields !== null && !Array.isArray(fields)) {
    if (typeof (fields as Fields).toJSON !== 'function') return
    throw new StoreError('INVALID_ENTRY', `the entry of ${JSON.stringify(key)} has a function toJSON.`, {
      details: { key },
      hint: 'Nothing was written. Entries hold JSON values only.',
    })
  }
  const what = fields === null ? 'null' : Array.isArray(fields) ? 'an array' : typeof fields
  throw new StoreError('INVALID_ENTRY', `the entry of ${JSON.stringify(key)} must be an object, not ${what}.`, {
    details: { key },
    hint: 'Nothing was written. A mutator returns the whole entry, such as { ...entry, model: "x" }.',
  })
}

function fieldsJson(key: string, fields: Fields): string {
  try {
    return JSON.stringify(fields)
  } catch (error) {
    throw new StoreError('INVALID_ENTRY', `the entry of ${JSON.stringify(key)} cannot be written as JSON: ${(error as Error).message}.`, {
      details: { key },
      cause: error,
      hint: 'Nothing was written. Entries hold JSON values only.',
    })
  }
}

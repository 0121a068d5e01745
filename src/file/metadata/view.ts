/** What a mutator sees: the committed entries with its own changes laid over them. A change that is not committed leaves no trace. */
import { StoreError } from '../../errors.js'
import type { Entry, SessionsView } from '../../types.js'
import { type Cell, type Cells, cellOf, deepFreeze, entryOf, markOf } from './cells.js'
import { type HighWaterMark, withMark } from './mark.js'

export interface Change {
  readonly key: string
  /** undefined: deleted. */
  readonly cell: Cell | undefined
  /** The entry's JSON text. */
  readonly json: string
  /** The session that the key named before and no longer names. */
  readonly dropped: string | undefined
  /** The entry under which it did. */
  readonly last?: Entry | undefined
}

type Fields = Record<string, unknown>

/** Changes of the batch so far, laid over the committed cells. */
export class Overlay {
  readonly changes = new Map<string, Change>()
  #below: { get(key: string): Cell | undefined }
  #cells: Cells

  constructor(cells: Cells, below?: Overlay) {
    this.#cells = cells
    this.#below = below ?? cells
  }

  get(key: string): Cell | undefined {
    const change = this.changes.get(key)
    return change ? change.cell : this.#below.get(key)
  }

  /** Every key with what it stands for now. */
  *all(): IterableIterator<[string, Cell]> {
    const layers: Overlay[] = []
    for (let layer: unknown = this; layer instanceof Overlay; layer = layer.#below) layers.push(layer)
    for (const key of this.#cells.keys()) {
      const cell = this.get(key)
      if (cell) yield [key, cell]
    }
    const seen = new Set<string>()
    for (const layer of layers.reverse()) {
      for (const key of layer.changes.keys()) {
        if (this.#cells.has(key) || seen.has(key)) continue
        seen.add(key)
        const cell = this.get(key)
        if (cell) yield [key, cell]
      }
    }
  }

  get size(): number {
    let size = this.#below instanceof Overlay ? this.#below.size : this.#cells.size
    for (const [key, { cell }] of this.changes) size += (cell ? 1 : 0) - (this.#below.get(key) ? 1 : 0)
    return size
  }

  merge(other: Overlay): void {
    for (const [key, change] of other.changes) this.changes.set(key, change)
  }
}

export interface ViewTools {
  mintId(): string
  nowMs(): number
  /** Refuses keys that are none. */
  checkKey(key: unknown): asserts key is string
}

/** A mutator's view. Once closed it refuses to be used. */
export class MutatorView implements SessionsView<Fields> {
  #overlay: Overlay
  #tools: ViewTools
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
    const cell = this.#overlay.get(key)
    return cell && entryOf(cell)
  }

  has(key: string): boolean {
    this.#assertOpen()
    return this.#overlay.get(key) !== undefined
  }

  set(key: string, fields: Fields): Entry {
    this.#assertOpen()
    this.#tools.checkKey(key)
    return this.#put(key, fields)
  }

  patch(key: string, fields: Fields): Entry {
    this.#assertOpen()
    this.#tools.checkKey(key)
    const cell = this.#overlay.get(key)
    return this.#put(key, { ...(cell && entryOf(cell)), ...fields })
  }

  delete(key: string): boolean {
    this.#assertOpen()
    const cell = this.#overlay.get(key)
    if (!cell) return false
    const { changes } = this.#overlay
    const before = changes.get(key)
    const last = entryOf(cell)
    const was = before?.dropped === undefined ? { dropped: last.sessionId, last } : { dropped: before.dropped, last: before.last }
    changes.set(key, { key, cell: undefined, json: '', ...was })
    return true
  }

  *keys(): IterableIterator<string> {
    this.#assertOpen()
    for (const [key] of this.#overlay.all()) yield key
  }

  *entries(): IterableIterator<[string, Entry]> {
    this.#assertOpen()
    for (const [key, cell] of this.#overlay.all()) yield [key, entryOf(cell)]
  }

  get size(): number {
    this.#assertOpen()
    return this.#overlay.size
  }

  #put(key: string, fields: Fields): Entry {
    const before = this.#overlay.get(key)
    assertNoMark(key, fields)
    const kept = { pending: this.#overlay.changes.get(key), mark: before && markOf(before) }
    const change = changed(key, before && entryOf(before), fields, this.#tools, kept)
    this.#overlay.changes.set(key, change)
    return entryOf(change.cell!)
  }

  #assertOpen(): void {
    if (this.#open) return
    throw new StoreError('ASYNC_MUTATOR', 'the view of a mutator was used after the mutator had returned.', {
      hint: 'Do all reading and changing synchronously inside the mutator; what it returns is handed to the caller.',
    })
  }
}

/** @throws INVALID_ENTRY  it would be taken for a mark. */
export function assertNoMark(key: string, fields: Fields): void {
  if (typeof fields !== 'object' || fields === null || !Object.hasOwn(fields, '$')) return
  throw new StoreError('INVALID_ENTRY', `the entry of ${JSON.stringify(key)} has a field $, which is the store's own.`, {
    details: { key },
    hint: 'Nothing was written. Put the value under another name.',
  })
}

/** What goes on from the state before: what the same commit has already changed, and how far the transcript is known to be on the disk. */
export interface Kept {
  readonly pending?: Change | undefined
  readonly mark?: HighWaterMark | undefined
}

/** The entry that follows: the store's fields are the store's, whatever the caller hands back. Revision grows by one per commit.
 *  @param sessionId  the key's session from now on, where that changes */
export function changed(
  key: string,
  before: Entry | undefined,
  fields: Fields,
  tools: ViewTools,
  { pending, mark }: Kept,
  sessionId?: string,
): Change {
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
    throw new StoreError(
      'INVALID_ENTRY',
      `the entry of ${JSON.stringify(key)} must be an object, not ${fields === null ? 'null' : Array.isArray(fields) ? 'an array' : typeof fields}.`,
      {
        details: { key },
        hint: 'Nothing was written. A mutator returns the whole entry, such as { ...entry, model: "x" }.',
      },
    )
  const nowMs = tools.nowMs()
  // Named first so that they stand first, set last so that the store's word counts.
  const entry: Fields = { sessionId: '', createdAt: 0, updatedAt: 0, revision: 0, ...fields }
  entry.sessionId = sessionId ?? before?.sessionId ?? tools.mintId()
  entry.createdAt = before?.createdAt ?? nowMs
  entry.updatedAt = Math.max(nowMs, before?.updatedAt ?? 0)
  entry.revision = (before?.revision ?? 0) + (pending?.cell ? 0 : 1)
  const plain = entryJson(key, entry)
  const json = withMark(plain, mark)
  // A copy of what JSON makes of it: neither the caller's later edits nor what JSON cannot hold may differ from what is on disk.
  const stored = (isItsOwnJson(entry, before) ? Object.freeze(entry) : deepFreeze(JSON.parse(plain))) as Entry
  return { key, cell: cellOf(stored, json), json, dropped: pending?.dropped, last: pending?.last }
}

/** Whether the entry equals what reading its JSON back would give: only plain values, or parts of the frozen entry before. */
function isItsOwnJson(entry: Fields, before: Entry | undefined): boolean {
  for (const name in entry) {
    const value = entry[name]
    if (typeof value === 'string' || typeof value === 'boolean' || value === null) continue
    if (typeof value === 'number' && Number.isFinite(value) && !Object.is(value, -0)) continue
    if (typeof value === 'object' && before !== undefined && value === (before as Fields)[name]) continue
    return false
  }
  return true
}

function entryJson(key: string, entry: Fields): string {
  if (typeof entry.toJSON === 'function')
    throw new StoreError('INVALID_ENTRY', `the entry of ${JSON.stringify(key)} has a function toJSON.`, {
      details: { key },
      hint: 'Nothing was written. Entries hold JSON values only.',
    })
  try {
    return JSON.stringify(entry)
  } catch (error) {
    throw new StoreError('INVALID_ENTRY', `the entry of ${JSON.stringify(key)} cannot be written as JSON: ${(error as Error).message}.`, {
      details: { key },
      cause: error,
      hint: 'Nothing was written. Entries hold JSON values only.',
    })
  }
}

/** Whose session a change is about, for diagnostics. */
export function aboutOf({ key, cell, dropped }: Change): { key: string; sessionId: string | undefined } {
  return { key, sessionId: cell ? entryOf(cell).sessionId : dropped }
}

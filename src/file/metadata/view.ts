/** What a mutator sees: the committed entries with its own changes laid over them. A change that is not committed leaves no trace. */
import { StoreError } from '../../errors.js'
import type { Entry, SessionsView } from '../../types.js'
import { type Cell, type Cells, cellOf, deepFreeze, entryOf } from './cells.js'

export interface Change {
  readonly key: string
  /** undefined: deleted. */
  readonly cell: Cell | undefined
  /** The entry's JSON text. */
  readonly json: string
  /** The session that the key named before and no longer names. */
  readonly dropped: string | undefined
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

/** A mutator's view and the way to end it: afterwards it refuses to be used. */
export function openView(overlay: Overlay, tools: ViewTools): { view: SessionsView<Fields>; close(): void } {
  let open = true
  const alive = () => {
    if (!open)
      throw new StoreError('ASYNC_MUTATOR', 'the view of a mutator was used after the mutator had returned.', {
        hint: 'Do all reading and changing synchronously inside the mutator; what it returns is handed to the caller.',
      })
  }
  const put = (key: string, fields: Fields): Entry => {
    const before = overlay.get(key)
    const change = changed(key, before && entryOf(before), fields, tools, overlay.changes.get(key))
    overlay.changes.set(key, change)
    return entryOf(change.cell!)
  }
  const view: SessionsView<Fields> = {
    get(key) {
      alive()
      const cell = overlay.get(key)
      return cell && entryOf(cell)
    },
    has(key) {
      alive()
      return overlay.get(key) !== undefined
    },
    set(key, fields) {
      alive()
      tools.checkKey(key)
      return put(key, fields)
    },
    patch(key, fields) {
      alive()
      tools.checkKey(key)
      const cell = overlay.get(key)
      return put(key, { ...(cell && entryOf(cell)), ...(fields as Fields) })
    },
    delete(key) {
      alive()
      const cell = overlay.get(key)
      if (!cell) return false
      overlay.changes.set(key, { key, cell: undefined, json: '', dropped: overlay.changes.get(key)?.dropped ?? entryOf(cell).sessionId })
      return true
    },
    *keys() {
      alive()
      for (const [key] of overlay.all()) yield key
    },
    *entries() {
      alive()
      for (const [key, cell] of overlay.all()) yield [key, entryOf(cell)]
    },
    get size() {
      alive()
      return overlay.size
    },
  }
  return {
    view,
    close() {
      open = false
    },
  }
}

const own = ['sessionId', 'createdAt', 'updatedAt', 'revision']

/** The entry that follows: the store's fields are the store's, whatever the caller hands back. Revision grows by one per commit. */
export function changed(
  key: string,
  before: Entry | undefined,
  fields: Fields,
  tools: ViewTools,
  pending: Change | undefined,
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
  const entry: Fields = {
    sessionId: sessionId ?? before?.sessionId ?? tools.mintId(),
    createdAt: before?.createdAt ?? nowMs,
    updatedAt: Math.max(nowMs, before?.updatedAt ?? 0),
    revision: (before?.revision ?? 0) + (pending?.cell ? 0 : 1),
  }
  for (const [name, value] of Object.entries(fields))
    if (!own.includes(name)) Object.defineProperty(entry, name, { value, enumerable: true, configurable: true, writable: true })
  const json = entryJson(key, entry)
  const parsed = deepFreeze(JSON.parse(json)) as Entry
  return { key, cell: cellOf(parsed, json), json, dropped: pending?.dropped }
}

function entryJson(key: string, entry: Fields): string {
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

/** The entries in memory: each as the bytes it has on disk, parsed when somebody asks for it. Ten thousand sessions cost their bytes. */
import { StoreError } from '../../errors.js'
import type { Entry } from '../../types.js'
import { type HighWaterMark, markAt, withMark } from './mark.js'

export interface Cell {
  /** Where the entry's JSON text is. */
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  entry: Entry | undefined
}

export type Cells = Map<string, Cell>

/** The entry, frozen to its depths: an in-place edit fails loudly instead of looking saved. */
export function entryOf(cell: Cell): Entry {
  cell.entry ??= deepFreeze(asEntry(JSON.parse(plainJson(cell))))
  return cell.entry
}

/** The entry's JSON text as its user would have it. */
function plainJson({ bytes, start, end }: Cell): string {
  const found = markAt(bytes, start, end)
  return found ? `${bytes.toString('utf8', start, found.at)}}` : bytes.toString('utf8', start, end)
}

/** How far the transcript of that session is known to be on the disk. */
export function markOf({ bytes, start, end }: Cell): HighWaterMark | undefined {
  return markAt(bytes, start, end)?.mark
}

/** The same entry, with this mark and no other. */
export function remarked(cell: Cell, mark: HighWaterMark): { cell: Cell; json: string } {
  const json = withMark(plainJson(cell), mark)
  const bytes = Buffer.from(json)
  return { json, cell: { bytes, start: 0, end: bytes.length, entry: cell.entry } }
}

/** The same for one who looks at all of them once: what is parsed is not kept. */
export function passingEntryOf(cell: Cell): Entry {
  return cell.entry ?? asEntry(JSON.parse(plainJson(cell)))
}

const sessionIdPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Files are named by session id: one that the store cannot have minted must not become a path. Checked by hand, for it is on the way of
 *  every first look at an entry. */
function asEntry(value: unknown): Entry {
  const entry = value as Entry | null
  const sound =
    typeof entry === 'object' &&
    entry !== null &&
    typeof entry.sessionId === 'string' &&
    sessionIdPattern.test(entry.sessionId) &&
    [entry.createdAt, entry.updatedAt, entry.revision].every(Number.isFinite)
  if (sound) return entry
  throw new StoreError('STORE_CORRUPT', 'the metadata holds an entry that this store cannot have written.', {
    details: { file: 'sessions.json', entry: JSON.stringify(value)?.slice(0, 200) },
    hint: 'Nothing was written. An entry has a sessionId (a UUID), createdAt, updatedAt and revision; put it right or restore the pair from the same moment.',
  })
}

export function cellOf(entry: Entry, json: string): Cell {
  const bytes = Buffer.from(json)
  return { bytes, start: 0, end: bytes.length, entry }
}

export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}

/** The end of the JSON string that begins at `start` (the place of its closing quote), and whether it holds escapes. */
export function stringEnd(bytes: Buffer, start: number): { end: number; escaped: boolean } {
  let escaped = false
  for (let at = start + 1; ; at++) {
    const byte = bytes[at]
    if (byte === 0x22) return { end: at, escaped }
    if (byte === 0x5c) {
      escaped = true
      at++
    }
    if (byte === undefined) return { end: -1, escaped }
  }
}

export function stringAt(bytes: Buffer, start: number, found: { end: number; escaped: boolean }): string {
  const text = bytes.toString('utf8', start, found.end + 1)
  return found.escaped ? (JSON.parse(text) as string) : text.slice(1, -1)
}

/** Rows of `entries`, and the entries that they are. */
import { StoreError } from '../../errors.js'
import type { Entry } from '../../types.js'
import type { Row } from '../database.js'

export interface EntryRow {
  readonly sessionId: string
  readonly revision: number
  readonly createdAt: number
  readonly updatedAt: number
  /** The caller's fields, as JSON text. */
  readonly fields: string
  /** Grows with every change of any entry; 0: not committed yet. */
  readonly change: number
  entry: Entry | undefined
}

export function rowOf({ session_id, revision, created_at, updated_at, fields, change }: Row): EntryRow {
  return {
    sessionId: session_id as string,
    revision: Number(revision),
    createdAt: Number(created_at),
    updatedAt: Number(updated_at),
    fields: fields as string,
    change: Number(change),
    entry: undefined,
  }
}

/** Frozen to its depths: an in-place edit fails loudly instead of looking saved (F18). */
export function entryOf(row: EntryRow): Entry {
  row.entry ??= deepFreeze(parsedEntry(row))
  return row.entry
}

function parsedEntry({ sessionId, createdAt, updatedAt, revision, fields }: EntryRow): Entry {
  try {
    return { sessionId, createdAt, updatedAt, revision, ...(JSON.parse(fields) as object) }
  } catch (cause) {
    throw new StoreError('STORE_CORRUPT', `the fields of session ${sessionId} are not JSON.`, {
      details: { sessionId, fields: fields.slice(0, 200) },
      cause,
      hint: 'Nothing was written. Something other than this library has changed the table entries; restore the row from a backup.',
    })
  }
}

export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}

/** The id under which a line of a source is appended, so that importing it again adds nothing.
 *
 *  It is made of the source's session id and of what the line says, not of where it stands or of the entry id it carries: pi rewrites a
 *  version 1 file when it opens it and gives every entry a random id, and drops lines it cannot read. A line number would then name
 *  another line, and a line that is new would be taken for an old one. What those rewrites change is left out of the digest. Of lines
 *  that say the same, the second is `.2`, the third `.3`. */
import { createHash } from 'node:crypto'

type Fields = Readonly<Record<string, unknown>>

export interface LineIds {
  /** Of the next line of the file. */
  next(record: Fields): string
}

const prefix = 'import:'

export function lineIds(sourceId: string): LineIds {
  const seen = new Map<string, number>()
  const mine = sourcePrefix(sourceId)
  return {
    next(record) {
      const digest = digestOf(JSON.stringify(unmigrated(record)))
      const nth = (seen.get(digest) ?? 0) + 1
      seen.set(digest, nth)
      return `${mine}${digest}${nth > 1 ? `.${nth}` : ''}`
    },
  }
}

/** Begins the ids of all lines of one source, and of no other. */
export function sourcePrefix(sourceId: string): string {
  const short = sourceId.length <= 128 && !/[:\p{Cc}\p{Cs}]/u.test(sourceId)
  return `${prefix}${short ? sourceId : digestOf(sourceId)}:`
}

export function isImported(id: string | undefined): boolean {
  return id?.startsWith(prefix) === true
}

/** A digest of fields that does not depend on their order. */
export function fieldsDigest(fields: Fields): string {
  return digestOf(JSON.stringify(ordered(fields)))
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

/** The entry without what pi's own migrations (1 to 2 to 3) add, drop or rename. */
function unmigrated(record: Fields): Fields {
  if (record.type === 'session') {
    const { version: _version, ...header } = record
    return header
  }
  const { id: _id, parentId: _parentId, firstKeptEntryIndex: _index, firstKeptEntryId: _kept, ...entry } = record
  const message = entry.message as Fields | null | undefined
  return message?.role === 'hookMessage' ? { ...entry, message: { ...message, role: 'custom' } } : entry
}

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== 'object' || value === null) return value
  const names = Object.keys(value).sort()
  return Object.fromEntries(names.map((name) => [name, ordered((value as Fields)[name])]))
}

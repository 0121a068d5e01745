/** Decides, before anything is written, how a source meets what the store already has under its key. Pure. */
import type { Entry } from '../../index.js'
import { fieldsDigest } from './identity.js'
import type { Imported } from './source.js'

/** What the transcript that the key names now consists of. */
export interface Present {
  /** Ids of records that came from this very source. */
  readonly mine: ReadonlySet<string>
  /** Records that an import brought from another source. */
  readonly othersImported: number
  /** Records that somebody has written here. */
  readonly own: number
}

export type Meeting =
  /** Append what is not there yet. */
  | { readonly kind: 'append' }
  /** The key names a new conversation at the source, and nobody but imports has written here: close the old one, begin anew. */
  | { readonly kind: 'rotate' }
  /** This source was taken before and the session has been rotated here since: its records are in the archive. */
  | { readonly kind: 'archived'; readonly records: number }
  /** Two conversations would become one. */
  | { readonly kind: 'refused'; readonly why: string }

export interface Wish {
  readonly format: Imported['format']
  readonly sessionId: string
  /** Somebody has asked for mixing. */
  readonly merge: boolean
}

export function planMeeting(present: Present, entry: Entry | undefined, wish: Wish): Meeting {
  const before = importedOf(entry)
  const again = before?.sessionId === wish.sessionId
  if (!wish.merge && again && before.into !== undefined && before.into !== entry?.sessionId)
    return { kind: 'archived', records: before.records ?? 0 }
  if (wish.merge || present.mine.size > 0 || present.othersImported + present.own === 0) return { kind: 'append' }
  if (present.own === 0 && wish.format === 'openclaw') return { kind: 'rotate' }
  const whose = present.own > 0 ? 'records of its own' : 'records of another import'
  return { kind: 'refused', why: `the store has a session under this key with ${whose}; --key names another one, --merge appends to it` }
}

export function importedOf(entry: Entry | undefined): Imported | undefined {
  const imported = entry?.imported as Imported | undefined
  return typeof imported === 'object' && imported !== null && typeof imported.sessionId === 'string' ? imported : undefined
}

type Fields = Readonly<Record<string, unknown>>

export interface EntryPlan {
  /** The user's part of the entry as it should be; undefined when it is so already. */
  readonly fields: Fields | undefined
  readonly note: string | undefined
}

/** Fields of the source replace those of the entry only while nobody has changed these here.
 *  @param offered  the fields that the source has
 *  @param facts  what goes under `imported` */
export function planEntry(entry: Entry | undefined, offered: Fields, facts: Imported): EntryPlan {
  const mine = userFields(entry)
  const before = importedOf(entry)
  const digest = fieldsDigest(offered)
  const untouched = entry === undefined || (before?.fields !== undefined && before.fields === fieldsDigest(mine))
  const unchanged = before?.fields === digest
  const take = untouched || Object.keys(mine).length === 0
  const imported: Imported = { ...facts, fields: take || unchanged ? digest : (before?.fields ?? fieldsDigest({})) }
  const fields = { ...(take ? offered : mine), imported }
  const note =
    take || unchanged || Object.keys(offered).length === 0
      ? undefined
      : 'its fields have been changed here; those of the source were not taken'
  const same =
    entry !== undefined &&
    fieldsDigest(fields) === fieldsDigest({ ...mine, ...(entry.imported === undefined ? {} : { imported: entry.imported }) })
  return { fields: same ? undefined : fields, note }
}

function userFields(entry: Entry | undefined): Fields {
  if (!entry) return {}
  const { sessionId: _id, createdAt: _created, updatedAt: _updated, revision: _revision, imported: _imported, ...fields } = entry
  return fields
}

/** What killed processes leave beside the data, told from its name alone. Exact patterns: whatever else stands there is somebody else's (F30). */
import { parseEntry, parseMaker } from '../../file/lock/holder.js'
import type { Holder } from '../../file/lock/staleness.js'

export type Leftover =
  /** A lock that was just being made: a directory with at most one empty one in it. */
  | { readonly kind: 'making'; readonly holder: Holder }
  /** A file that was being made, to take a transcript's place. */
  | { readonly kind: 'prepared'; readonly holder: Holder }
  /** A place in line for a lock. */
  | { readonly kind: 'ticket'; readonly holder: Holder }
  /** A file that was written beside its target, to be renamed over it. Its name does not say whose. */
  | { readonly kind: 'part'; readonly of: string }

const uuid = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
const preparedPattern = new RegExp(`^${uuid}\\.(new-.+)$`)
/** Of `writeWholeFile`, with what write-file-atomic adds while it writes. */
const partPattern = new RegExp(`^(${uuid}(?:\\.\\d{1,16})?\\.(?:json|jsonl\\.gz)|note\\.json)\\.part-[0-9a-f]{16}(?:\\.\\d{1,10})?$`)

/** In a directory of locks. */
export function makingOf(name: string): Leftover | undefined {
  const at = name.lastIndexOf('.new-')
  const holder = at > 0 ? parseMaker(name.slice(at + 1)) : undefined
  return holder && { kind: 'making', holder }
}

/** In `locks/prepared`. */
export function preparedOf(name: string): Leftover | undefined {
  const [, maker = ''] = preparedPattern.exec(name) ?? []
  const holder = parseMaker(maker)
  return holder && { kind: 'prepared', holder }
}

/** In the queue of a lock. */
export function ticketOf(name: string): Leftover | undefined {
  const entry = parseEntry(name)
  return entry?.state === 'held' ? { kind: 'ticket', holder: entry.holder } : undefined
}

/** In archive/ and in the directories of quarantine/. */
export function partOf(name: string): Leftover | undefined {
  const of = partPattern.exec(name)?.[1]
  return of === undefined ? undefined : { kind: 'part', of }
}

/** Whose the transcripts are, as the metadata say. */
import { isStoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { passingEntryOf } from '../../file/metadata/cells.js'
import { type HighWaterMark, markAt } from '../../file/metadata/mark.js'

export interface Owner {
  readonly key: string
  readonly entry: { readonly sessionId: string; readonly createdAt: number }
  /** How far the transcript is known to have been on the disk. */
  readonly mark: HighWaterMark | undefined
}

/** Whose a transcript is, by its session id. */
export type Owners = ReadonlyMap<string, Owner>

/** undefined when that cannot be told. */
export async function ownersIn({ metadata }: Inside): Promise<Owners | undefined> {
  const owners = new Map<string, Owner>()
  const cells = await metadata.cells().catch((error: unknown) => {
    if (isStoreError(error) && error.kind === 'damaged') return undefined
    throw error
  })
  if (!cells) return undefined
  for (const [key, cell] of cells) {
    const entry = passingEntryOf(cell)
    owners.set(entry.sessionId, { key, entry, mark: markAt(cell.bytes, cell.start, cell.end)?.mark })
  }
  return owners
}

export function ownersOf(entries: readonly (readonly [key: string, json: Buffer])[]): Owners {
  const owners = new Map<string, Owner>()
  for (const [key, json] of entries) {
    const entry = JSON.parse(json.toString()) as Owner['entry']
    owners.set(entry.sessionId, { key, entry, mark: markAt(json, 0, json.length)?.mark })
  }
  return owners
}

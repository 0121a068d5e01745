/** Chunks on their way from packs that are to go into new ones. */
import { isStoreError } from '../../errors.js'
import { ChunkIndex, type Holdings, indexOf } from './chunk-index.js'
import { Packing } from './packing.js'
import type { Shelf } from './shelf.js'
import { freshName } from './vault.js'

/** @returns those that could not be read: their packs must stay. */
export async function rewriteChunks(
  shelf: Shelf,
  holdings: Holdings,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<ReadonlySet<string>> {
  const failed = new Set<string>()
  if (names.length === 0) return failed
  const index = indexOf(holdings, true)
  // Of nothing else it may be said that it is there already: the places that it is in are to go.
  const packing = new Packing(shelf.vault, { known: new ChunkIndex(), by: `prune-${freshName().slice(0, 16)}`, signal })
  const places = names.flatMap((name) => index.find(name) ?? [])
  places.sort((a, b) => (a.line.pack === b.line.pack ? a.at[1] - b.at[1] : a.line.pack < b.line.pack ? -1 : 1))
  for (const { line, at } of places) {
    try {
      await packing.add(at[0], await shelf.packs.chunk(index, [at[0], at[3]], signal), line.of)
    } catch (error) {
      if (!isStoreError(error, 'BACKUP_MISMATCH')) throw error
      failed.add(at[0])
    }
  }
  await packing.finish()
  return failed
}

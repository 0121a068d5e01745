/** Chunks on their way from packs that are to go into new ones, and packs that the index does not know. */
import { isStoreError } from '../../errors.js'
import { ChunkIndex, type Holdings, indexOf } from './chunk-index.js'
import { type PackLine, tableOf } from './pack.js'
import { Packing } from './packing.js'
import type { Shelf } from './shelf.js'
import { freshName, packName } from './vault.js'

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

/** Packs that are there and stand in no line of the index: an interrupted backup has left them, or a part of the index is damaged. */
export function strayPacks(holdings: Holdings): string[] {
  const known = new Set([...holdings.indexes.values()].flat().map(({ pack }) => pack))
  return [...holdings.packs.keys()].filter((pack) => !known.has(pack))
}

/** What a stray pack says of itself; undefined when it cannot be read. */
export async function lineOfStray({ vault }: Shelf, pack: string, signal?: AbortSignal): Promise<PackLine | undefined> {
  const name = packName(vault, pack)
  const object = await vault.target.get(name, { signal })
  if (!object) return undefined
  for (const of of ['catalogue', 'contents'] as const) {
    if (of === 'contents' && !vault.keyring.canReadContents) continue
    try {
      return await tableOf(vault, pack, object, await vault.keyring.unwrap(object, of, name))
    } catch (error) {
      if (!isStoreError(error, 'BACKUP_MISMATCH')) throw error
    }
  }
  return undefined
}

/** Packs that the index does not know. */
import { isStoreError } from '../../errors.js'
import type { Holdings } from './chunk-index.js'
import { type PackLine, tableOf } from './pack.js'
import { packName, type Vault } from './vault.js'

/** Packs that are there and stand in no line of the index: an interrupted backup has left them, or a part of the index is damaged. */
export function strayPacks(holdings: Holdings): string[] {
  const known = new Set([...holdings.indexes.values()].flat().map(({ pack }) => pack))
  return [...holdings.packs.keys()].filter((pack) => !known.has(pack))
}

/** What a stray pack says of itself; undefined when it cannot be read. */
export async function lineOfStray(vault: Vault, pack: string, signal?: AbortSignal): Promise<PackLine | undefined> {
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

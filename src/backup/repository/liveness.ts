/** Which chunks some snapshot names. */
import { isStoreError, StoreError } from '../../errors.js'
import type { Shelf } from './shelf.js'
import { timeOfSnapshot } from './vault.js'

/** Grows while one prune runs: what a snapshot named that was forgotten meanwhile goes with the next. */
export interface Liveness {
  readonly chunks: Set<string>
  readonly snapshots: Set<string>
}

/** Reads the manifests that have come since.
 *  @throws BACKUP_MISMATCH  one cannot be read: nobody knows what it needs. */
export async function readLiveness(shelf: Shelf, live: Liveness, signal?: AbortSignal): Promise<void> {
  const ids = (await shelf.ids(signal)).filter((id) => !live.snapshots.has(id)).sort((a, b) => timeOfSnapshot(a) - timeOfSnapshot(b))
  for (const id of ids) {
    signal?.throwIfAborted()
    try {
      await readSnapshot(shelf, id, live, signal)
    } catch (error) {
      if (!isStoreError(error, 'BACKUP_MISMATCH')) throw error
      if (!(await shelf.ids(signal)).includes(id)) continue // Forgotten while we read it.
      throw new StoreError('BACKUP_MISMATCH', `The manifest of ${id} cannot be read, so nobody knows what it needs. Nothing was removed.`, {
        details: { snapshot: id },
        cause: error,
        hint: 'Run `holdfast backup check`; if that snapshot is lost, forget it by its id, then prune.',
      })
    }
  }
}

async function readSnapshot(shelf: Shelf, id: string, live: Liveness, signal?: AbortSignal): Promise<void> {
  const root = await shelf.root(id, signal)
  if (!root) return // Given up, or forgotten meanwhile.
  const { files } = await shelf.manifestOf(root, signal)
  for (const [name] of root.listing.chunks) live.chunks.add(name)
  for (const { chunks } of files) for (const [name] of chunks) live.chunks.add(name)
  live.snapshots.add(id)
}

/** Which backups are under way, and the end of those that have died.
 *
 *  A backup commits by putting its manifest where nothing is; a prune gives one up by putting a sign into the very same place. One of the
 *  two succeeds. So a backup that only stood still, and wakes, finds that it cannot commit: nothing that was removed meanwhile is ever
 *  named. The verdict that it has died may be wrong; nothing but its own work is lost by that. */
import { decodeRoot, encodeAbandoned } from './manifest.js'
import { runningName, runningPattern, snapshotName, snapshotPattern, type Vault } from './vault.js'

/** Signs of backups that were given up go after this, by the target's clock: nobody wakes after a year. */
const abandonedKeptMs = 365 * 86_400_000

export async function runningBackups(vault: Vault, signal?: AbortSignal): Promise<string[]> {
  const found = await vault.target.list('running/', { signal })
  return found.flatMap(({ name }) => runningPattern.exec(name)?.[1] ?? []).sort()
}

/** @returns those that can no longer commit. */
export async function giveUpDead(vault: Vault, staleMs: number, dryRun: boolean, signal?: AbortSignal): Promise<string[]> {
  const found = await vault.target.list('running/', { signal })
  if (found.length === 0) return []
  const nowMs = await vault.target.nowMs(signal)
  const givenUp: string[] = []
  for (const { name, modifiedMs } of found) {
    const id = runningPattern.exec(name)?.[1]
    if (!id || nowMs - modifiedMs <= staleMs) continue
    if (!dryRun) {
      // False when it has committed, and died before it took its sign away: then that is all that is left to do.
      const isGivenUp = await vault.target.put(snapshotName(vault, id), await encodeAbandoned(vault, id, nowMs), { ifAbsent: true, signal })
      await vault.target.delete(runningName(id), { signal })
      if (!isGivenUp) continue
    }
    givenUp.push(id)
  }
  return givenUp
}

/** Removes signs of backups that were given up so long ago that nobody will wake. */
export async function removeOldSigns(vault: Vault, complete: ReadonlySet<string>, signal?: AbortSignal): Promise<void> {
  const nowMs = await vault.target.nowMs(signal)
  for (const { name, modifiedMs } of await vault.target.list('snapshots/', { signal })) {
    const id = snapshotPattern.exec(name)?.[1]
    if (!id || complete.has(id) || nowMs - modifiedMs <= abandonedKeptMs) continue
    const bytes = await vault.target.get(name, { signal })
    if (bytes && 'abandoned' in (await decodeRoot(vault, id, bytes))) await vault.target.delete(name, { signal })
  }
}

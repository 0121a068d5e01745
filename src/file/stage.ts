/** New files are made in the stage, the directory that represents the held lock, and renamed from there onto their targets. Taking the
 *  lock over takes the stage away: then the rename fails with ENOENT, at whatever moment an old holder wakes.
 *  1 write the staged file, compare its length   crash: a stray file in the stage, emptied by the next holder
 *  2 sync it                                     crash: the same
 *  3 rename onto the target                      crash: old or new, never neither; lock lost: ENOENT, nothing changed
 *  4 sync the directory (the caller's)           until this returns, a power cut may bring the old file back */
import { StoreError } from '../errors.js'
import { writeFully } from './durable.js'
import type { Host } from './host.js'
import type { Held } from './lock/baton.js'

/** Lets other work go on between slices: no call may hold up the event loop for long. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Steps 1 and 2; the staged path. */
export async function stageFile(host: Host, held: Held, slices: readonly Buffer[]): Promise<string> {
  const { disk } = host
  const path = `${held.stage}/${host.nonce(12)}`
  const bytes = slices.reduce((sum, slice) => sum + slice.length, 0)
  held.used = true
  const fd = disk.open(path, 'create')
  try {
    for (const [at, slice] of slices.entries()) {
      writeFully(disk, fd, slice)
      if (at % 8 === 7) await breathe()
    }
    const { size } = disk.fstat(fd)
    if (size !== bytes)
      throw new StoreError('IO_FAILED', `a staged file has ${size} bytes instead of ${bytes}.`, { details: { size, bytes } })
    await disk.sync(fd)
  } finally {
    disk.close(fd)
  }
  return path
}

/** Steps 1 to 3. @throws ENOENT when the lock was lost: nothing has changed. */
export async function replaceFile(host: Host, held: Held, target: string, slices: readonly Buffer[]): Promise<void> {
  host.disk.rename(await stageFile(host, held, slices), target)
}

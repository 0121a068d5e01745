/** Rival: a stale lock file is renamed to a tombstone of one's own, looked at there, and put back if it was not the one that was judged. One
 *  contender wins; but the holder that was judged stale still commits when it wakes (F1). */
import { randomUUID } from 'node:crypto'
import fs from 'node:fs/promises'
import { lockFile, read, remove } from './lock-file.js'
import { openRival } from './whole-file.js'

export const { openSubject } = openRival((path, options) =>
  lockFile(path, options, async (stale, text) => {
    const tombstone = `${stale}.${randomUUID()}`
    if (!(await rename(stale, tombstone))) return
    // It belongs to somebody else: put it back, unless there is a new one by now.
    if ((await read(tombstone)) !== text && !(await link(tombstone, stale))) return
    await remove(tombstone)
  }),
)

async function rename(from: string, to: string): Promise<boolean> {
  try {
    await fs.rename(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

async function link(from: string, to: string): Promise<boolean> {
  try {
    await fs.link(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

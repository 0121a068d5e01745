/** Rival: a stale lock file is renamed to a tombstone of one's own, looked at there, and put back if it was not the one that was judged. One
 *  contender wins; but the holder that was judged stale still commits when it wakes (F1). */
import { randomUUID } from 'node:crypto'
import fs from 'node:fs'
import { lockFile, read, remove } from './lock-file.js'
import { openRival } from './whole-file.js'

export const { openSubject } = openRival((path, options) =>
  lockFile(path, options, (stale, text) => {
    const tombstone = `${stale}.${randomUUID()}`
    if (!rename(stale, tombstone)) return
    // It belongs to somebody else: put it back, unless there is a new one by now.
    if (read(tombstone) !== text && !link(tombstone, stale)) return
    remove(tombstone)
  }),
)

function rename(from: string, to: string): boolean {
  try {
    fs.renameSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

function link(from: string, to: string): boolean {
  try {
    fs.linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

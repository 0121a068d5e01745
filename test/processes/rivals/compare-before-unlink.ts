/** Rival: a stale lock file is read again, and unlinked only if it is still the one that was judged. Between the two there is room (F2). */
import { lockFile, read, remove } from './lock-file.js'
import { openRival } from './whole-file.js'

export const { openSubject } = openRival((path, options) =>
  lockFile(path, options, async (stale, text) => {
    if ((await read(stale)) === text) await remove(stale)
  }),
)

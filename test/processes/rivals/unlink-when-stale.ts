/** Rival: a stale lock file is unlinked, whoever's it is by then (F2, F9). */
import { lockFile, remove } from './lock-file.js'
import { openRival } from './whole-file.js'

export const { openSubject } = openRival((path, options) => lockFile(path, options, (stale) => remove(stale)))

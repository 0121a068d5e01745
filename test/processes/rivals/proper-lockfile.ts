/** Rival: proper-lockfile as its manual has it, with the smallest staleness that it allows (2 s) and its heartbeat (1 s). It judges by mtime
 *  alone, so a holder that does not reach its timers is stale, and commits when it does (F1). */
import lockfile from 'proper-lockfile'
import { openRival } from './whole-file.js'

export const staleMs = 2_000

export const { openSubject } = openRival((path, { waitMs }) => ({
  takeovers: { dead: 0, expired: 0 },
  acquire: async () => {
    const options = { stale: staleMs, update: 1_000, realpath: false, lockfilePath: path }
    const retries = { forever: true, minTimeout: 1, maxTimeout: 10, maxRetryTime: waitMs }
    // What its owner can do when the lock is compromised: stop using it. By then a synchronous change has been committed.
    const release = await lockfile.lock(path, { ...options, retries, onCompromised: () => {} })
    return async () => {
      await release().catch(() => {})
    }
  },
}))

/** proper-lockfile around our lock: it beats, notices a loss, and gives the lock back when the process exits. Who may have the lock, and
 *  whether it is still ours, it does not decide: it asks, through its `fs` option.
 *
 *      mkdir    acquire or take over: one winner, EEXIST for everyone else
 *      stat     is it still ours? ENOENT when not
 *      utimes   renew: write the last progress into the entry's name
 *      rmdir    give back and remove
 *
 *  What it would decide by itself is switched off:
 *  - It calls a lock stale whose mtime is older than `stale`, and its own lock compromised when an error lasts for longer than that, by the
 *    wall clock. `stale` is infinite: no clock that jumps, no stalled event loop and no suspended machine makes it give up a lock; our
 *    ENOENT does. (It raises `stale` to 2,000 and takes half of it as the upper bound of `update`; infinity passes through both.)
 *  - It compares the mtime with what it has set. The mtime is a variable here, and says what it was told.
 *  - It files its locks by path, and releasing one looks up the path: a lock that was lost would take down that of who has it now, in this
 *    very process. Each acquisition goes under a name of its own.
 *  - Its shortest heartbeat is a second. So nothing that has to happen sooner is left to it (held-lease.ts).
 *
 *  It is loaded when it is first needed: it brings signal-exit, which listens to signals, and graceful-fs, which patches `fs.close`. Who
 *  uses no long leases should have neither. And nobody should have the first: its listener ends a process whose own one, registered with
 *  `once`, has just been called and is closing the store. So it is unloaded again, unless the program uses it itself: a process that
 *  ends without closing is dead, and found so at the first look. */
import { createRequire } from 'node:module'
import { errnoOf } from '../../errors.js'

export const heartbeatMsMin = 1_000

/** A lease as the library may see it. */
export interface Beating {
  stands(): boolean
  /** Throws the system's ENOENT when it is not ours any more. */
  renew(): void
  /** Gives it back, in a process that is exiting for good; does nothing when it is not ours any more. */
  end(exiting?: boolean): void
  /** It is not ours any more. */
  lose(): void
}

type Done<T = void> = (error: Error | null, result?: T) => void

/** Acquires and beats. Resolves with the way to stop and give back; undefined when `acquire` could not.
 *  @param name  fresh for each acquisition; nothing is looked up under it */
export async function beat(
  name: string,
  acquire: () => Beating | undefined,
  heartbeatMs: number,
): Promise<(() => Promise<void>) | undefined> {
  const lock = await loadLock()
  const seen: Seen = { lease: undefined, mtime: new Date(), settled: false }
  try {
    const unlock = await lock(name, {
      lockfilePath: name,
      realpath: false,
      retries: 0,
      stale: Number.POSITIVE_INFINITY,
      update: heartbeatMs,
      fs: lockFs(seen, acquire),
      onCompromised: () => seen.lease?.lose(),
    })
    seen.settled = true
    return () => unlock().catch(ignoreReleased)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ELOCKED') return undefined
    throw error
  }
}

async function loadLock(): Promise<typeof import('proper-lockfile').lock> {
  const usedAlready = '__signal_exit_emitter__' in process
  const { lock } = await import('proper-lockfile')
  if (usedAlready) return lock
  try {
    const ours = createRequire(import.meta.url)
    const its = createRequire(ours.resolve('proper-lockfile'))
    ;(its('signal-exit') as { unload?: () => void }).unload?.()
  } catch {
    // In a bundle there may be nothing to resolve; then its listeners stay.
  }
  return lock
}

interface Seen {
  lease: Beating | undefined
  mtime: Date
  /** Before that it only finds out how fine the times of the file system are. */
  settled: boolean
}

function lockFs(seen: Seen, acquire: () => Beating | undefined) {
  return {
    mkdir: (_path: string, done: Done) =>
      told(done, () => {
        seen.lease = acquire()
        if (!seen.lease) throw withErrno('EEXIST')
      }),
    // Of another's lock, too: a fresh time, so that the library does not try to remove it.
    stat: (_path: string, done: Done<{ mtime: Date }>) =>
      told(done, () => {
        if (seen.settled && !seen.lease?.stands()) throw withErrno('ENOENT')
        return { mtime: seen.mtime }
      }),
    utimes: (_path: string, _atime: Date, mtime: Date, done: Done) =>
      told(done, () => {
        if (seen.settled) seen.lease?.renew()
        seen.mtime = mtime
      }),
    rmdir: (_path: string, done: Done) => told(done, () => seen.lease?.end()),
    // Of the exit hook.
    rmdirSync: () => seen.lease?.end(true),
  }
}

function told<T>(done: Done<T>, work: () => T): void {
  let result: T
  try {
    result = work()
  } catch (error) {
    done(error as Error)
    return
  }
  done(null, result)
}

function withErrno(errno: string): Error {
  return Object.assign(new Error(`${errno}: the lock is another's`), { code: errno })
}

/** Lost before it could be released: that has been told, or does not matter any more. */
function ignoreReleased(error: unknown): void {
  const code = (error as NodeJS.ErrnoException).code
  if (code !== 'ERELEASED' && code !== 'ENOTACQUIRED' && errnoOf(error) !== 'ENOENT') throw error
}

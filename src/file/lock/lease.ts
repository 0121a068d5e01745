/** Long leases: one holder per name among all processes, for minutes. The lock is that of baton.ts, one directory per name, made when it is
 *  wanted and removed when nobody has wanted it for a while; the heart beats through proper-lockfile (heartbeat.ts); what holds while it is ours says held-lease.ts.
 *
 *  A lease is taken at once or not at all: who waits, and in which order, is not decided here.
 *
 *      <directory>/<name>             the lock: `held.<n>.<holder>` while somebody has the lease, `free.<n>` for a while after
 *      <directory>/<name>.new-…       a lock in the making, named after its maker
 *      <directory>/.floor             the highest token of any that was removed (floor.ts)
 *
 *  remove   raise the floor, rmdir(free.n), rmdir(the lock)     whoever has taken it meanwhile has renamed the former; whoever has made it
 *                                                               anew keeps the latter from being empty
 *
 *  A holder that died is taken over at the first look, one that makes no progress after its `maxHoldMs`. Neither is needed for the data to
 *  be safe: who writes on behalf of a lease reads the log, then looks whether the lease stands, then writes (P3). */
import { errnoOf, ioError, StoreError } from '../../errors.js'
import type { LockHolder, LockStatus } from '../../types.js'
import type { Host } from '../host.js'
import { Idle } from '../idle.js'
import type { Counters } from '../stats.js'
import { LockDirectory } from './directory.js'
import { Floor } from './floor.js'
import { beat } from './heartbeat.js'
import { HeldLease, heartbeatMsOf, type Keeping, type Lease, type LeaseOptions } from './held-lease.js'
import { type Entry, parseEntry, parseMaker } from './holder.js'
import { type HeldEntry, judgeAtOnce, Observer } from './observer.js'
import { describeHolder, lockStatus, publishTakeover } from './report.js'
import type { Verdict } from './staleness.js'

export type { Lease, LeaseOptions } from './held-lease.js'

export interface LeaseHolder extends LockHolder {
  readonly token: number
}

export type Acquired = { readonly lease: Lease; readonly overtaken: LeaseHolder | undefined }
/** Without a blocker it changed hands all the time: look again. */
export type Blocked = { readonly lease: undefined; readonly blocker: LeaseHolder | undefined }

export interface LeasesOptions {
  readonly counters: Counters
  /** For messages: relative to `locks/`. */
  readonly label: string
  /** How long a lock is left when it is free. Default 2,000. */
  readonly idleMs?: number
}

/** Each try in vain means that somebody else was faster. */
const triesMax = 64
const idleMsDefault = 2_000
/** How many holders whose processes cannot be asked are watched at once; who is forgotten is watched anew. */
const watchedMax = 10_000
const namePattern = /^[A-Za-z0-9_-]{1,64}$/

export class Leases {
  #host: Host
  #path: string
  #options: LeasesOptions
  #floor: Floor
  #idle: Idle
  #watched = new Map<string, Observer>()
  /** Entries of ours that could not be given back. */
  #stuck = new Set<string>()

  constructor(host: Host, directory: string, options: LeasesOptions) {
    this.#host = host
    this.#path = directory
    this.#options = options
    this.#floor = new Floor(host, `${directory}/.floor`, this.#label('.floor'))
    this.#idle = new Idle(host, options.idleMs ?? idleMsDefault, (free) => this.#removeFree(free))
  }

  /** Takes the lease if that can be done at once: it is free, its holder is dead, or has made no progress for its time.
   *  @param name  1 to 64 letters, digits, dashes, underscores
   *  @throws IO_FAILED, DISK_FULL  effect none */
  async tryAcquire(name: string, options: LeaseOptions): Promise<Acquired | Blocked> {
    const lock = this.#lock(name)
    let lease: HeldLease | undefined
    let overtaken: LeaseHolder | undefined
    let blocker: LeaseHolder | undefined
    const acquire = () => {
      const attempt = this.#attempt(name, lock, options)
      lease = attempt.lease
      overtaken = attempt.overtaken
      blocker = attempt.blocker
      return lease
    }
    try {
      const unlock = await beat(`${lock.path}#${this.#host.nonce(12)}`, acquire, heartbeatMsOf(options))
      if (!unlock || !lease) return { lease: undefined, blocker }
      lease.unlock = unlock
    } catch (error) {
      lease?.end()
      throw ioError(error, `taking the lease ${this.#label(name)}`, 'none')
    }
    this.#options.counters.lockAcquisitions++
    return { lease, overtaken }
  }

  /** Who has it; a look, nothing else. */
  look(name: string): 'free' | LeaseHolder {
    const entry = this.#lock(name).look()
    if (!entry || entry === 'absent' || entry.state === 'free') return 'free'
    return this.#describe(entry, this.#judge(name, entry))
  }

  /** @param about  what is known of those who wait for a lease, and of whose it is; who waits is not decided here */
  statuses(about: (name: string) => { readonly waiting: number; readonly key?: string } = () => ({ waiting: 0 })): LockStatus[] {
    const judge = judgeAtOnce(this.#host)
    return this.#names()
      .filter((name) => namePattern.test(name))
      .sort()
      .map((name) => {
        const { waiting, ...whose } = about(name)
        return { ...this.status(name, waiting, judge), ...whose }
      })
      .filter(({ state }) => state !== 'absent')
  }

  /** Of one lease. */
  status(name: string, waiting = 0, judge = judgeAtOnce(this.#host)): LockStatus {
    return lockStatus(this.#label(name), this.#lock(name).list(), waiting, ({ holder }) => judge(holder), this.#host)
  }

  /** Removes the locks that this handle has left free. Leases that are still held are not touched. */
  close(): void {
    this.#idle.removeAll()
  }

  /** Removes what processes have left that died: their locks, and those that they were just making. Anybody may do it at any time. */
  sweep(): void {
    for (const _ of this.sweeping());
  }

  /** The same, with a halt after each lock. */
  *sweeping(): Generator<void> {
    const judge = judgeAtOnce(this.#host)
    for (const name of this.#names()) {
      // The floor, too, has been made.
      const maker = parseMaker(name.slice(name.indexOf('.new-') + 1))
      if (maker) {
        if (judge(maker).kind === 'dead') this.#removeWhole(name)
      } else if (namePattern.test(name)) this.#sweepLock(name, (entry) => judge(entry.holder))
      yield
    }
  }

  // — one attempt —

  #attempt(
    name: string,
    lock: LockDirectory,
    options: LeaseOptions,
  ): { lease?: HeldLease; overtaken?: LeaseHolder; blocker?: LeaseHolder } {
    let blocker: LeaseHolder | undefined
    for (let tries = 0; tries < triesMax; tries++) {
      const entry = lock.look()
      if (entry === 'absent') lock.create()
      if (!entry || entry === 'absent') continue
      let verdict: Verdict | undefined
      if (entry.state === 'held') {
        verdict = this.#judge(name, entry)
        blocker = this.#describe(entry, verdict)
        if (verdict.kind === 'alive' || verdict.kind === 'unknown') return { blocker }
      }
      const lease = new HeldLease(this.#keeping(name, lock), entry.n + 1, options)
      if (!lock.change(entry.name, lease.entry) || !this.#liftAboveFloor(lease)) continue
      lease.begin()
      if (entry.state === 'free' || !verdict || !blocker) return { lease }
      this.#countTakeover(name, entry, verdict, blocker, lease)
      return { lease, overtaken: blocker }
    }
    return blocker ? { blocker } : {}
  }

  /** After it has been taken: whoever removed the lock before that has raised the floor before. Not earlier: between a look and the rename
   *  the lock may have been taken, removed and made anew, with the very same `free.<n>`. False when it is not ours any more. */
  #liftAboveFloor(lease: HeldLease): boolean {
    try {
      const floor = this.#floor.get()
      return floor < lease.token || lease.lift(floor + 1)
    } catch (error) {
      lease.end()
      throw error
    }
  }

  #countTakeover(name: string, entry: HeldEntry, verdict: Verdict, from: LeaseHolder, { token }: Lease): void {
    this.#stuck.delete(entry.name)
    this.#watched.delete(name)
    this.#options.counters.takeovers[verdict.kind === 'dead' ? 'dead' : 'expired']++
    publishTakeover(this.#label(name), from, token, undefined)
  }

  #judge(name: string, entry: HeldEntry): Verdict {
    if (this.#stuck.has(entry.name)) return { kind: 'expired', why: 'it could not be released' }
    const observer = this.#watched.get(name) ?? new Observer(this.#host)
    const verdict = observer.judge(entry)
    // Only of those who cannot be asked must be remembered since when they have been watched.
    if (verdict.kind !== 'unknown') this.#watched.delete(name)
    else if (!this.#watched.has(name)) {
      this.#watched.set(name, observer)
      const [oldest] = this.#watched.keys()
      if (this.#watched.size > watchedMax && oldest !== undefined) this.#watched.delete(oldest)
    }
    return verdict
  }

  #describe(entry: HeldEntry, verdict: Verdict): LeaseHolder {
    return { ...describeHolder(entry.holder, verdict, this.#host), token: entry.n }
  }

  #keeping(name: string, directory: LockDirectory): Keeping {
    return {
      host: this.#host,
      counters: this.#options.counters,
      directory,
      floor: this.#floor,
      label: this.#label(name),
      holder: () => {
        try {
          const holder = this.look(name)
          return holder === 'free' ? undefined : holder
        } catch {
          return undefined // It is for a message only.
        }
      },
      freed: (free) => this.#idle.add(`${name}/${free}`),
      stuck: (entry) => this.#stuck.add(entry),
    }
  }

  // — sweeping —

  #sweepLock(name: string, judge: (entry: HeldEntry) => Verdict): void {
    const lock = this.#lock(name)
    const entry = lock.look()
    if (entry === 'absent') lock.removeEmpty()
    else if (entry && (entry.state === 'free' || judge(entry).kind === 'dead')) this.#removeLock(name, entry)
  }

  #removeFree(path: string): void {
    const [name, free] = path.split('/') as [string, string]
    const entry = parseEntry(free)
    if (entry && this.#host.disk.stat(`${this.#path}/${path}`)) this.#removeLock(name, entry)
  }

  #removeLock(name: string, entry: Entry): void {
    this.#floor.raise(entry.n)
    // By its exact name: whoever has taken it meanwhile keeps it.
    if (this.#removeDirectory(`${name}/${entry.name}`)) this.#lock(name).removeEmpty()
  }

  #removeWhole(name: string): void {
    for (const inside of this.#list(name)) this.#removeDirectory(`${name}/${inside}`)
    this.#removeDirectory(name)
  }

  #removeDirectory(path: string): boolean {
    try {
      this.#host.disk.rmdir(`${this.#path}/${path}`)
      return true
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return false
    }
  }

  #names(): string[] {
    return this.#list('')
  }

  #list(name: string): string[] {
    try {
      return this.#host.disk.readdir(name ? `${this.#path}/${name}` : this.#path)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw ioError(error, `reading ${this.#label(name)}`, 'none')
    }
  }

  #label(name: string): string {
    return this.#options.label === '' ? name : `${this.#options.label}/${name}`
  }

  #lock(name: string): LockDirectory {
    if (namePattern.test(name)) return new LockDirectory(this.#host, `${this.#path}/${name}`, this.#label(name))
    throw new StoreError('INVARIANT', `${JSON.stringify(name)} cannot be the name of a lease.`, { hint: 'Nothing was written.' })
  }
}

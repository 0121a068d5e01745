/** A long lease in our hands. It is ours as long as our exact entry stands in the lock's directory; everybody may take it over when
 *  `maxHoldMs` have passed since the last *progress*, whether we live or not: a heart that beats while nothing moves renews nothing.
 *
 *  renew    rename(held.n.me.t1, held.n.me.t2)      t2: the last progress. Same token, same nonce. ENOENT: lost
 *  release  rename(held.n.me, free.n)               the lock is removed when nobody has wanted it for a while (lease.ts)
 *  exit     rmdir(held.n.me), then rmdir(the lock)  the first is the check that it is ours; the second fails if somebody has made it anew
 *
 *  Renewing by rename is safe because names are compared whole and no name comes back: t only grows, and the nonce is of this acquisition.
 *  Whoever looked before and now takes over renames a name that is gone, fails, and looks again; whoever took over before has renamed
 *  ours away, and our renewal fails. There is one source name, so one of the two wins. An observer on another machine, that can only watch
 *  the name, begins anew with each new one: right, since a new name is proof of life.
 *  Removing by rmdir needs no detour through another name: nothing is ever staged in a lease, and an exact name is removed or not there.
 *
 *  When is progress written? At once, when the entry's time is a quarter of `maxHoldMs` old. Otherwise with the next heartbeat, a
 *  quarter later at most: so the entry is never half as old as others wait for. Where the heartbeat is too slow for that (a short hold), at
 *  once always. A rename takes about 10 µs; between them, progress costs reading a clock. */
import { errnoOf, ioError, StoreError } from '../../errors.js'
import type { LockHolder } from '../../types.js'
import type { Host } from '../host.js'
import { type Counters, channels } from '../stats.js'
import type { LockDirectory } from './directory.js'
import type { Floor } from './floor.js'
import { type Beating, heartbeatMsMin } from './heartbeat.js'
import { freeName, heldName, holderPrefix } from './holder.js'

export interface Lease {
  /** Greater than that of any lease of this name before. */
  readonly token: number
  /** It is another's, or nobody's; known so far. */
  readonly lost: boolean
  /** True only while our own exact entry is there: one look at the disk. Look *after* reading what the decision rests on: what is read
   *  after the look may be a later holder's. */
  stands(): boolean
  /** `maxHoldMs` starts anew. Cheap; without effect once it has expired, was lost or released. */
  progress(): void
  /** Gives it back. Resolves also when it was lost before. */
  release(): Promise<void>
}

export interface LeaseOptions {
  /** How long it may go without progress. */
  readonly maxHoldMs: number
  /** One word of lower-case letters and dashes, for whoever looks. */
  readonly does: string
  /** How often a loss is looked for and progress is written; at least 1,000. Default: a quarter of `maxHoldMs`, at most 15,000. */
  readonly heartbeatMs?: number
  /** Whose it is, for diagnostics. */
  readonly about?: Readonly<Record<string, unknown>> | undefined
  /** Called once, and soon, when somebody else has taken the lease over, or the lock was removed. */
  onLost(reason: StoreError): void
  /** Called once when `maxHoldMs` have passed without progress. The lease stands until somebody takes it over. */
  onExpired?(reason: StoreError): void
}

/** What a lease needs of those who keep it. */
export interface Keeping {
  readonly host: Host
  readonly counters: Counters
  readonly directory: LockDirectory
  readonly floor: Floor
  /** For messages: relative to the store. */
  readonly label: string
  /** Who has it now; for messages. */
  holder(): LockHolder | undefined
  /** It was given up, and `free` is left of it. */
  freed(free: string): void
  /** It was given up, but its entry could not be renamed. */
  stuck(entry: string): void
}

const heartbeatMsMax = 15_000

export function heartbeatMsOf({ maxHoldMs, heartbeatMs = maxHoldMs / 4 }: LeaseOptions): number {
  return Math.max(heartbeatMsMin, Math.min(heartbeatMs, heartbeatMsMax))
}

export class HeldLease implements Lease, Beating {
  #token: number
  #keeping: Keeping
  #options: LeaseOptions
  #nonce: string
  /** What we are called now, whole. */
  #entry = ''
  #entryAtMs: number
  #progressAtMs: number
  #lagMsMax: number
  #state: 'held' | 'lost' | 'released' = 'held'
  #expired = false
  #disarm = () => {}

  /** To be made before it is taken: `entry` is the name to take it by. */
  constructor(keeping: Keeping, token: number, options: LeaseOptions) {
    this.#keeping = keeping
    this.#options = options
    this.#token = token
    this.#nonce = keeping.host.nonce(12)
    this.#progressAtMs = keeping.host.clock.monotonicMs()
    this.#entryAtMs = Math.floor(this.#progressAtMs)
    this.#entry = this.#nameAt(this.#entryAtMs)
    const quarterMs = options.maxHoldMs / 4
    this.#lagMsMax = heartbeatMsOf(options) <= quarterMs ? quarterMs : 0
  }

  get token(): number {
    return this.#token
  }

  get entry(): string {
    return this.#entry
  }

  get lost(): boolean {
    return this.#state === 'lost'
  }

  /** It has been taken, but its token has been another's. False when it is not ours any more. */
  lift(token: number): boolean {
    const name = this.#nameAt(this.#entryAtMs, token)
    if (!this.#keeping.directory.change(this.#entry, name)) return false
    this.#entry = name
    this.#token = token
    return true
  }

  /** From now on somebody relies on it. */
  begin(): void {
    this.#arm()
  }

  stands(): boolean {
    if (this.#state !== 'held') return false
    const { host, directory } = this.#keeping
    try {
      if (host.disk.stat(`${directory.path}/${this.#entry}`)) return true
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return false // Not known; then it is not to be relied on. It may stand again at the next look.
    }
    this.lose()
    return false
  }

  progress(): void {
    if (this.#state !== 'held' || this.#expired) return
    this.#progressAtMs = this.#keeping.host.clock.monotonicMs()
    if (Math.floor(this.#progressAtMs) - this.#entryAtMs <= this.#lagMsMax) return
    try {
      this.renew()
    } catch (error) {
      if (errnoOf(error) === undefined) throw error // Lost: it has been told. Anything else: the next one tries again.
    }
  }

  renew(): void {
    const atMs = Math.floor(this.#progressAtMs)
    if (this.#state !== 'held' || atMs <= this.#entryAtMs) return
    const { host, directory } = this.#keeping
    const name = this.#nameAt(atMs)
    try {
      host.disk.rename(`${directory.path}/${this.#entry}`, `${directory.path}/${name}`)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') this.lose()
      throw error
    }
    this.#entry = name
    this.#entryAtMs = atMs
  }

  lose(): void {
    if (this.#state !== 'held') return
    this.#state = 'lost'
    this.#disarm()
    this.#countLost()
    const { label } = this.#keeping
    const holder = this.#keeping.holder()
    const now = holder ? `pid ${holder.pid} on ${holder.host} has it` : 'nobody has it'
    const reason = new StoreError('TURN_LOST', `the lease ${label} was taken over or removed; now ${now}.`, {
      details: { lock: label, token: this.token, holder, maxHoldMs: this.#options.maxHoldMs, unmovedMs: this.#unmovedMs() },
      hint: 'Nothing is written on its behalf from now on. Progress in time keeps a lease; the next one begins anew.',
    })
    // Soon, not now: it may have been noticed under a lock, in the midst of a commit.
    queueMicrotask(() => this.#options.onLost(reason))
  }

  end(exiting = false): void {
    // Raising the floor would make the directory anew, in a store that was removed meanwhile.
    if (this.#state !== 'held' || (exiting && !this.stands())) return
    this.#state = 'released'
    this.#disarm()
    try {
      if (exiting) this.#remove()
      else this.#free()
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return this.#countLost()
      this.#keeping.stuck(this.#entry)
      throw ioError(error, `releasing ${this.#keeping.label}`, 'unknown')
    }
  }

  /** Set by whoever has started its heartbeat. */
  unlock: () => Promise<void> = async () => this.end()

  release(): Promise<void> {
    return this.unlock()
  }

  // — inside —

  #nameAt(atMs: number, token = this.#token): string {
    const { identity } = this.#keeping.host
    const { maxHoldMs, does } = this.#options
    return heldName(token, holderPrefix(identity), atMs, maxHoldMs, does, identity.host, this.#nonce)
  }

  #free(): void {
    const { host, directory } = this.#keeping
    const free = freeName(this.token)
    host.disk.rename(`${directory.path}/${this.#entry}`, `${directory.path}/${free}`)
    this.#keeping.freed(free)
  }

  /** Later, nobody would do it. */
  #remove(): void {
    const { host, directory, floor } = this.#keeping
    floor.raise(this.token)
    host.disk.rmdir(`${directory.path}/${this.#entry}`)
    directory.removeEmpty()
  }

  #unmovedMs(): number {
    return Math.round(this.#keeping.host.clock.monotonicMs() - this.#progressAtMs)
  }

  /** One timer for all progress: it looks, when it is due, how much time is left. */
  #arm(): void {
    const { clock, later } = this.#keeping.host
    const leftMs = this.#progressAtMs + this.#options.maxHoldMs - clock.monotonicMs()
    if (leftMs <= 0) return this.#expire()
    const againMs = Math.ceil(leftMs)
    if (later) {
      this.#disarm = later(againMs, () => this.#arm())
      return
    }
    const over = new AbortController()
    this.#disarm = () => over.abort(null)
    void clock.sleep(againMs, over.signal).then(() => over.signal.aborted || this.#arm())
  }

  #expire(): void {
    if (!this.stands()) return
    this.#expired = true
    const { label } = this.#keeping
    const { maxHoldMs } = this.#options
    this.#options.onExpired?.(
      new StoreError('TURN_LOST', `the lease ${label} made no progress for ${this.#unmovedMs()} ms, longer than its ${maxHoldMs} ms.`, {
        details: { lock: label, token: this.token, maxHoldMs, unmovedMs: this.#unmovedMs() },
        hint: 'Anybody may take it over from now on. Report progress more often, or allow a longer time.',
      }),
    )
  }

  #countLost(): void {
    const { counters, label } = this.#keeping
    counters.locksLost++
    if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'lost', lock: label, token: this.token, ...this.#options.about })
  }
}

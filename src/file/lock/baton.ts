/** The lock: a directory with exactly one entry, whose name is the state (holder.ts). The entry is itself a directory, the stage: what is
 *  to replace a file is written inside it and renamed from there, so taking the lock away takes the stage away.
 *
 *  acquire    rename(free.n, held.n+1.me)         one winner; everyone else ENOENT
 *  release    rename(held.n.me, free.n)           ENOENT: lost meanwhile
 *  take over  rename(held.n.them, held.n+1.me)    one winner; then everything staged inside is unlinked
 *  create     rename(<tmp with free.n>, <lock>)   only where nothing or an empty directory stands
 *  hand over  rename(held.n.me, held.n+1.you)     to the oldest ticket, when we have had our turn and others wait
 *
 *  The lock decides who goes next. It does not decide whether data survives: that the log does (P3). */
import { errnoOf, ioError, type StoreError } from '../../errors.js'
import type { LockStatus } from '../../types.js'
import type { Host } from '../host.js'
import { type Counters, channels } from '../stats.js'
import { LockDirectory } from './directory.js'
import { type Entry, freeName, heldName, holderPrefix } from './holder.js'
import { type HeldEntry, Observer } from './observer.js'
import { describeHolder, lockStatus, lockTimeout, publishTakeover } from './report.js'
import type { Verdict } from './staleness.js'
import { Tickets } from './tickets.js'
import { Turnstile } from './turnstile.js'

export interface Held {
  readonly name: string
  readonly n: number
  /** Where a replacement may be staged while the lock is ours. */
  readonly stage: string
  /** Whether anything has been. */
  used: boolean
  readonly about: About | undefined
}

export interface BatonOptions {
  readonly maxHoldMs: number
  readonly counters: Counters
  /** For messages: relative to the store. */
  readonly label: string
}

export interface AcquireOptions {
  readonly does: string
  /** On the monotonic clock. */
  readonly deadlineMs: number
  readonly waitMs: number
  readonly signal?: AbortSignal | undefined
  /** Whose session it is about, for diagnostics. */
  readonly about?: About | undefined
}

export type About = Readonly<Record<string, unknown>>

const released: Verdict = { kind: 'expired', why: 'it could not be released' }
/** What an entry does that is held by somebody who does not know it yet. */
const offered = 'offered'
/** How long one handle may take the lock again and again while others wait. */
const tenureMs = 5
/** An offered lock that is not taken up within this long is anybody's. */
const offerMs = 50
/** Whoever has waited this long gets the lock next, whoever has it. */
const patienceMs = 10
const napsMs = 0.2
const napMsMax = 5

export class Baton {
  #host: Host
  #directory: LockDirectory
  #options: BatonOptions
  #prefix: string
  #nonce: string
  #tickets: Tickets
  #free: Entry | undefined
  #held: Held | undefined
  #contended = false
  #queueSeenAtMs = 0
  /** An entry of ours that could not be renamed back. */
  #unreleased: string | undefined
  #turnstile: Turnstile
  #tenureSinceMs = 0
  #about: About | undefined
  #observer: Observer
  #blocker: { entry: Entry; verdict: Verdict } | undefined

  constructor(host: Host, path: string, options: BatonOptions) {
    this.#host = host
    this.#directory = new LockDirectory(host, path, options.label)
    this.#options = options
    this.#prefix = holderPrefix(host.identity)
    this.#nonce = host.nonce(12)
    this.#turnstile = new Turnstile(host.clock)
    this.#observer = new Observer(host)
    this.#tickets = new Tickets(host, path, this.#nonce)
  }

  /** Nobody of this handle holds the lock or waits for it. */
  get idle(): boolean {
    return this.#turnstile.idle
  }

  /** Takes the lock if that can be done at once; undefined when it cannot. Never waits. */
  tryAcquire(does: string, about?: About): Held | undefined {
    if (!this.#turnstile.enter()) return undefined
    this.#about = about
    let held: Held | undefined
    try {
      held = this.#attempt(does)
    } finally {
      if (!held) this.#turnstile.leave()
    }
    if (held) this.#options.counters.lockAcquisitions++
    return held
  }

  /** Waits for the lock, first in line within the process, then among processes.
   *  @throws LOCK_TIMEOUT  effect none; names the holder. The signal's reason when aborted. */
  async acquire(options: AcquireOptions): Promise<Held> {
    options.signal?.throwIfAborted()
    const startedMs = this.#host.clock.monotonicMs()
    const atOnce = this.#turnstile.enter()
    if (!atOnce) await this.#turnstile.wait(options, () => this.timeout(options.waitMs, options.about))
    this.#about = options.about
    try {
      const first = this.#attempt(options.does)
      const held = first ?? (await this.#contend(options))
      this.#options.counters.lockAcquisitions++
      if (!first || !atOnce) this.#countWait(startedMs)
      return held
    } catch (error) {
      this.#turnstile.leave()
      throw error
    }
  }

  /** Gives the lock up. That it was lost meanwhile changes nothing for what has been committed; it is counted. */
  release(held: Held): void {
    const { counters, label } = this.#options
    if (this.#held === held) this.#held = undefined
    try {
      // Nothing that was staged and not renamed may be there for the next holder; what cannot be emptied is not released.
      if (held.used) this.#emptyForNext(held)
      const heir = this.#heir(held)
      if (heir) {
        this.#host.disk.rename(held.stage, `${this.#directory.path}/${heir.name}`)
        this.#tickets.remove(heir.ticket)
        counters.handOvers++
      } else {
        this.#giveBack(held)
        this.#free = { state: 'free', name: freeName(held.n), n: held.n }
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      // ENOENT: somebody took over. Anything else: the entry stays; we may take it again, and for others it expires.
      if (errnoOf(error) !== 'ENOENT') this.#unreleased = held.name
      counters.locksLost++
      if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'lost', lock: label, token: held.n, ...held.about })
    } finally {
      this.#turnstile.leave()
    }
  }

  /** An error may pass: one more try is cheaper than everybody's waiting until the hold expires. */
  #emptyForNext(held: Held): void {
    try {
      this.#emptyStage(held)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.#emptyStage(held)
    }
  }

  #giveBack(held: Held): void {
    const free = `${this.#directory.path}/${freeName(held.n)}`
    try {
      this.#host.disk.rename(held.stage, free)
    } catch (error) {
      // Lost is lost. Another error may pass, as above.
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === undefined) throw error
      this.#host.disk.rename(held.stage, free)
    }
  }

  /** Unlinks whatever an earlier holder left staged: before that nothing may be committed under a lock that was taken over. False when it
   *  has been taken over from us meanwhile. */
  #emptyStage(held: Held): boolean {
    const { disk } = this.#host
    try {
      for (const name of disk.readdir(held.stage)) this.#unstage(`${held.stage}/${name}`)
      return disk.stat(held.stage) !== undefined
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    }
  }

  #unstage(path: string): void {
    try {
      this.#host.disk.unlink(path)
    } catch (error) {
      // The old holder's rename won; it is in what we read next.
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }

  status(): LockStatus {
    return lockStatus(this.#options.label, this.#directory.list(), this.#tickets.count, (entry) => this.#observer.judge(entry), this.#host)
  }

  // — one attempt —

  #attempt(does: string): Held | undefined {
    const remembered = this.#free
    this.#free = undefined
    if (remembered && !this.#contended) {
      const held = this.#take(remembered, does, this.#options.maxHoldMs)
      if (held) return held
      this.#contended = true // A rename that fails costs three looks: next time, look first.
    }
    for (let tries = 0; tries < 8; tries++) {
      const entry = this.#directory.look()
      if (entry === 'absent') {
        this.#directory.create()
        continue
      }
      if (!entry) continue
      if (entry.state === 'free') {
        const held = this.#take(entry, does, this.#options.maxHoldMs)
        if (!held) continue
        // The very entry that we left: nobody else has had the lock.
        if (entry.name === remembered?.name) this.#contended = false
        else this.#newTenure()
        return held
      }
      const verdict = entry.name === this.#unreleased ? released : this.#observer.judge(entry)
      if (verdict.kind === 'alive' || verdict.kind === 'unknown') {
        this.#blocker = { entry, verdict }
        return undefined
      }
      const held = this.#take(entry, does, this.#options.maxHoldMs)
      if (!held) continue
      this.#newTenure()
      this.#tookOver(entry, verdict)
      this.#held = undefined // Until its stage is empty the lock is nobody's to commit under, nor to release.
      try {
        if (!this.#emptyStage(held)) continue
      } catch (error) {
        this.#unreleased = held.name // What cannot be emptied now, may be later: by us at once, by others when it has expired.
        throw ioError(error, `emptying the stage of ${this.#options.label}`, 'none')
      }
      this.#held = held
      return held
    }
    return undefined
  }

  /** One rename: the whole of acquiring and of taking over. */
  #take(from: Entry, does: string, maxHoldMs: number): Held | undefined {
    const { clock, identity } = this.#host
    const n = from.n + 1
    const name = heldName(n, this.#prefix, clock.monotonicMs(), maxHoldMs, does, identity.host, this.#nonce)
    if (!this.#directory.change(from.name, name)) return undefined
    this.#held = { name, n, stage: `${this.#directory.path}/${name}`, used: false, about: this.#about }
    return this.#held
  }

  #newTenure(): void {
    this.#tenureSinceMs = this.#host.clock.monotonicMs()
  }

  #tookOver(entry: HeldEntry, verdict: Verdict): void {
    const { counters, label } = this.#options
    if (entry.holder.does === offered) counters.offersLapsed++
    else if (verdict.kind === 'dead') counters.takeovers.dead++
    else counters.takeovers.expired++
    publishTakeover(label, describeHolder(entry.holder, verdict, this.#host), entry.n + 1, this.#about)
  }

  // — waiting —

  async #contend(options: AcquireOptions): Promise<Held> {
    const { clock } = this.#host
    for (let nappedMs = 0; nappedMs < napsMs; nappedMs += 0.05) {
      clock.nap(0.05)
      const held = this.#attempt(options.does)
      if (held) return held
    }
    const ticket = this.#tickets.draw(options.does)
    let wake = new AbortController()
    // A reason of our own: without one, every wake-up makes an exception with its stack.
    const onWake = () => wake.abort(null)
    // Whoever hands the lock over to us takes our ticket away. The lock itself is only worth watching while one holder stays: else every
    // change of hands would wake all who wait.
    const watches = ticket ? [this.#host.watch(ticket, onWake)] : []
    options.signal?.addEventListener('abort', onWake, { once: true })
    try {
      let blocker = ''
      for (let napMs = 1; ; napMs = Math.min(napMsMax, napMs * 1.5)) {
        if (options.signal?.aborted) throw options.signal.reason
        const leftMs = options.deadlineMs - clock.monotonicMs()
        if (leftMs <= 0) throw this.timeout(options.waitMs, options.about)
        await clock.sleep(Math.min(leftMs, napMs * (0.5 + Number.parseInt(this.#host.nonce(4), 16) / 65_536)), wake.signal)
        if (wake.signal.aborted) wake = new AbortController()
        const held = this.#claim(options.does) ?? this.#attempt(options.does)
        if (held) return held
        if (ticket) this.#tickets.keep(ticket)
        const now = this.#blocker?.entry.name ?? ''
        if (now === blocker && watches.length < 2) watches.push(this.#host.watch(this.#directory.path, onWake))
        blocker = now
      }
    } finally {
      for (const stop of watches) stop()
      options.signal?.removeEventListener('abort', onWake)
      this.#returnTicket(ticket, options.does)
    }
  }

  /** A lock that was handed to us is ours from the moment we put our own time on it. */
  #claim(does: string): Held | undefined {
    const entry = this.#directory.look()
    if (!entry || entry === 'absent' || entry.state !== 'held' || !this.#isOffer(entry)) return undefined
    const held = this.#take(entry, does, this.#options.maxHoldMs)
    if (held) this.#newTenure()
    return held
  }

  #isOffer(entry: Entry): boolean {
    return entry.state === 'held' && entry.holder.nonce === this.#nonce && entry.holder.does === offered && this.#held?.name !== entry.name
  }

  /** We have given up waiting, or have the lock. If it was offered to us meanwhile, pass it on rather than let the offer expire. */
  #returnTicket(ticket: string | undefined, does: string): void {
    if (!ticket) return
    this.#tickets.remove(ticket)
    const offer = this.#held ? undefined : this.#claim(does)
    if (offer) this.#passOn(offer)
  }

  #passOn(held: Held): void {
    this.#held = undefined
    try {
      this.#host.disk.rename(held.stage, `${this.#directory.path}/${freeName(held.n)}`)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
  }

  /** Who gets the lock next, when we have had our turn and somebody waits; undefined to simply release it. */
  #heir(held: Held): { ticket: string; name: string } | undefined {
    const nowMs = this.#host.clock.monotonicMs()
    if (nowMs - this.#queueSeenAtMs < tenureMs) return undefined
    this.#queueSeenAtMs = nowMs
    const next = this.#tickets.oldest(nowMs)
    if (!next || (nowMs - this.#tenureSinceMs < tenureMs && nowMs - next.holder.acquiredAtMs < patienceMs)) return undefined
    this.#tenureSinceMs = nowMs
    const { host, nonce } = next.holder
    return { ticket: next.ticket, name: heldName(held.n + 1, holderPrefix(next.holder), nowMs, offerMs, offered, host, nonce) }
  }

  #countWait(startedMs: number): void {
    const { counters, label } = this.#options
    const waitedMs = this.#host.clock.monotonicMs() - startedMs
    counters.lockWaits++
    counters.lockWaitMsTotal += waitedMs
    counters.lockWaitMsMax = Math.max(counters.lockWaitMsMax, waitedMs)
    if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'acquired', lock: label, waitedMs, ...this.#about })
  }

  /** What to tell somebody who has waited long enough. */
  timeout(waitMs: number, about?: About): StoreError {
    const { counters, label } = this.#options
    counters.lockTimeouts++
    const blocker = this.#held ? undefined : this.#blocker
    const holder = blocker && blocker.entry.state === 'held' ? describeHolder(blocker.entry.holder, blocker.verdict, this.#host) : undefined
    if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'timeout', lock: label, holder, waitMs, ...about })
    return lockTimeout(label, waitMs, holder)
  }
}

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
import { errnoOf, ioError, StoreError } from '../../errors.js'
import type { LockHolder, LockStatus } from '../../types.js'
import { makeDirectories } from '../durable.js'
import type { Host } from '../host.js'
import { type Counters, channels } from '../stats.js'
import { type Entry, freeName, heldName, holderPrefix, parseEntry } from './holder.js'
import { judge, type Verdict } from './staleness.js'

export interface Held {
  readonly name: string
  readonly n: number
  /** Where a replacement may be staged while the lock is ours. */
  readonly stage: string
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
}

/** How long one handle may take the lock again and again while others wait. */
const tenureMs = 5
/** An offered lock that is not taken up within this long is anybody's. */
const offerMs = 50
/** Tickets are given back; one that outlives its process goes when its process is found dead. */
const ticketMs = 3_600_000
const napsMs = 0.2
const napMsMax = 15

/** Windows refuses to rename a directory while somebody looks into it; that passes. */
const windowsInUse = process.platform === 'win32'
const inUse = new Set(['EPERM', 'EACCES', 'EBUSY'])

interface LocalWaiter {
  readonly resume: () => void
}

export class Baton {
  /** Names the streak of acquisitions between which nobody else had the lock: what was current then is current now. */
  tenure = 0
  #host: Host
  #path: string
  #options: BatonOptions
  #prefix: string
  #nonce: string
  #free: Entry | undefined
  #held: Held | undefined
  #busy = false
  #local: LocalWaiter[] = []
  #tenureSinceMs = 0
  #watched: { name: string; sinceMs: number } | undefined
  #blocker: { entry: Entry; verdict: Verdict } | undefined

  constructor(host: Host, path: string, options: BatonOptions) {
    this.#host = host
    this.#path = path
    this.#options = options
    this.#prefix = holderPrefix(host.identity)
    this.#nonce = host.nonce(12)
  }

  get #queuePath(): string {
    return `${this.#path}.queue`
  }

  get idle(): boolean {
    return !this.#busy && this.#local.length === 0
  }

  /** Takes the lock if that can be done at once; undefined when it cannot. Never waits. */
  tryAcquire(does: string): Held | undefined {
    if (this.#busy) return undefined
    const held = this.#attempt(does)
    if (held) {
      this.#busy = true
      this.#options.counters.lockAcquisitions++
    }
    return held
  }

  /** Waits for the lock, first in line within the process, then among processes.
   *  @throws LOCK_TIMEOUT  effect none; names the holder. The signal's reason when aborted. */
  async acquire(options: AcquireOptions): Promise<Held> {
    options.signal?.throwIfAborted()
    const startedMs = this.#host.clock.monotonicMs()
    if (this.#busy) await this.#waitLocally(options)
    else this.#busy = true
    try {
      const held = this.#attempt(options.does) ?? (await this.#contend(options))
      this.#count(startedMs)
      return held
    } catch (error) {
      this.#next()
      throw error
    }
  }

  /** Gives the lock up. That it was lost meanwhile changes nothing for what has been committed; it is counted. */
  release(held: Held): void {
    const { counters, label } = this.#options
    if (this.#held === held) this.#held = undefined
    try {
      const heir = this.#heir(held)
      if (heir) {
        this.#host.disk.rename(held.stage, `${this.#path}/${heir.name}`)
        this.#removeTicket(heir.ticket)
        counters.handOvers++
      } else {
        this.#host.disk.rename(held.stage, `${this.#path}/${freeName(held.n)}`)
        this.#free = { state: 'free', name: freeName(held.n), n: held.n }
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      // ENOENT: somebody took over. Anything else: the entry stays, and expires for others.
      counters.locksLost++
      if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'lost', lock: label, token: held.n })
    } finally {
      this.#next()
    }
  }

  /** Unlinks whatever an earlier holder left staged. Must succeed before anything is committed under a lock that was taken over. */
  emptyStage(held: Held): void {
    for (const name of this.#host.disk.readdir(held.stage)) {
      try {
        this.#host.disk.unlink(`${held.stage}/${name}`)
      } catch (error) {
        // ENOENT: the old holder's rename won; it is in what we read next.
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
  }

  status(): LockStatus {
    const names = this.#list(this.#path)
    const waiting = this.#list(this.#queuePath)?.length ?? 0
    const base = { lock: this.#options.label, waiting, entry: names?.[0] }
    if (!names || names.length === 0) return { ...base, state: 'absent', fencingToken: undefined, holder: undefined }
    const entry = parseEntry(names[0]!)
    if (!entry || names.length > 1) return { ...base, state: 'foreign', fencingToken: undefined, holder: undefined }
    if (entry.state === 'free') return { ...base, state: 'free', fencingToken: entry.n, holder: undefined }
    return { ...base, state: 'held', fencingToken: entry.n, holder: this.#describe(entry, this.#judge(entry)) }
  }

  // — one attempt —

  #attempt(does: string): Held | undefined {
    const remembered = this.#free
    if (remembered) {
      this.#free = undefined
      const held = this.#take(remembered, does, this.#options.maxHoldMs)
      if (held) return held
    }
    for (let tries = 0; tries < 8; tries++) {
      const entry = this.#look()
      if (entry === 'absent') {
        this.#create()
        continue
      }
      if (!entry) continue
      if (entry.state === 'free') {
        const held = this.#take(entry, does, this.#options.maxHoldMs)
        if (!held) continue
        this.#newTenure()
        return held
      }
      const verdict = this.#judge(entry)
      if (verdict.kind === 'alive' || verdict.kind === 'unknown') {
        this.#blocker = { entry, verdict }
        return undefined
      }
      const held = this.#take(entry, does, this.#options.maxHoldMs)
      if (!held) continue
      this.#newTenure()
      this.#tookOver(entry, verdict)
      this.#held = undefined // Until its stage is empty the lock is nobody's to commit under, nor to release.
      this.emptyStage(held)
      this.#held = held
      return held
    }
    return undefined
  }

  /** One rename: the whole of acquiring and of taking over. */
  #take(from: Entry, does: string, maxHoldMs: number): Held | undefined {
    const { clock, disk, identity } = this.#host
    const n = from.n + 1
    const name = heldName(n, this.#prefix, clock.monotonicMs(), maxHoldMs, does, identity.host, this.#nonce)
    const stage = `${this.#path}/${name}`
    try {
      disk.rename(`${this.#path}/${from.name}`, stage)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'ENOENT' || (windowsInUse && inUse.has(errno ?? ''))) return undefined
      if (errno === 'EXDEV') return this.#replaceImageLayer(from)
      throw ioError(error, `taking the lock ${this.#options.label}`, 'none')
    }
    this.#held = { name, n, stage }
    return this.#held
  }

  /** overlayfs cannot rename a directory that comes from an image layer: it goes by its exact name, and the lock is made afresh. */
  #replaceImageLayer(from: Entry): undefined {
    for (const path of [`${this.#path}/${from.name}`, this.#path]) {
      try {
        this.#host.disk.rmdir(path)
      } catch (error) {
        const errno = errnoOf(error)
        if (errno !== 'ENOENT' && errno !== 'ENOTEMPTY') throw ioError(error, `replacing the lock ${this.#options.label}`, 'none')
      }
    }
    return undefined
  }

  #look(): Entry | 'absent' | undefined {
    const names = this.#list(this.#path)
    if (!names) return 'absent'
    // A listing made during a rename may show neither name or both: the rename that follows tells the truth.
    let entry: Entry | undefined
    for (const name of names) {
      const parsed = parseEntry(name)
      if (parsed && (!entry || parsed.n > entry.n)) entry = parsed
    }
    if (entry) return entry
    if (names.length > 0)
      throw new StoreError('IO_FAILED', `the lock ${this.#options.label} holds a foreign entry ${JSON.stringify(names[0])}.`, {
        retryable: false,
        details: { lock: this.#options.label, entries: names },
        hint: 'Nothing was written. Remove that entry; no process of this library has made it.',
      })
    const again = this.#list(this.#path)
    return again?.length ? undefined : 'absent'
  }

  #list(path: string): string[] | undefined {
    try {
      return this.#host.disk.readdir(path)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw ioError(error, `reading the lock ${this.#options.label}`, 'none')
    }
  }

  /** The lock appears with its entry in it, or not at all. */
  #create(): void {
    const { clock, disk } = this.#host
    // Above any token used before: microseconds of the wall clock outgrow one per acquisition.
    const n = Math.floor(clock.wallMs() * 1000)
    const made = `${this.#path}.new-${this.#host.nonce(12)}`
    try {
      makeDirectories(disk, `${made}/${freeName(n)}`)
      try {
        disk.rename(made, this.#path)
      } catch (error) {
        const errno = errnoOf(error)
        disk.rmdir(`${made}/${freeName(n)}`)
        disk.rmdir(made)
        // Somebody else was first.
        if (errno !== 'ENOTEMPTY' && errno !== 'EEXIST') throw error
      }
    } catch (error) {
      throw ioError(error, `creating the lock ${this.#options.label}`, 'none')
    }
  }

  #newTenure(): void {
    this.tenure++
    this.#tenureSinceMs = this.#host.clock.monotonicMs()
  }

  #judge(entry: Entry & { state: 'held' }): Verdict {
    const nowMs = this.#host.clock.monotonicMs()
    if (this.#watched?.name !== entry.name) this.#watched = { name: entry.name, sinceMs: nowMs }
    return judge(entry.holder, {
      observer: this.#host.identity,
      nowMs,
      firstSeenAtMs: this.#watched.sinceMs,
      probe: (pid) => this.#host.probe(pid),
    })
  }

  #tookOver(entry: Entry & { state: 'held' }, verdict: Verdict): void {
    if (verdict.kind === 'dead') this.#options.counters.takeovers.dead++
    else this.#options.counters.takeovers.expired++
    if (channels.lock.hasSubscribers)
      channels.lock.publish({ event: 'takeover', lock: this.#options.label, from: this.#describe(entry, verdict), token: entry.n + 1 })
  }

  // — waiting —

  #waitLocally(options: AcquireOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        const at = this.#local.indexOf(waiter)
        if (at >= 0) this.#local.splice(at, 1)
        stop.abort()
        options.signal?.removeEventListener('abort', onAbort)
      }
      const stop = new AbortController()
      const onAbort = () => {
        leave()
        reject(options.signal?.reason)
      }
      const waiter: LocalWaiter = {
        resume: () => {
          leave()
          resolve()
        },
      }
      this.#local.push(waiter)
      options.signal?.addEventListener('abort', onAbort, { once: true })
      const leftMs = options.deadlineMs - this.#host.clock.monotonicMs()
      void this.#host.clock.sleep(Math.max(0, leftMs), stop.signal).then(() => {
        if (stop.signal.aborted) return
        leave()
        reject(this.timeout(options.waitMs))
      })
    })
  }

  /** Passes the turn to the next of this process. */
  #next(): void {
    const waiter = this.#local.shift()
    if (waiter) waiter.resume()
    else this.#busy = false
  }

  async #contend(options: AcquireOptions): Promise<Held> {
    const { clock } = this.#host
    for (let nappedMs = 0; nappedMs < napsMs; nappedMs += 0.05) {
      clock.nap(0.05)
      const held = this.#attempt(options.does)
      if (held) return held
    }
    const ticket = this.#drawTicket(options.does)
    let wake = new AbortController()
    const onWake = () => wake.abort()
    // Whoever hands the lock over to us takes our ticket away. The lock itself is only worth watching while one holder stays: else every
    // change of hands would wake all who wait.
    const watches = ticket ? [this.#host.watch(`${this.#queuePath}/${ticket}`, onWake)] : []
    options.signal?.addEventListener('abort', onWake, { once: true })
    try {
      let blocker = ''
      for (let napMs = 1; ; napMs = Math.min(napMsMax, napMs * 1.5)) {
        if (options.signal?.aborted) throw options.signal.reason
        const leftMs = options.deadlineMs - clock.monotonicMs()
        if (leftMs <= 0) throw this.timeout(options.waitMs)
        await clock.sleep(Math.min(leftMs, napMs * (0.5 + Number.parseInt(this.#host.nonce(4), 16) / 65_536)), wake.signal)
        if (wake.signal.aborted) wake = new AbortController()
        const held = this.#claim(options.does) ?? this.#attempt(options.does)
        if (held) return held
        // An offer that we overslept has cost us the ticket, not our place in line.
        if (ticket && !this.#host.disk.stat(`${this.#queuePath}/${ticket}`)) this.#putTicket(ticket)
        const now = this.#blocker?.entry.name ?? ''
        if (now === blocker && watches.length < 2) watches.push(this.#host.watch(this.#path, onWake))
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
    const entry = this.#look()
    if (!entry || entry === 'absent' || entry.state !== 'held' || !this.#isOffer(entry)) return undefined
    const held = this.#take(entry, does, this.#options.maxHoldMs)
    if (held) this.#newTenure()
    return held
  }

  #isOffer(entry: Entry): boolean {
    return (
      entry.state === 'held' && entry.holder.nonce === this.#nonce && entry.holder.does === 'offered' && this.#held?.name !== entry.name
    )
  }

  #drawTicket(does: string): string | undefined {
    const { clock, identity } = this.#host
    const nowMs = clock.monotonicMs()
    return this.#putTicket(heldName(Math.floor(nowMs * 1000), this.#prefix, nowMs, ticketMs, does, identity.host, this.#nonce))
  }

  /** Tickets are a courtesy: without one a waiter only loses its place in line. */
  #putTicket(ticket: string): string | undefined {
    try {
      makeDirectories(this.#host.disk, this.#queuePath)
      this.#host.disk.close(this.#host.disk.open(`${this.#queuePath}/${ticket}`, 'create'))
      return ticket
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return undefined
    }
  }

  #returnTicket(ticket: string | undefined, does: string): void {
    if (!ticket) return
    this.#removeTicket(ticket)
    if (this.#held) return
    // We have given up waiting. If the lock was offered to us meanwhile, pass it on rather than let the offer expire.
    const offered = this.#claim(does)
    if (offered) this.#passOn(offered)
  }

  #passOn(held: Held): void {
    this.#held = undefined
    try {
      this.#host.disk.rename(held.stage, `${this.#path}/${freeName(held.n)}`)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
  }

  /** Who gets the lock next, when we have had our turn and somebody waits; undefined to simply release it. */
  #heir(held: Held): { ticket: string; name: string } | undefined {
    const { clock, probe } = this.#host
    const nowMs = clock.monotonicMs()
    if (nowMs - this.#tenureSinceMs < tenureMs) return undefined
    this.#tenureSinceMs = nowMs
    const tickets = (this.#list(this.#queuePath) ?? []).map(parseEntry).filter((ticket) => ticket?.state === 'held')
    tickets.sort((a, b) => a!.n - b!.n)
    for (const ticket of tickets) {
      if (ticket?.state !== 'held' || ticket.holder.nonce === this.#nonce) continue
      const verdict = judge(ticket.holder, { observer: this.#host.identity, nowMs, firstSeenAtMs: nowMs, probe })
      if (verdict.kind === 'dead') {
        this.#removeTicket(ticket.name)
        continue
      }
      const { host, nonce } = ticket.holder
      return { ticket: ticket.name, name: heldName(held.n + 1, holderPrefix(ticket.holder), nowMs, offerMs, 'offered', host, nonce) }
    }
    return undefined
  }

  #removeTicket(ticket: string): void {
    try {
      this.#host.disk.unlink(`${this.#queuePath}/${ticket}`)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
  }

  #count(startedMs: number): void {
    const { counters, label } = this.#options
    const waitedMs = this.#host.clock.monotonicMs() - startedMs
    counters.lockAcquisitions++
    counters.lockWaits++
    counters.lockWaitMsTotal += waitedMs
    counters.lockWaitMsMax = Math.max(counters.lockWaitMsMax, waitedMs)
    if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'acquired', lock: label, waitedMs })
  }

  #describe(entry: Entry & { state: 'held' }, verdict: Verdict): LockHolder {
    const { holder } = entry
    const sameClock = holder.boot === this.#host.identity.boot && holder.boot !== '0'
    return {
      pid: holder.pid,
      host: holder.host,
      does: holder.does,
      heldMs: sameClock ? Math.max(0, Math.round(this.#host.clock.monotonicMs() - holder.acquiredAtMs)) : undefined,
      maxHoldMs: holder.maxHoldMs,
      verdict: verdict.kind,
      why: verdict.why,
    }
  }

  /** What to tell somebody who has waited long enough. */
  timeout(waitMs: number): StoreError {
    const { counters, label } = this.#options
    counters.lockTimeouts++
    const blocker = this.#held ? undefined : this.#blocker
    const holder = blocker && blocker.entry.state === 'held' ? this.#describe(blocker.entry, blocker.verdict) : undefined
    const who = holder
      ? `held by pid ${holder.pid} on ${holder.host} (${holder.verdict}: ${holder.why})${holder.heldMs === undefined ? '' : ` for ${holder.heldMs} ms`}, doing: ${holder.does}`
      : 'held within this process'
    if (channels.lock.hasSubscribers) channels.lock.publish({ event: 'timeout', lock: label, holder, waitMs })
    return new StoreError('LOCK_TIMEOUT', `waited ${waitMs} ms for ${label}; ${who}.`, {
      details: { lock: label, waitMs, holder },
      hint: 'Nothing was written. Try again, or run `holdfast locks` to look at the holder.',
    })
  }
}

/** The only way anything is added to a log.
 *
 *  1 take the lock        crash: others find us dead and take over at once
 *  2 refresh              read what was added since; a torn tail is broken off by `#` and a newline, never truncated
 *  3 run the mutators     synchronously, in order; one that throws affects its own caller only
 *  4 one write            crash: a torn line or an unfinished batch, void for ever
 *  5 check the landing    size exactly as expected and the path still ours: landed. Else read what is there: the chain rule says whether
 *                         our batch is in. If not, once more from 1 (or LOCK_LOST after a bounded number)
 *  6 release, then sync   acknowledged only after a sync begun after the write; the lock is not held for the disk
 *
 *  Calls made in the same turn of the event loop, or while a commit is under way, share one commit: one lock, one write, one sync. */
import { errnoOf, ioError, isStoreError, StoreError } from '../errors.js'
import type { Durability, WaitOptions } from '../types.js'
import type { Host } from './host.js'
import type { Baton, Held } from './lock/baton.js'
import type { Batch, LogFile } from './log/log-file.js'
import { encodeLine } from './log/record.js'
import { type Counters, channels } from './stats.js'

/** One caller's part of a commit. */
export interface Job<R> {
  /** Decides, on the state inside the lock, what to append; may run again on newer state. Throwing fails this job alone. */
  run(log: LogFile): readonly string[]
  /** The call's result once its records have these sequence numbers (none when it appended nothing). */
  result(seqs: readonly number[], log: LogFile): R
  /** Takes note, in memory, of what has just landed as `run` prepared it. */
  applied?(seqs: readonly number[]): void
  /** Its records are the store's own. */
  readonly system?: boolean
  /** Anything else that must be on the disk before the acknowledgement. */
  alsoDurable?: () => Promise<void> | undefined
  /** When it appends nothing: the sequence number of this log that its result speaks of, -1 for none. */
  dependsOn?: () => number
  /** For diagnostics. */
  readonly about?: Readonly<Record<string, unknown>>
}

/** Whose log it is. */
export interface LogOwner {
  readonly label: string
  /** Step 2: the log as it is now, ready to be appended to. May throw a StoreError, or one of the two signals below. */
  refresh(untouched: boolean): LogFile
  /** Forgets what the last `run`s have prepared. What it returns goes before the callers' records: the header of a new log. */
  beginBatch(log: LogFile): readonly string[]
  /** Resolves when the directory entry of the log is on the disk. */
  nameDurable(log: LogFile): Promise<void>
  /** What takes time and must be done before the log can be appended to; under the lock, or without it. */
  prepare(need: 'locked' | 'unlocked', held: Held | undefined): Promise<void>
  /** What is to be done after a landing, still under the lock; `first` when callers shall wait for it. It does not reject. */
  afterLanding?(held: Held): { work: Promise<void>; first: boolean } | undefined
  /** A sync has failed: nobody may chain on pages that may be gone. */
  suspect(error: unknown): void
}

/** Thrown by `refresh` or `run`: first do this, then begin again. */
export class Preparation {
  readonly need: 'locked' | 'unlocked'
  constructor(need: 'locked' | 'unlocked') {
    this.need = need
  }
}

export interface CommitterOptions {
  readonly durability: Durability
  readonly waitMs: number
  readonly does: string
  readonly counters: Counters
}

interface Waiting {
  readonly job: Job<unknown>
  readonly deadlineMs: number
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
  tries: number
  alone: boolean
  resolve(value: unknown): void
  reject(reason: unknown): void
}

const jobsMax = 1_000
const batchBytesMax = 8 << 20
const triesMax = 64
const preparationsMax = 200

export class Committer {
  #host: Host
  #baton: Baton
  #owner: LogOwner
  #options: CommitterOptions
  #queue: Waiting[] = []
  #signals = new Map<AbortSignal, { calls: number; onAbort: () => void }>()
  #pumping = false
  #wake: AbortController | undefined
  #waitingUntilMs = 0
  #preparations = 0
  #tenure = -1

  constructor(host: Host, baton: Baton, owner: LogOwner, options: CommitterOptions) {
    this.#host = host
    this.#baton = baton
    this.#owner = owner
    this.#options = options
  }

  get idle(): boolean {
    return !this.#pumping
  }

  /** Resolves with the job's result when it is committed and as durable as asked for. */
  submit<R>(job: Job<R>, wait: WaitOptions): Promise<R> {
    const { signal } = wait
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise<R>((resolve, reject) => {
      const waitMs = wait.waitMs ?? this.#options.waitMs
      const waiting: Waiting = {
        job,
        waitMs,
        signal,
        deadlineMs: this.#host.clock.monotonicMs() + waitMs,
        tries: 0,
        alone: false,
        resolve: resolve as (value: unknown) => void,
        reject,
      }
      if (signal) this.#listen(signal)
      this.#queue.push(waiting)
      // Somebody more impatient than those who wait already: wait anew, for as long as this one may.
      if (waiting.deadlineMs < this.#waitingUntilMs) this.#wake?.abort()
      if (this.#pumping) return
      this.#pumping = true
      // In a microtask: what is called in the same turn joins this commit.
      queueMicrotask(() => void this.#pump())
    })
  }

  /** An abort takes the call out of the queue; it never runs later. What has landed stands. One listener for all calls of a signal. */
  #listen(signal: AbortSignal): void {
    const known = this.#signals.get(signal)
    if (known) {
      known.calls++
      return
    }
    const onAbort = () => {
      const leaving = this.#queue.filter((waiting) => waiting.signal === signal)
      this.#queue = this.#queue.filter((waiting) => waiting.signal !== signal)
      for (const waiting of leaving) this.#fail(waiting, signal.reason)
      if (this.#queue.length === 0) this.#wake?.abort()
    }
    signal.addEventListener('abort', onAbort, { once: true })
    this.#signals.set(signal, { calls: 1, onAbort })
  }

  #unlisten(signal: AbortSignal | undefined): void {
    const known = signal && this.#signals.get(signal)
    if (!known || --known.calls > 0) return
    signal.removeEventListener('abort', known.onAbort)
    this.#signals.delete(signal)
  }

  async #pump(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        let held: Held | undefined
        try {
          held = this.#baton.tryAcquire(this.#options.does) ?? (await this.#waitForLock())
        } catch (error) {
          this.#lockRefused(error)
          continue
        }
        if (!held) continue
        const later = this.#underLock(held)
        if (later) await this.#meanwhileExpire(later)
      }
    } catch (error) {
      for (const waiting of this.#queue.splice(0)) this.#fail(waiting, ioError(error, `committing to ${this.#owner.label}`, 'unknown'))
    } finally {
      this.#pumping = false
    }
  }

  /** While something slow goes on under the lock, callers whose time is over are told so. */
  async #meanwhileExpire(work: Promise<void>): Promise<void> {
    const timer = setInterval(() => this.#expire(), 50)
    timer.unref()
    try {
      await work
    } finally {
      clearInterval(timer)
    }
  }

  #expire(): void {
    const nowMs = this.#host.clock.monotonicMs()
    const expired = this.#queue.filter((waiting) => waiting.deadlineMs <= nowMs)
    if (expired.length === 0) return
    this.#queue = this.#queue.filter((waiting) => waiting.deadlineMs > nowMs)
    for (const waiting of expired) this.#fail(waiting, this.#baton.timeout(waiting.waitMs))
  }

  /** One attempt; synchronous, but for what has to be prepared. */
  #underLock(held: Held): Promise<void> | undefined {
    let keep: Promise<void> | undefined
    try {
      keep = this.#attempt(held)
    } catch (error) {
      if (error instanceof Preparation && ++this.#preparations < preparationsMax) {
        if (error.need === 'locked') keep = this.#owner.prepare('locked', held)
        else {
          this.#baton.release(held)
          return this.#guard(this.#owner.prepare('unlocked', undefined))
        }
      } else {
        this.#failAll(
          error instanceof Preparation ? new StoreError('LOCK_LOST', `${this.#owner.label} changes faster than it can be read.`) : error,
        )
      }
    }
    if (!keep) {
      this.#baton.release(held)
      return undefined
    }
    return this.#guard(keep).finally(() => this.#baton.release(held))
  }

  #guard(work: Promise<void>): Promise<void> {
    return work.catch((error: unknown) => this.#failAll(error))
  }

  #failAll(error: unknown): void {
    const failure = ioError(error, `writing to ${this.#owner.label}`, 'none')
    for (const waiting of this.#queue.splice(0)) this.#fail(waiting, failure)
  }

  /** Steps 2 to 5 for as many callers as fit into one write. */
  #attempt(held: Held): Promise<void> | undefined {
    const untouched = this.#tenure === this.#baton.tenure
    const log = this.#owner.refresh(untouched)
    this.#tenure = this.#baton.tenure
    const preamble = this.#owner.beginBatch(log)
    const { jobs, bodies, counts } = this.#runJobs(log)
    if (bodies.length === 0) {
      for (const waiting of jobs) this.#acknowledge(waiting, [], log, log.chain.seq)
      return undefined
    }
    const batch = this.#encode(
      log,
      preamble.length > 0 ? [...preamble, ...bodies] : bodies,
      preamble.length === 0 && !jobs.some(({ job }) => job.system),
    )
    const outcome = this.#write(log, batch)
    if (typeof outcome === 'object' || outcome === 'void') {
      this.#again(jobs, outcome, log)
      return undefined
    }
    this.#preparations = 0
    const firstSeq = (outcome === 'landed' ? batch.firstSeq : log.foundSeq) + preamble.length
    const seqs = seqsOf(counts, firstSeq)
    // When it was found by reading, the sink has seen it, and what came after it.
    if (outcome === 'landed') for (const [at, { job }] of jobs.entries()) job.applied?.(seqs[at]!)
    const after = this.#owner.afterLanding?.(held)
    if (after?.first) return after.work.then(() => this.#landed(jobs, seqs, log, batch))
    this.#landed(jobs, seqs, log, batch)
    return after?.work
  }

  #runJobs(log: LogFile): { jobs: Waiting[]; bodies: string[]; counts: number[] } {
    const jobs: Waiting[] = []
    const bodies: string[] = []
    const counts: number[] = []
    let bytes = 0
    while (this.#queue.length > 0 && jobs.length < jobsMax && bytes < batchBytesMax) {
      const waiting = this.#queue[0]!
      if (waiting.alone && jobs.length > 0) break
      try {
        const added = waiting.job.run(log)
        for (const body of added) {
          bodies.push(body)
          bytes += body.length
        }
        counts.push(added.length)
        jobs.push(waiting)
        this.#queue.shift()
      } catch (error) {
        if (error instanceof Preparation) {
          // Those before it go first; it comes back to be prepared.
          if (jobs.length > 0) break
          throw error
        }
        this.#queue.shift()
        this.#fail(waiting, error)
      }
      if (waiting.alone) break
    }
    return { jobs, bodies, counts }
  }

  #encode(log: LogFile, bodies: readonly string[], plain: boolean): Batch {
    const writer = log.tag + this.#host.nonce(8)
    const firstSeq = log.nextSeq
    const synced = log.synced
    const breaker = log.breaker()
    let prev = log.chain.crc
    let text = breaker
    let left = bodies.length
    let seq = firstSeq
    for (const body of bodies) {
      const { line, crc } = encodeLine(body, { seq: seq++, left: --left, synced, writer, prev })
      text += line
      prev = crc
    }
    return { bytes: Buffer.from(text), from: breaker.length, firstSeq, records: bodies.length, lastCrc: prev, writer, plain }
  }

  /** Steps 4 and 5. `found`: in, but not where it was expected. */
  #write(log: LogFile, batch: Batch): 'landed' | 'found' | 'void' | StoreError {
    const { bytes } = batch
    let failure: StoreError | undefined
    try {
      const wrote = this.#host.disk.write(log.fd, bytes)
      if (wrote === bytes.length) {
        if (log.landed(batch)) return log.chain.crc === batch.lastCrc ? 'landed' : 'void'
      } else {
        failure = new StoreError('DISK_FULL', `writing to ${this.#owner.label}: the disk took ${wrote} of ${bytes.length} bytes.`, {
          details: { file: this.#owner.label, wrote, bytes: bytes.length },
          hint: 'The part that was written is void. Free space, then try again; what was acknowledged is intact.',
        })
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      failure = ioError(error, `writing to ${this.#owner.label}`, 'none')
    }
    try {
      log.expect(batch.writer)
      log.readOn()
      if (log.foundSeq >= 0 && log.speaksForPath()) return 'found'
    } catch (error) {
      if (errnoOf(error) === undefined && !isStoreError(error)) throw error
      if (failure)
        return new StoreError(failure.code, `${failure.message} And it cannot be read back.`, { effect: 'unknown', cause: error })
      return ioError(error, `reading back ${this.#owner.label}`, 'unknown')
    }
    if (failure) return failure
    this.#options.counters.conflicts++
    return 'void'
  }

  #landed(jobs: readonly Waiting[], seqs: readonly number[][], log: LogFile, batch: Batch): void {
    const { counters } = this.#options
    counters.commits++
    counters.recordsWritten += batch.records
    counters.bytesWritten += batch.bytes.length
    const last = log.chain.seq
    for (const [at, waiting] of jobs.entries()) {
      if (channels.commit.hasSubscribers)
        channels.commit.publish({ log: this.#owner.label, seqs: seqs[at], bytes: batch.bytes.length, ...waiting.job.about })
      this.#acknowledge(waiting, seqs[at]!, log, last)
    }
  }

  /** Not in: the callers go back to the head of the queue, or are told so. */
  #again(jobs: readonly Waiting[], outcome: 'void' | StoreError, log: LogFile): void {
    const { counters } = this.#options
    const back: Waiting[] = []
    for (const waiting of jobs) {
      waiting.tries++
      if (outcome !== 'void' && (jobs.length === 1 || outcome.effect === 'unknown')) {
        this.#fail(waiting, outcome)
        continue
      }
      if (waiting.tries >= triesMax || this.#host.clock.monotonicMs() > waiting.deadlineMs + waiting.waitMs) {
        void this.#reportLost(waiting, log)
        continue
      }
      // A write that did not fit: each caller for itself, so that a large one fails alone.
      if (outcome !== 'void') waiting.alone = true
      counters.reruns++
      back.push(waiting)
    }
    this.#queue.unshift(...back)
  }

  /** `none` may only be said once the batch that won is itself on the disk. */
  async #reportLost(waiting: Waiting, log: LogFile): Promise<void> {
    let effect: 'none' | 'unknown' = 'none'
    try {
      if (this.#options.durability === 'power') await log.durable(log.chain.seq)
    } catch {
      effect = 'unknown'
    }
    this.#fail(
      waiting,
      new StoreError('LOCK_LOST', `${this.#owner.label}: the lock was lost ${waiting.tries} times, each time to another writer's commit.`, {
        effect,
        details: { file: this.#owner.label, tries: waiting.tries },
        hint: 'Try again; if it goes on, raise lock.maxHoldMs: holders here are slower than it allows.',
      }),
    )
  }

  #acknowledge(waiting: Waiting, seqs: readonly number[], log: LogFile, upTo: number): void {
    const needed = seqs.length > 0 ? upTo : (waiting.job.dependsOn?.() ?? -1)
    const also = this.#options.durability === 'power' ? waiting.job.alsoDurable?.() : undefined
    if (this.#options.durability === 'process' || (needed <= log.synced && log.named && !also)) {
      this.#settle(waiting, seqs, log)
      return
    }
    this.#makeDurable(log, needed, also).then(
      () => this.#settle(waiting, seqs, log),
      (error: unknown) => {
        this.#owner.suspect(error)
        this.#fail(waiting, ioError(error, `syncing ${this.#owner.label}`, 'unknown'))
      },
    )
  }

  async #makeDurable(log: LogFile, upTo: number, also: Promise<void> | undefined): Promise<void> {
    const name = upTo < 0 || log.named ? undefined : this.#owner.nameDurable(log)
    await Promise.all([log.durable(upTo), name, also])
  }

  #settle(waiting: Waiting, seqs: readonly number[], log: LogFile): void {
    this.#unlisten(waiting.signal)
    try {
      waiting.resolve(waiting.job.result(seqs, log))
    } catch (error) {
      waiting.reject(error)
    }
  }

  #fail(waiting: Waiting, error: unknown): void {
    this.#unlisten(waiting.signal)
    waiting.reject(error)
  }

  /** Runs `work` with the lock held, when its turn has come; for what replaces files rather than appends. */
  async exclusively<R>(does: string, wait: WaitOptions, work: (held: Held) => Promise<R>): Promise<R> {
    const waitMs = wait.waitMs ?? this.#options.waitMs
    const held = await this.#baton.acquire({ does, waitMs, deadlineMs: this.#host.clock.monotonicMs() + waitMs, signal: wait.signal })
    try {
      return await work(held)
    } finally {
      this.#baton.release(held)
    }
  }

  /** Steps 4 and 5 alone, for a record of the store's own, by somebody who holds the lock and has refreshed. True when it is in. */
  appendHeld(log: LogFile, bodies: readonly string[]): boolean {
    const outcome = this.#write(log, this.#encode(log, bodies, false))
    if (typeof outcome !== 'string') throw outcome
    return outcome !== 'void'
  }

  /** Waits for as long as the most impatient caller; undefined when all have gone meanwhile. */
  async #waitForLock(): Promise<Held | undefined> {
    const first = this.#queue.reduce((soonest, waiting) => (waiting.deadlineMs < soonest.deadlineMs ? waiting : soonest))
    const wake = new AbortController()
    this.#wake = wake
    this.#waitingUntilMs = first.deadlineMs
    try {
      return await this.#baton.acquire({
        does: this.#options.does,
        deadlineMs: first.deadlineMs,
        waitMs: first.waitMs,
        signal: wake.signal,
      })
    } catch (error) {
      if (wake.signal.aborted) return undefined
      throw error
    } finally {
      this.#wake = undefined
      this.#waitingUntilMs = 0
    }
  }

  #lockRefused(error: unknown): void {
    if (isStoreError(error, 'LOCK_TIMEOUT')) this.#expire()
    else this.#failAll(error)
  }
}

/** Which sequence numbers each job got. */
function seqsOf(counts: readonly number[], firstSeq: number): number[][] {
  let seq = firstSeq
  return counts.map((count) => {
    const seqs: number[] = []
    for (let at = 0; at < count; at++) seqs.push(seq++)
    return seqs
  })
}

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
import type { WaitOptions } from '../types.js'
import { doesNotFit, encodeBatch, seqsOf } from './batch.js'
import { type Call, Calls } from './calls.js'
import type { Host } from './host.js'
import { type CommitterOptions, type Job, type LogOwner, Preparation } from './job.js'
import type { Baton, Held } from './lock/baton.js'
import type { Batch, LogFile } from './log/log-file.js'
import { channels } from './stats.js'

/** `found`: in, but not where it was expected. */
type Outcome = 'landed' | 'found' | 'void' | StoreError

const jobsMax = 1_000
const batchBytesMax = 8 << 20
const triesMax = 64
const preparationsMax = 200

export class Committer {
  #host: Host
  #baton: Baton
  #owner: LogOwner
  #options: CommitterOptions
  #calls: Calls
  #pumping = false
  #wake: AbortController | undefined
  #waitingUntilMs = 0
  #preparations = 0

  constructor(host: Host, baton: Baton, owner: LogOwner, options: CommitterOptions) {
    this.#host = host
    this.#baton = baton
    this.#owner = owner
    this.#options = options
    // Nobody left to wait for: then there is no need of the lock.
    this.#calls = new Calls(host.clock, options.waitMs, () => this.#wake?.abort(null))
  }

  get idle(): boolean {
    return !this.#pumping
  }

  /** Resolves with the job's result when it is committed and as durable as asked for. */
  submit<R>(job: Job<R>, wait: WaitOptions): Promise<R> {
    const { promise, call } = this.#calls.add(job, wait)
    if (!call) return promise
    // Somebody more impatient than those who wait already: wait anew, for as long as this one may.
    if (call.deadlineMs < this.#waitingUntilMs) this.#wake?.abort(null)
    if (this.#pumping) return promise
    this.#pumping = true
    // In a microtask: what is called in the same turn joins this commit. But the event loop has to turn now and then (host.ts).
    if (this.#host.overdue?.()) setImmediate(() => void this.#pump())
    else queueMicrotask(() => void this.#pump())
    return promise
  }

  async #pump(): Promise<void> {
    try {
      while (this.#calls.size > 0) {
        let held: Held | undefined
        try {
          held = this.#baton.tryAcquire(this.#options.does, this.#calls.first?.job.about) ?? (await this.#waitForLock())
        } catch (error) {
          if (isStoreError(error, 'LOCK_TIMEOUT')) this.#expire(error)
          else this.#failAll(error)
          continue
        }
        if (!held) continue
        const later = this.#underLock(held)
        if (later) await this.#meanwhileExpire(later)
      }
    } catch (error) {
      this.#calls.failAll(ioError(error, `committing to ${this.#owner.label}`, 'unknown'))
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

  /** @param told  the first one's error, when the lock has made it already. */
  #expire(told?: StoreError): void {
    let first = told
    this.#calls.expire(({ waitMs, job }) => {
      const error = first ?? this.#baton.timeout(waitMs, job.about)
      first = undefined
      return error
    })
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
    this.#calls.failAll(ioError(error, `writing to ${this.#owner.label}`, 'none'))
  }

  /** Steps 2 to 5 for as many callers as fit into one write. */
  #attempt(held: Held): Promise<void> | undefined {
    // Always: that nobody else has had the lock says nothing of somebody with an editor.
    const log = this.#owner.refresh()
    const preamble = this.#owner.beginBatch(log)
    const { jobs, bodies, counts } = this.#runJobs(log)
    this.#preparations = 0
    if (bodies.length === 0) {
      for (const waiting of jobs) this.#acknowledge(waiting, [], log, log.chain.seq)
      return undefined
    }
    const plain = preamble.length === 0 && !jobs.some(({ job }) => job.system)
    let batch: Batch | undefined
    let outcome: Outcome
    try {
      batch = encodeBatch(this.#host, log, preamble.length > 0 ? [...preamble, ...bodies] : bodies, plain)
      outcome = this.#write(log, batch)
    } catch (error) {
      // They are in no queue any more: whoever is not told now, is never told.
      for (const call of jobs) this.#calls.fail(call, ioError(error, `writing to ${this.#owner.label}`, batch ? 'unknown' : 'none'))
      return undefined
    }
    if (typeof outcome === 'object' || outcome === 'void') {
      this.#again(jobs, outcome, log)
      return undefined
    }
    const firstSeq = (outcome === 'landed' ? batch.firstSeq : log.foundSeq) + preamble.length
    const seqs = seqsOf(counts, firstSeq)
    // When it was found by reading, the sink has seen it, and what came after it.
    if (outcome === 'landed') for (const [at, { job }] of jobs.entries()) job.applied?.(seqs[at]!)
    const after = this.#owner.afterLanding?.(held)
    if (after?.first) {
      const letGo = log.keep()
      const answer = () => {
        this.#landed(jobs, seqs, log, batch)
        letGo()
      }
      // In a turn of its own: whoever is answered finds the lock released.
      return after.work.finally(() => void setImmediate(answer))
    }
    this.#landed(jobs, seqs, log, batch)
    return after?.work
  }

  #runJobs(log: LogFile): { jobs: Call[]; bodies: string[]; counts: number[] } {
    const jobs: Call[] = []
    const bodies: string[] = []
    const counts: number[] = []
    let bytes = 0
    for (let call = this.#calls.first; call && jobs.length < jobsMax && bytes < batchBytesMax; call = this.#calls.first) {
      if ((call.alone || call.job.solo) && jobs.length > 0) break
      // Out of the line before it runs: it may abort signals, its own among them.
      this.#calls.shift()
      try {
        const added = call.job.run(log)
        for (const body of added) {
          bodies.push(body)
          bytes += body.length
        }
        counts.push(added.length)
        jobs.push(call)
      } catch (error) {
        if (error instanceof Preparation) {
          this.#calls.putBack([call])
          // Those before it go first; it comes back to be prepared.
          if (jobs.length > 0) break
          throw error
        }
        void this.#refused(call, error, log)
      }
      // Nothing may stand behind a seal, not even in its own batch.
      if (call.alone || call.job.solo || call.job.system) break
    }
    return { jobs, bodies, counts }
  }

  /** Steps 4 and 5. */
  #write(log: LogFile, batch: Batch): Outcome {
    const { bytes } = batch
    let failure = doesNotFit(this.#host.disk, this.#owner, bytes.length)
    if (failure) return failure
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
      if (log.foundSeq >= 0) {
        if (log.speaksForPath()) return 'found'
        if (!log.pathExists())
          return new StoreError('LOG_CORRUPT', `${this.#owner.label} was taken away while it was written to.`, {
            effect: 'unknown',
            details: { file: this.#owner.label, seq: log.foundSeq },
            hint: 'What was written is in the file that was moved away. Put it back, then read.',
          })
      }
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

  #landed(jobs: readonly Call[], seqs: readonly number[][], log: LogFile, batch: Batch): void {
    const { counters } = this.#options
    counters.commits++
    counters.recordsWritten += batch.records
    counters.bytesWritten += batch.bytes.length
    const last = log.chain.seq
    for (const [at, waiting] of jobs.entries()) {
      if (channels.commit.hasSubscribers && !waiting.job.background)
        channels.commit.publish({ log: this.#owner.label, seqs: seqs[at], bytes: batch.bytes.length, ...waiting.job.about })
      this.#acknowledge(waiting, seqs[at]!, log, last)
    }
  }

  /** Not in: the callers go back to the head of the queue, or are told so. */
  #again(jobs: readonly Call[], outcome: 'void' | StoreError, log: LogFile): void {
    const { counters } = this.#options
    const back: Call[] = []
    for (const waiting of jobs) {
      waiting.tries++
      if (outcome !== 'void' && (jobs.length === 1 || outcome.effect === 'unknown')) {
        this.#calls.fail(waiting, outcome)
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
    this.#calls.putBack(back)
  }

  /** A call that wrote a void batch before and now refuses: `none` holds once what that batch lost to is on the disk. */
  async #refused(call: Call, error: unknown, log: LogFile): Promise<void> {
    if (call.tries > 0 && this.#options.durability === 'power') {
      try {
        await log.durable(log.chain.seq)
      } catch (cause) {
        this.#calls.fail(call, ioError(cause, `syncing ${this.#owner.label}`, 'unknown'))
        return
      }
    }
    this.#calls.fail(call, error)
  }

  /** `none` may only be said once the batch that won is itself on the disk. */
  async #reportLost(waiting: Call, log: LogFile): Promise<void> {
    let effect: 'none' | 'unknown' = 'none'
    try {
      if (this.#options.durability === 'power') await log.durable(log.chain.seq)
    } catch {
      effect = 'unknown'
    }
    this.#calls.fail(
      waiting,
      new StoreError('LOCK_LOST', `${this.#owner.label}: the lock was lost ${waiting.tries} times, each time to another writer's commit.`, {
        effect,
        details: { file: this.#owner.label, tries: waiting.tries },
        hint: 'Try again; if it goes on, raise lock.maxHoldMs: holders here are slower than it allows.',
      }),
    )
  }

  #acknowledge(waiting: Call, seqs: readonly number[], log: LogFile, upTo: number): void {
    const needed = seqs.length > 0 ? upTo : (waiting.job.dependsOn?.() ?? -1)
    const also = this.#options.durability === 'power' ? waiting.job.alsoDurable?.() : undefined
    if (this.#options.durability === 'process' || waiting.job.relaxed?.() || (needed <= log.synced && log.named && !also)) {
      this.#settle(waiting, seqs, log)
      return
    }
    this.#makeDurable(log, needed, also).then(
      () => this.#settle(waiting, seqs, log),
      (error: unknown) => {
        this.#owner.suspect(error)
        this.#calls.fail(waiting, ioError(error, `syncing ${this.#owner.label}`, 'unknown'))
      },
    )
  }

  async #makeDurable(log: LogFile, upTo: number, also: Promise<void> | undefined): Promise<void> {
    const name = upTo < 0 || log.named ? undefined : this.#owner.nameDurable(log)
    await Promise.all([log.durable(upTo), name, also])
  }

  #settle(waiting: Call, seqs: readonly number[], log: LogFile): void {
    this.#calls.settled(waiting)
    try {
      waiting.resolve(waiting.job.result(seqs, log))
    } catch (error) {
      waiting.reject(error)
    }
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
    const outcome = this.#write(log, encodeBatch(this.#host, log, bodies, false))
    if (typeof outcome !== 'string') throw outcome
    return outcome !== 'void'
  }

  /** Waits for as long as the most impatient caller; undefined when all have gone meanwhile. */
  async #waitForLock(): Promise<Held | undefined> {
    const first = this.#calls.mostImpatient()
    if (!first) return undefined
    const wake = new AbortController()
    this.#wake = wake
    this.#waitingUntilMs = first.deadlineMs
    try {
      return await this.#baton.acquire({
        does: this.#options.does,
        deadlineMs: first.deadlineMs,
        waitMs: first.waitMs,
        signal: wake.signal,
        about: first.job.about,
      })
    } catch (error) {
      if (wake.signal.aborted) return undefined
      throw error
    } finally {
      this.#wake = undefined
      this.#waitingUntilMs = 0
    }
  }
}

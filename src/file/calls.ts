/** The calls that wait for a commit, in the order in which they came. One that is aborted or too late leaves, and never runs later. */
import type { Clock } from '../clock.js'
import { type StoreError, withEffectUnknown } from '../errors.js'
import type { WaitOptions } from '../types.js'
import type { Job } from './job.js'

export interface Call {
  readonly job: Job<unknown>
  /** On the monotonic clock. */
  readonly deadlineMs: number
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
  tries: number
  /** It goes into a write of its own, since one with others did not fit on the disk. */
  alone: boolean
  resolve(value: unknown): void
  reject(reason: unknown): void
}

const writtenBefore = 'Something of this call was written before that was found; whether it counts shows when the file is put right.'

export class Calls {
  #clock: Clock
  #waitMs: number
  #emptied: () => void
  #queue: Call[] = []
  #signals = new Map<AbortSignal, { calls: number; onAbort: () => void }>()

  /** @param emptied  called when the last one has left by an abort. */
  constructor(clock: Clock, waitMs: number, emptied: () => void) {
    this.#clock = clock
    this.#waitMs = waitMs
    this.#emptied = emptied
  }

  get size(): number {
    return this.#queue.length
  }

  get first(): Call | undefined {
    return this.#queue[0]
  }

  /** No call when its signal has been aborted before. */
  add<R>(job: Job<R>, wait: WaitOptions): { promise: Promise<R>; call: Call | undefined } {
    const { signal, waitMs = this.#waitMs } = wait
    if (signal?.aborted) return { promise: Promise.reject(signal.reason), call: undefined }
    let call: Call | undefined
    const promise = new Promise<R>((resolve, reject) => {
      const deadlineMs = this.#clock.monotonicMs() + waitMs
      call = { job, waitMs, signal, deadlineMs, tries: 0, alone: false, resolve: resolve as (value: unknown) => void, reject }
    })
    if (signal) this.#listen(signal)
    this.#queue.push(call!)
    return { promise, call }
  }

  shift(): void {
    this.#queue.shift()
  }

  /** To the head of the line, in their order. */
  putBack(calls: readonly Call[]): void {
    this.#queue.unshift(...calls)
  }

  mostImpatient(): Call | undefined {
    return this.#queue.reduce<Call | undefined>(
      (soonest, call) => (soonest && soonest.deadlineMs <= call.deadlineMs ? soonest : call),
      undefined,
    )
  }

  /** Rejects those whose time is over. */
  expire(late: (call: Call) => StoreError): void {
    const nowMs = this.#clock.monotonicMs()
    for (const call of this.#take((waiting) => waiting.deadlineMs <= nowMs)) this.fail(call, late(call))
  }

  /** What a call has written in an earlier try may yet count, in a file that is no longer what it was. */
  failAll(error: StoreError): void {
    for (const call of this.#queue.splice(0))
      this.fail(call, call.tries > 0 && error.kind === 'damaged' ? withEffectUnknown(error, writtenBefore) : error)
  }

  fail(call: Call, error: unknown): void {
    this.settled(call)
    call.reject(error)
  }

  /** Its signal means nothing any more. */
  settled({ signal }: Call): void {
    const known = signal && this.#signals.get(signal)
    if (!known || --known.calls > 0) return
    signal.removeEventListener('abort', known.onAbort)
    this.#signals.delete(signal)
  }

  /** One listener for all calls of a signal. */
  #listen(signal: AbortSignal): void {
    const known = this.#signals.get(signal)
    if (known) {
      known.calls++
      return
    }
    const onAbort = () => {
      for (const call of this.#take((waiting) => waiting.signal === signal)) this.fail(call, signal.reason)
      if (this.#queue.length === 0) this.#emptied()
    }
    signal.addEventListener('abort', onAbort, { once: true })
    this.#signals.set(signal, { calls: 1, onAbort })
  }

  #take(which: (call: Call) => boolean): Call[] {
    const taken = this.#queue.filter(which)
    if (taken.length > 0) this.#queue = this.#queue.filter((call) => !which(call))
    return taken
  }
}

/** Appends under way: many at once, so that the store commits them together, and in order. Bounded in count and bytes.
 *  The first failure stops what has not begun; a failure of one record alone (too large) concerns only that record. */
import type { AppendReceipt } from '../../index.js'

const appendsMax = 256
const bytesMax = 8 << 20

export interface Sending {
  readonly bytes: number
  readonly line: number
  /** Starts the append. The signal aborts it, as long as it has not begun. */
  readonly append: (signal: AbortSignal) => Promise<AppendReceipt>
  readonly landed: (receipt: AppendReceipt) => void
  /** True when the error concerns only this record and has been dealt with. */
  readonly refused: (error: unknown) => boolean
}

export class Flight {
  readonly #under: Promise<void>[] = []
  readonly #stop = new AbortController()
  readonly #unsubscribe: () => void
  #bytes = 0
  #failure: { readonly error: unknown } | undefined
  #firstMissing: number | undefined
  #lastLanded = 0

  constructor(signal: AbortSignal) {
    const stop = () => this.#stop.abort()
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
    this.#unsubscribe = () => signal.removeEventListener('abort', stop)
  }

  /** Nothing more can be sent: something failed, or somebody asked to stop. */
  get stopped(): boolean {
    return this.#stop.signal.aborted
  }

  /** Resolves when there is room, having sent this one; at once and without sending when stopped. */
  async send(sending: Sending): Promise<void> {
    while (this.#under.length >= appendsMax || (this.#bytes > 0 && this.#bytes + sending.bytes > bytesMax)) await this.#under.shift()
    if (this.stopped) return
    this.#bytes += sending.bytes
    this.#under.push(this.#settle(sending, sending.append(this.#stop.signal)))
  }

  async #settle(sending: Sending, append: Promise<AppendReceipt>): Promise<void> {
    try {
      sending.landed(await append)
      this.#lastLanded = Math.max(this.#lastLanded, sending.line)
    } catch (error) {
      if (sending.refused(error)) return
      this.#firstMissing = Math.min(this.#firstMissing ?? sending.line, sending.line)
      if (error !== this.#stop.signal.reason) this.#failure ??= { error }
      this.#stop.abort()
    } finally {
      this.#bytes -= sending.bytes
    }
  }

  /** Waits for all, then throws the first failure. */
  async land(): Promise<void> {
    await Promise.all(this.#under)
    this.#unsubscribe()
    if (this.#failure) throw this.#failure.error
  }

  /** A line that is not in although a later one is; the next run adds it behind that one. Known once all have landed. */
  get gap(): number | undefined {
    return this.#firstMissing !== undefined && this.#firstMissing < this.#lastLanded ? this.#firstMissing : undefined
  }
}

/** Appends under way. Groups of them are begun together, without a pause in between, so that the store commits a group with one write; the
 *  next group is begun while the disk still works on the one before. Bounded in count and bytes.
 *  The first failure stops what has not begun; a failure of one record alone (too large) concerns only that record. */
import { setMaxListeners } from 'node:events'
import type { AppendReceipt } from '../../index.js'

const groupMax = 512
const groupBytesMax = 2 << 20
const groupsUnderWayMax = 2

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
  #group: Sending[] = []
  #groupBytes = 0
  readonly #underWay: Promise<unknown>[] = []
  readonly #stop = new AbortController()
  readonly #unsubscribe: () => void
  #failure: { readonly error: unknown } | undefined
  #firstMissing: number | undefined
  #lastLanded = 0

  constructor(signal: AbortSignal) {
    setMaxListeners(0, this.#stop.signal)
    const stop = () => this.#stop.abort()
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
    this.#unsubscribe = () => signal.removeEventListener('abort', stop)
  }

  /** Nothing more can be sent: something failed, or somebody asked to stop. */
  get stopped(): boolean {
    return this.#stop.signal.aborted
  }

  /** Resolves when there is room for more. */
  async send(sending: Sending): Promise<void> {
    this.#group.push(sending)
    this.#groupBytes += sending.bytes
    if (this.#group.length >= groupMax || this.#groupBytes >= groupBytesMax) await this.#begin()
  }

  async #begin(): Promise<void> {
    while (this.#underWay.length >= groupsUnderWayMax) await this.#underWay.shift()
    const group = this.#group
    this.#group = []
    this.#groupBytes = 0
    if (!this.stopped) this.#underWay.push(Promise.all(group.map((sending) => this.#settle(sending, sending.append(this.#stop.signal)))))
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
    }
  }

  /** Sends what is left, waits for all, then throws the first failure. */
  async land(): Promise<void> {
    await this.#begin()
    await Promise.all(this.#underWay)
    this.#unsubscribe()
    if (this.#failure) throw this.#failure.error
  }

  /** A line that is not in although a later one is; the next run adds it behind that one. Known once all have landed. */
  get gap(): number | undefined {
    return this.#firstMissing !== undefined && this.#firstMissing < this.#lastLanded ? this.#firstMissing : undefined
  }
}

/** A turn while it runs: what its function is handed, and who may tell it to stop. */
import type { AsyncLocalStorage } from 'node:async_hooks'
import type { EncodedRecord, InputAt, RequestFacts, StartedTurn, TurnEnding, TurnLease } from '../backend.js'
import type { Clock } from '../clock.js'
import { StoreError } from '../errors.js'
import type { AppendOptions, AppendReceipt, StoredRecord, TailOptions, TranscriptRecord, Turn, TurnResult } from '../types.js'

export interface TurnTools {
  readonly clock: Clock
  readonly inside: AsyncLocalStorage<ActiveTurn>
  encode(records: TranscriptRecord | readonly TranscriptRecord[]): readonly EncodedRecord[]
  checkAppend(options: AppendOptions | undefined): AppendOptions
  /** @throws INVALID_OPTION */
  checkTail(count: unknown, options: TailOptions | undefined): TailOptions
}

const valueBytesMax = 1 << 20

export class ActiveTurn implements Turn {
  readonly started: StartedTurn
  readonly outer: ActiveTurn | undefined
  #lease: TurnLease
  #request: RequestFacts
  #tools: TurnTools
  #callers: AbortSignal | undefined
  #controller = new AbortController()
  #seqs: number[] = []
  #inputs: readonly StoredRecord[] = []
  /** What waited when it began, and has not been handed out. */
  #waited: readonly InputAt[]
  #interruptedBy: string | undefined
  #expired = false
  #over = false

  constructor(lease: TurnLease, started: StartedTurn, request: RequestFacts, signal: AbortSignal | undefined, tools: TurnTools) {
    this.#lease = lease
    this.started = started
    this.#request = request
    this.#tools = tools
    this.#callers = signal
    this.#waited = started.left
    this.outer = tools.inside.getStore()
  }

  get key(): string {
    return this.started.key
  }

  get sessionId(): string {
    return this.started.sessionId
  }

  get turn(): number {
    return this.started.turn
  }

  get attempt(): number {
    return this.started.attempt
  }

  get requestId(): string {
    return this.#request.requestId
  }

  get channelId(): string | undefined {
    return this.#request.channelId
  }

  get lane(): string {
    return this.#request.lane
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get inputs(): readonly StoredRecord[] {
    return this.#inputs
  }

  async append(records: TranscriptRecord | readonly TranscriptRecord[], options?: AppendOptions): Promise<AppendReceipt> {
    const { requestId, channelId } = this
    const checked = { requestId, channelId, ...this.#tools.checkAppend(options) }
    const encoded = this.#tools.encode(records)
    this.#lease.progress()
    const receipt = await this.#lease.append(this.started, encoded, checked)
    this.#seqs.push(...receipt.seqs)
    this.#lease.progress()
    return receipt
  }

  async tail(count: number, options?: TailOptions): Promise<StoredRecord[]> {
    const checked = this.#tools.checkTail(count, options)
    return count === 0 ? [] : this.#lease.tail(this.started, count, checked)
  }

  async pending(): Promise<StoredRecord[]> {
    const waited = this.#waited
    this.#waited = []
    try {
      // In this order: what has been taken must not be in the hands of a call that fails.
      const before = await this.#lease.inputs(this.started, waited)
      return [...before, ...(await this.#lease.take(this.started))]
    } catch (error) {
      this.#waited = [...waited, ...this.#waited]
      throw error
    }
  }

  heartbeat(): void {
    if (!this.#over) this.#lease.progress()
  }

  // — for whoever runs it —

  get about(): Readonly<Record<string, unknown>> {
    const { key, sessionId, turn, requestId, channelId, lane, attempt } = this
    return { key, sessionId, turn, requestId, channelId, lane, attempt }
  }

  /** Somebody else wants to go next. */
  get interrupted(): boolean {
    return this.#interruptedBy !== undefined
  }

  /** It has gone without progress for too long: its lease is anybody's who wants it. */
  get expired(): boolean {
    return this.#expired
  }

  /** It can be told to stop, and is the one to be told: not one that was told, or overtaken without having noticed. */
  get hears(): boolean {
    return !this.#over && !this.signal.aborted && this.#lease.stands()
  }

  /** Its function runs no more. */
  get isOver(): boolean {
    return this.#over
  }

  /** Runs the function to its end, whatever its signal says meanwhile; not at all, when that has been aborted before. Does not reject. */
  async run<R>(work: (turn: Turn) => Promise<R> | R): Promise<{ ending: TurnEnding; result: Promise<TurnResult<R>> }> {
    const onAbort = () => this.abort(this.#callers?.reason)
    this.#callers?.addEventListener('abort', onAbort, { once: true })
    if (this.#callers?.aborted) onAbort()
    try {
      const { input } = this.started
      if (input) this.#inputs = await this.#lease.inputs(this.started, [input])
      this.signal.throwIfAborted()
      const value = await this.#tools.inside.run(this, async () => work(this))
      const outcome = this.interrupted ? 'interrupted' : 'completed'
      return { ending: { outcome, ...asJson(value) }, result: Promise.resolve(this.#result(outcome, value)) }
    } catch (error) {
      const outcome = this.signal.aborted ? 'interrupted' : 'failed'
      return { ending: { outcome, error: inWords(error) }, result: Promise.reject(error) }
    } finally {
      this.#callers?.removeEventListener('abort', onAbort)
    }
  }

  #result<R>(outcome: 'completed' | 'interrupted', value: R): TurnResult<R> {
    const { turn, sessionId, requestId, attempt } = this
    const own = this.#inputs.map(({ seq }) => seq)
    return { outcome, turn, sessionId, requestId, attempt, seqs: [...own, ...this.#seqs], value }
  }

  settled(): void {
    this.#over = true
  }

  abort(reason: unknown): void {
    if (!this.#over) this.#controller.abort(reason)
  }

  interrupt(by: string): void {
    if (this.#over || this.interrupted) return
    this.#interruptedBy = by
    const { key, sessionId, turn, requestId } = this
    this.abort(
      new StoreError('TURN_LOST', `turn ${turn} of ${JSON.stringify(key)} was interrupted by ${by}.`, {
        details: { key, sessionId, turn, requestId, interruptedBy: by },
        hint: 'What it has appended stands. Stop working on it and return; the next turn waits for that.',
      }),
    )
  }

  expire(): void {
    this.#expired = true
    const { key, sessionId, turn, requestId } = this
    this.abort(
      new StoreError('TURN_LOST', `turn ${turn} of ${JSON.stringify(key)} has made no progress for its maxTurnMs.`, {
        details: { key, sessionId, turn, requestId },
        hint: 'What it has appended stands; another process may take the conversation over. Call turn.heartbeat() while work goes on, or raise maxTurnMs.',
      }),
    )
  }
}

/** What JSON keeps of a result; nothing when that is nothing, or too much to be kept in a log. */
function asJson(value: unknown): { value?: unknown } {
  try {
    const json = JSON.stringify(value)
    return json === undefined || json.length > valueBytesMax ? {} : { value: JSON.parse(json) as unknown }
  } catch {
    return {}
  }
}

/** Whatever was thrown: it may be anything, and may itself throw when it is looked at. */
function inWords(error: unknown): string {
  try {
    return (error instanceof Error ? `${error.name}: ${error.message}` : String(error)).slice(0, 2_000)
  } catch {
    return 'something that cannot be put into words'
  }
}

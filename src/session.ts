/** One session by its key: its transcript. Holds nothing but the key; which session id the key names is asked on every call. */

import type { CompactBytesOptions, CompactBytesReceipt, CompactOptions, CompactReceipt } from './archives.js'
import type { Backend, MaintenancePort } from './backend.js'
import { checkAppend, checkCompact, checkCompactBytes, checkRead, checkTail, checkWait, encodeRecords } from './input.js'
import { compactContext } from './maintenance/compaction/context.js'
import type {
  AppendOptions,
  AppendReceipt,
  ReadOptions,
  RotateReceipt,
  StoredRecord,
  TailOptions,
  TranscriptRecord,
  WaitOptions,
} from './types.js'

export interface SessionTools {
  readonly backend: Backend
  readonly maintenance: MaintenancePort
  readonly recordBytesMax: number
  run<R>(work: () => Promise<R>): Promise<R>
  assertOpen(): void
}

export class Session {
  readonly key: string
  #tools: SessionTools

  constructor(key: string, tools: SessionTools) {
    this.key = key
    this.#tools = tools
  }

  /** Appends in order, all or nothing. Once resolved, the records survive a power cut (durability `power`) or a kill (`process`).
   *
   *  @param records  one, or 1 to 1,000, of at most 64 MiB together; each a JSON object of at most `recordBytesMax` bytes without top-level
   *         `$` or `$$`.
   *  @throws INVALID_RECORD, RECORD_TOO_LARGE  effect none · SEQ_CONFLICT  effect none: read on and decide again · LOCK_TIMEOUT  effect none:
   *          somebody held the transcript for the whole wait; details name the holder · LOCK_LOST  overtaken again and again, see effect ·
   *          LOG_CORRUPT  effect none: the transcript is damaged · DISK_FULL  effect none · IO_FAILED  see effect: when unknown, append again
   *          with the same `id` · STORE_POISONED  effect none: open the store anew. */
  append(records: TranscriptRecord | readonly TranscriptRecord[], options?: AppendOptions): Promise<AppendReceipt> {
    return this.#tools.run(() => {
      const checked = checkAppend(options)
      return this.#tools.backend.append(this.key, encodeRecords(records, this.#tools.recordBytesMax), checked)
    })
  }

  /** The records in order, those acknowledged before the call among them. Nothing for a session that does not exist.
   *  @throws LOG_CORRUPT  when it comes to damage, after everything before it has been handed out. */
  read(options?: ReadOptions): AsyncIterable<StoredRecord> {
    const checked = checkRead(options)
    this.#tools.assertOpen()
    return this.#read(checked)
  }

  async *#read(options: ReadOptions): AsyncGenerator<StoredRecord> {
    this.#tools.assertOpen()
    for await (const record of this.#tools.backend.read(this.key, options)) {
      this.#tools.assertOpen()
      yield record
    }
  }

  /** The last `count` records, oldest first. Costs what they cost, however long the transcript is. */
  async tail(count: number, options?: TailOptions): Promise<StoredRecord[]> {
    const checked = checkTail(count, options)
    this.#tools.assertOpen()
    return count === 0 ? [] : this.#tools.backend.tail(this.key, count, checked)
  }

  /** Lets a summary stand for what was said long ago: whoever reads with `compacted: true` gets it in the place of those records. Changes and
   *  removes none of them. The summary is made with no lock held, and committed against what it was made from: what was appended meanwhile
   *  stands behind it, what waits for a turn is never behind it.
   *  @throws what `summarize` throws, the signal's reason: nothing is written · SEQ_CONFLICT  effect none: the session was rotated or deleted
   *          meanwhile · INVALID_RECORD, RECORD_TOO_LARGE  of the summary · and as `append`. */
  async compact(options: CompactOptions): Promise<CompactReceipt> {
    const checked = checkCompact(options)
    return this.#tools.run(() => compactContext(this.#tools.backend, this.key, checked, this.#tools.recordBytesMax))
  }

  /** Writes the transcript anew without void lines and without the records that a summary stands for. The whole of the old file goes to
   *  `archive/`. The copy is made with no lock held; others go on reading and appending. Sequence numbers, ids and requests stay what they were.
   *  @throws the signal's reason, DISK_FULL  effect none · LOG_CORRUPT  effect none: the transcript is damaged · LOCK_TIMEOUT, LOCK_LOST. */
  async compactBytes(options?: CompactBytesOptions): Promise<CompactBytesReceipt> {
    const checked = checkCompactBytes(options)
    return this.#tools.run(() => this.#tools.maintenance.compactBytes(this.key, checked))
  }

  /** Goes on under a new session id; the old transcript is closed and kept in `archive/`.
   *  @throws NOT_FOUND  there is no such session. */
  async rotate(options: WaitOptions & { reason?: string } = {}): Promise<RotateReceipt> {
    const { reason = 'rotated', ...wait } = options
    const checked = checkWait(wait)
    return this.#tools.run(() => this.#tools.backend.rotate(this.key, reason, checked))
  }
}

/** One append, as a part of a commit. */
import type { EncodedRecord } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { AppendOptions, AppendReceipt, WaitOptions } from '../../types.js'
import type { Job } from '../job.js'
import { withId, withPart } from '../log/record.js'
import { earlierReceipt } from './receipts.js'
import type { Transcript } from './transcript.js'
import { assertActive, type Fence } from './turn-jobs.js'

/** A part of a commit to a transcript. `nameDurable`: what else must be on the disk, the metadata record that names the session. */
export type JobFor<R> = (transcript: Transcript, nameDurable: () => Promise<void> | undefined) => Job<R>
export type CommitOptions = WaitOptions &
  Pick<AppendOptions, 'requestId' | 'channelId'> & {
    /** What to throw for a key that names no session, where none shall be made for it. */
    readonly absent?: () => Error
    /** With it, a turn is over. */
    readonly endsTurn?: boolean
  }

/** A class, since a thousand of them may be made at once. */
export class AppendJob implements Job<AppendReceipt> {
  #transcript: Transcript
  #records: readonly EncodedRecord[]
  #options: AppendOptions
  #fence: Fence | undefined
  #earlier: AppendReceipt | undefined
  readonly alsoDurable: () => Promise<void> | undefined

  /** @param nameDurable  what else must be on the disk: the metadata record that names the session.
   *  @param fence  the turn on whose behalf it is. */
  constructor(
    transcript: Transcript,
    records: readonly EncodedRecord[],
    options: AppendOptions,
    nameDurable: () => Promise<void> | undefined,
    fence?: Fence,
  ) {
    this.#transcript = transcript
    this.#records = records
    this.#options = options
    this.alsoDurable = nameDurable
    this.#fence = fence
  }

  get about() {
    const { key, sessionId } = this.#transcript
    return { key, sessionId, requestId: this.#options.requestId, channelId: this.#options.channelId }
  }

  run(): readonly string[] {
    const transcript = this.#transcript
    const records = this.#records
    const { id } = this.#options
    if (this.#fence) assertActive(transcript, this.#fence)
    const { batch } = transcript
    this.#earlier = id === undefined ? undefined : earlierReceipt(transcript, id)
    if (this.#earlier) return []
    assertExpected(transcript, this.#options)
    if (id !== undefined) batch.ids.add(id)
    batch.next += records.length
    batch.userSeq = batch.next - 1
    const by = this.#fence?.turn
    return records.map(({ json }, at) => {
      if (id !== undefined && at === 0) return withId(json, id, records.length, by)
      return by === undefined ? json : withPart(json, { by })
    })
  }

  applied(seqs: readonly number[]): void {
    const { id } = this.#options
    const transcript = this.#transcript
    if (id === undefined || this.#earlier) return
    transcript.remember(id, { sessionId: transcript.sessionId, seq: seqs[seqs.length - 1]!, count: seqs.length })
  }

  result(seqs: readonly number[]): AppendReceipt {
    return this.#earlier ?? { sessionId: this.#transcript.sessionId, seq: seqs[seqs.length - 1]!, seqs, duplicate: false }
  }

  dependsOn(): number {
    return this.#earlier?.sessionId === this.#transcript.sessionId ? this.#earlier.seq : -1
  }
}

function assertExpected({ sessionId, key, batch, label }: Transcript, { expectedSeq, expectedSessionId }: AppendOptions): void {
  if (expectedSessionId !== undefined && expectedSessionId !== sessionId)
    throw new StoreError('SEQ_CONFLICT', `${JSON.stringify(key)} names the session ${sessionId} now, not ${expectedSessionId}.`, {
      details: { sessionId, key, expectedSessionId },
      hint: 'Nothing was written. The session was rotated or deleted meanwhile: read the new one, then decide again.',
    })
  if (expectedSeq !== undefined && expectedSeq !== batch.userSeq && expectedSeq !== batch.next - 1)
    throw new StoreError('SEQ_CONFLICT', `${label}: expected seq ${expectedSeq}, found ${batch.userSeq}.`, {
      details: { sessionId, key, expectedSeq, actualSeq: batch.userSeq },
      hint: 'Nothing was written. Read what has been added since, then decide again.',
    })
}

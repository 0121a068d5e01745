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

/** @param nameDurable  what else must be on the disk: the metadata record that names the session.
 *  @param fence  the turn on whose behalf it is. */
export function appendJob(
  transcript: Transcript,
  records: readonly EncodedRecord[],
  options: AppendOptions,
  nameDurable: () => Promise<void> | undefined,
  fence?: Fence,
): Job<AppendReceipt> {
  const { id, expectedSeq, expectedSessionId } = options
  const { sessionId, key } = transcript
  let earlier: AppendReceipt | undefined
  return {
    about: { key, sessionId, requestId: options.requestId, channelId: options.channelId },
    run: () => {
      if (fence) assertActive(transcript, fence)
      const { batch } = transcript
      earlier = id === undefined ? undefined : earlierReceipt(transcript, id)
      if (earlier) return []
      if (expectedSessionId !== undefined && expectedSessionId !== sessionId)
        throw new StoreError('SEQ_CONFLICT', `${JSON.stringify(key)} names the session ${sessionId} now, not ${expectedSessionId}.`, {
          details: { sessionId, key, expectedSessionId },
          hint: 'Nothing was written. The session was rotated or deleted meanwhile: read the new one, then decide again.',
        })
      if (expectedSeq !== undefined && expectedSeq !== batch.userSeq && expectedSeq !== batch.next - 1)
        throw new StoreError('SEQ_CONFLICT', `${transcript.label}: expected seq ${expectedSeq}, found ${batch.userSeq}.`, {
          details: { sessionId, key, expectedSeq, actualSeq: batch.userSeq },
          hint: 'Nothing was written. Read what has been added since, then decide again.',
        })
      if (id !== undefined) batch.ids.add(id)
      batch.next += records.length
      batch.userSeq = batch.next - 1
      const by = fence?.turn
      return records.map(({ json }, at) => {
        if (id !== undefined && at === 0) return withId(json, id, records.length, by)
        return by === undefined ? json : withPart(json, { by })
      })
    },
    applied: (seqs) => {
      if (id !== undefined && !earlier) transcript.remember(id, { sessionId, seq: seqs[seqs.length - 1]!, count: seqs.length })
    },
    result: (seqs) => earlier ?? { sessionId, seq: seqs[seqs.length - 1]!, seqs, duplicate: false },
    dependsOn: () => (earlier?.sessionId === sessionId ? earlier.seq : -1),
    alsoDurable: nameDurable,
  }
}

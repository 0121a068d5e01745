/** What callers are told of what has been settled before: by an earlier call with the same id, or by a seal that stands. */
import { isStoreError, withEffectUnknown } from '../../errors.js'
import type { AppendReceipt } from '../../types.js'
import type { Transcript } from './transcript.js'

/** The first append's receipt; undefined when there was none. @throws Preparation when that is not known yet. */
export function earlierReceipt(transcript: Transcript, id: string): AppendReceipt | undefined {
  // Somebody in this very batch has the same id: once that one has landed, this one finds it.
  if (transcript.batch.ids.has(id)) throw transcript.comeBack()
  const earlier = transcript.ids.get(id)
  if (!earlier) return undefined
  const { sessionId, seq, count } = earlier
  return { sessionId, seq, seqs: Array.from({ length: count }, (_, at) => seq - count + 1 + at), duplicate: true }
}

/** After the point of no return: whoever comes next finishes, and what goes wrong from here on undoes nothing. */
export function decided(error: unknown): unknown {
  if (!isStoreError(error) || error.effect !== 'none') return error
  return withEffectUnknown(error, 'It is decided, and the next call on this session finishes it.')
}

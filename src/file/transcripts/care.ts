/** What maintenance does to the transcripts of a store that is in use. */
import { StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'
import type { Metadata } from '../metadata/metadata.js'
import type { BytesDone, BytesOptions } from './compaction.js'
import type { Transcripts } from './transcripts.js'

const movesMax = 100

/** Writes the key's transcript anew without what can go. undefined when there is nothing, or no such session. */
export async function compactTranscript(
  transcripts: Transcripts,
  metadata: Metadata,
  key: string,
  options: BytesOptions,
): Promise<(BytesDone & { readonly sessionId: string }) | undefined> {
  for (let moves = 0; moves < movesMax; moves++) {
    options.signal?.throwIfAborted()
    const sessionId = await metadata.sessionIdOf(key)
    if (!sessionId) return undefined
    const done = await transcripts.pinned(sessionId, key, (open) => transcripts.compaction.compact(open, options))
    if (done !== 'again') return done && { sessionId, ...done }
    await bringUpToDate(transcripts, key, options)
  }
  throw new StoreError('LOCK_LOST', `the session of ${JSON.stringify(key)} is being replaced faster than it can be copied.`, {
    details: { key },
    hint: 'Nothing was written. Try again.',
  })
}

/** Finishes what the key's log may be sealed for. */
export async function bringUpToDate(transcripts: Transcripts, key: string, options: WaitOptions): Promise<void> {
  const gone = new Error('gone')
  const nothing = { run: () => [], result: () => undefined }
  await transcripts
    .commit(key, { signal: options.signal, waitMs: options.waitMs, absent: () => gone }, () => nothing)
    .catch((error: unknown) => {
      if (error !== gone) throw error
    })
}

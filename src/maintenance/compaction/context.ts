/** Compaction of context: what was said long ago is summarized, and whoever reads with `compacted: true` gets the summary in its place.
 *
 *  1 read what there is to summarize          nothing is held: no lock, no turn
 *  2 the caller's function makes the summary  may take minutes; others go on appending
 *  3 commit it                                against the session and the place that were read; nothing else is asked of the log
 *  A crash before 3 leaves nothing. No record is changed or removed by any of it. */

import type { CompactOptions, CompactReceipt } from '../../archives.js'
import type { Backend } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { StoredRecord } from '../../types.js'
import { chatCuts } from './cuts.js'

export async function compactContext(
  backend: Backend,
  key: string,
  options: CompactOptions & { readonly keepLast: number },
  textBytesMax: number,
): Promise<CompactReceipt> {
  const { signal, keepLast, summarize, cutBefore, waitMs, requestId, channelId } = options
  signal?.throwIfAborted()
  const found = await backend.summarizable(key, signal)
  const none = { compacted: false, sessionId: found?.sessionId, seq: undefined, upTo: undefined, records: 0 }
  if (!found) return none
  const { sessionId, summary, records, cuts, base } = found
  const at = placeOf(records, records.length - keepLast, cuts, cutBefore)
  if (at <= 0) return none
  const earlier = summary ? [summary] : []
  const text = await summarized(summarize, [...earlier, ...records.slice(0, at)], signal, textBytesMax)
  const standsFor = at + (summary ? Number(summary.record.records) : 0)
  const made = { sessionId, base, upTo: cuts.get(at)!, records: standsFor, text }
  const { ours, seq, upTo, records: count } = await backend.summarize(key, made, { signal, waitMs, requestId, channelId })
  return { compacted: ours, sessionId, seq, upTo, records: count }
}

/** The last place not behind `wanted` where the records may be parted; 0 for none. */
function placeOf(
  records: readonly StoredRecord[],
  wanted: number,
  cuts: ReadonlyMap<number, number>,
  cutBefore: CompactOptions['cutBefore'],
): number {
  const chat = cutBefore ? undefined : chatCuts(records)
  for (let at = wanted; at > 0; at--) if (cuts.has(at) && (cutBefore ? cutBefore(records, at) : chat![at])) return at
  return 0
}

async function summarized(
  summarize: CompactOptions['summarize'],
  records: readonly StoredRecord[],
  callers: AbortSignal | undefined,
  bytesMax: number,
): Promise<string> {
  const signal = callers ?? new AbortController().signal
  const text: unknown = await unlessAborted(signal, async () => summarize(records, { signal }))
  if (typeof text !== 'string' || text === '')
    throw new StoreError('INVALID_RECORD', `summarize gave ${text === '' ? 'an empty text' : `a ${typeof text}, not a text`}.`, {
      hint: 'Nothing was written. It returns the summary as a string, or a promise of one.',
    })
  if (Buffer.byteLength(text) > bytesMax)
    throw new StoreError('RECORD_TOO_LARGE', `the summary has ${Buffer.byteLength(text)} bytes, more than ${bytesMax}.`, {
      details: { bytes: Buffer.byteLength(text), recordBytesMax: bytesMax },
      hint: 'Nothing was written. Make a shorter summary, or raise recordBytesMax.',
    })
  return text
}

/** A function that does not heed its signal is not waited for; what it brings then is dropped. */
async function unlessAborted<R>(signal: AbortSignal, work: () => Promise<R>): Promise<R> {
  let stop = () => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work(), aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** A summary, as a part of a commit. It was made outside the lock from what the log held then; here it is decided whether it still may stand. */
import type { NewSummary, SummaryReceipt } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { Job } from '../job.js'
import { systemBody } from '../log/record.js'
import { summaryAfter } from './compacted-reading.js'
import type { Transcript } from './transcript.js'

export interface SummaryAbout {
  readonly requestId?: string | undefined
  readonly channelId?: string | undefined
}

/** Records that were appended meanwhile stand behind what it stands for. Nothing is written when somebody else's summary, that has come in
 *  since, stands for as much or more: then that one is the result. */
export function summaryJob(
  transcript: Transcript,
  summary: NewSummary,
  about: SummaryAbout,
  nowMs: () => number,
  nameDurable: () => Promise<void> | undefined,
): Job<SummaryReceipt> {
  const { sessionId, key, place } = transcript
  const { upTo, records, text, base } = summary
  let theirs: SummaryReceipt | undefined
  return {
    about: { key, sessionId, ...about },
    system: true,
    solo: true,
    run: (log) => {
      if (sessionId !== summary.sessionId) throw sessionGone(key, summary.sessionId, sessionId)
      const found = log.chain.seq > base ? summaryAfter(place, log.fd, log.size, base) : undefined
      theirs = found && found.upTo >= upTo ? { ours: false, seq: found.seq, upTo: found.upTo, records: found.records } : undefined
      return theirs ? [] : [systemBody({ summary: { upTo, records, text, at: nowMs() } })]
    },
    result: (seqs) => theirs ?? { ours: true, seq: seqs[0]!, upTo, records },
    dependsOn: () => theirs?.seq ?? -1,
    alsoDurable: nameDurable,
  }
}

export function sessionGone(key: string, expectedSessionId: string, sessionId?: string): StoreError {
  return new StoreError('SEQ_CONFLICT', `${JSON.stringify(key)} names ${sessionId ?? 'no session'} now, not ${expectedSessionId}.`, {
    details: { key, sessionId, expectedSessionId },
    hint: 'Nothing was written. The session was rotated or deleted meanwhile; the archive has what was said in it.',
  })
}

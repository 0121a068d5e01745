/** What the database has refused, as errors of ours. Nothing was written in any of them. */
import { StoreError } from '../../errors.js'
import type { AppendOptions } from '../../types.js'

export interface FenceOf {
  readonly key: string
  readonly sessionId: string
  readonly turn: number
}

/** @param line  as the function `append` answers */
export function refusedAppend(key: string, line: string, options: AppendOptions, fence: FenceOf | undefined): StoreError {
  const [outcome, sessionId = '', number = '', why = ''] = line.split('|')
  if (outcome === 'lost' && fence) return lostTurn(fence, why, Number(number))
  const { expectedSeq, expectedSessionId } = options
  if (outcome === 'session') return sessionGone(key, String(expectedSessionId), sessionId)
  if (outcome === 'seq')
    return new StoreError('SEQ_CONFLICT', `${JSON.stringify(key)}: expected seq ${expectedSeq}, found ${number}.`, {
      details: { sessionId, key, expectedSeq, actualSeq: Number(number) },
      hint: 'Nothing was written. Read what has been added since, then decide again.',
    })
  return new StoreError('INVARIANT', `the database answered ${JSON.stringify(line)} to an append.`, { effect: 'unknown' })
}

export function sessionGone(key: string, expectedSessionId: string, sessionId: string): StoreError {
  return new StoreError('SEQ_CONFLICT', `${JSON.stringify(key)} names ${sessionId || 'no session'} now, not ${expectedSessionId}.`, {
    details: { key, sessionId: sessionId || undefined, expectedSessionId },
    hint: 'Nothing was written. The session was rotated or deleted meanwhile: read the new one, then decide again.',
  })
}

/** @param why  deleted · session: closed, the key goes on under another · lease: taken over · turn: ended, or another has begun */
export function lostTurn({ key, sessionId, turn }: FenceOf, why: string, last: number): StoreError {
  const reasons: Record<string, string> = {
    deleted: 'the session was deleted',
    session: 'the session was closed and goes on under another id',
    lease: 'its lease was taken over',
  }
  const reason = reasons[why] ?? (last > turn ? `turn ${last} has begun since` : 'it has ended')
  return new StoreError('TURN_LOST', `turn ${turn} of ${JSON.stringify(key)} is over: ${reason}.`, {
    details: { key, sessionId, turn, why: reason },
    hint: 'Nothing was written by this call. What the turn appended before stands; stop working on it.',
  })
}

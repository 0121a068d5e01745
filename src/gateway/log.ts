/** What the gateway says of itself, one line at a time. */
import type { WhenBusy } from '../index.js'

/** One for each chat request that has come as far as having a session key. */
export interface TurnLog {
  readonly event: 'turn'
  /** When it ended, ISO 8601. */
  readonly at: string
  readonly requestId: string
  readonly channelId: string | undefined
  readonly key: string
  readonly sessionId: string | undefined
  readonly turn: number | undefined
  readonly attempt: number | undefined
  /** rejected: it came to no turn. */
  readonly outcome: 'completed' | 'coalesced' | 'duplicate' | 'interrupted' | 'failed' | 'rejected'
  /** Of the response; of a stream, what it would have been had the headers not been sent. */
  readonly status: number
  readonly lane: string
  readonly whenBusy: WhenBusy
  readonly model: string
  readonly stream: boolean
  /** From the request's arrival to the beginning of its turn. */
  readonly waitedMs: number
  readonly tookMs: number
  readonly finishReason: string | undefined
  readonly error: { readonly code: string; readonly effect: string; readonly detail: string } | undefined
}

/** One for each other request that failed for a reason of ours. */
export interface FailureLog {
  readonly event: 'failure'
  readonly at: string
  readonly method: string
  readonly url: string
  readonly status: number
  readonly code: string
  readonly detail: string
}

export type GatewayLog = TurnLog | FailureLog

/** From whatever was thrown to what the client is told: a status, an error body in the shape of the OpenAI API, and whether to try again. */
import { type ErrorCode, isStoreError, type StoreError } from '../index.js'

export interface ChatErrorFields {
  readonly type?: string
  readonly param?: string | undefined
  readonly retryAfterMs?: number | undefined
  /** May the same request work later? Default: only for 408, 409, 429 and 5xx. */
  readonly retryable?: boolean
  readonly headers?: Readonly<Record<string, string>>
  readonly cause?: unknown
}

/** A refusal or failure that is meant for the client's eyes. Models throw it to choose the status and the words. */
export class ChatError extends Error {
  override readonly name = 'ChatError'
  readonly status: number
  readonly code: string
  readonly fields: ChatErrorFields

  constructor(status: number, code: string, message: string, fields: ChatErrorFields = {}) {
    super(message, 'cause' in fields ? { cause: fields.cause } : undefined)
    this.status = status
    this.code = code
    this.fields = fields
  }
}

/** The client is gone, by its connection or by reading nothing. 499 is nginx's number for it; nobody reads it but the log. */
export function isGone(error: unknown): boolean {
  return error instanceof ChatError && error.status === 499
}

/** none, unknown: as of a StoreError. input: what the request brought is in the conversation, a whole reply is not. */
export type FailureEffect = 'none' | 'unknown' | 'input'

export interface Failure {
  readonly status: number
  readonly type: string
  readonly code: string
  /** For the client. */
  readonly message: string
  /** For the log: with paths, and with what a model said of itself. */
  readonly detail: string
  readonly param: string | undefined
  readonly effect: FailureEffect
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined
  readonly headers: Readonly<Record<string, string>>
  /** Of a conversation that is busy: the turn that has it. */
  readonly turn: number | undefined
}

/** Every code has to say what it is over HTTP. Damage and our own bugs are 500: no client can do anything about them. */
const statuses: Readonly<Record<ErrorCode, number>> = {
  INVALID_KEY: 400,
  INVALID_RECORD: 400,
  INVALID_OPTION: 500,
  INVALID_ENTRY: 500,
  RECORD_TOO_LARGE: 413,
  ASYNC_MUTATOR: 500,
  STORE_CLOSED: 503,
  NOT_FOUND: 404,
  LOCK_TIMEOUT: 503,
  TURN_BUSY: 409,
  LANE_FULL: 429,
  LOCK_LOST: 503,
  TURN_LOST: 409,
  SEQ_CONFLICT: 409,
  STORE_CORRUPT: 500,
  LOG_CORRUPT: 500,
  BACKUP_MISMATCH: 500,
  STORE_FORMAT_UNSUPPORTED: 500,
  IO_FAILED: 503,
  DISK_FULL: 507,
  STORE_POISONED: 500,
  BACKEND_UNAVAILABLE: 503,
  INVARIANT: 500,
}

/** What is said of a store that has failed. Its own words name files and processes, and go to the log. */
const storeWords: Partial<Record<ErrorCode, string>> = {
  STORE_CLOSED: 'The gateway is shutting down. Try again.',
  LOCK_TIMEOUT: 'The session store was busy for too long. Try again.',
  LOCK_LOST: 'The session store was overtaken by other writers again and again. Try again.',
  TURN_LOST:
    'The turn was taken over: another turn of this session has begun since, or the session was reset. This reply has not been stored.',
  SEQ_CONFLICT: 'The session has changed meanwhile. Try again.',
  LOG_CORRUPT: 'The transcript of this session is damaged; a person has to look at it.',
  STORE_CORRUPT: 'The session store is damaged; a person has to look at it.',
  DISK_FULL: 'The disk of the session store is full.',
}

const types: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  409: 'conflict_error',
  429: 'rate_limit_error',
}

const typeOf = (status: number) => types[status] ?? (status >= 500 ? 'server_error' : 'invalid_request_error')
const mayPass = (status: number) => status === 408 || status === 409 || status === 429 || status >= 500
const defaultRetryMs: Readonly<Record<number, number>> = { 409: 1_000, 429: 1_000, 503: 1_000 }

/** @param inputStored  the request's messages were in the conversation when it failed. */
export function failureOf(error: unknown, inputStored: boolean): Failure {
  if (isStoreError(error)) return storeFailure(error, inputStored)
  const known = error instanceof ChatError ? error : unknownError(error, inputStored)
  const { status, code, fields } = known
  const retryable = fields.retryable ?? mayPass(status)
  return {
    status,
    type: fields.type ?? typeOf(status),
    code,
    message: known.message,
    detail: detailOf(known === error && fields.cause !== undefined ? fields.cause : error),
    param: fields.param,
    effect: inputStored ? 'input' : 'none',
    retryable,
    retryAfterMs: retryable ? (fields.retryAfterMs ?? defaultRetryMs[status]) : undefined,
    headers: fields.headers ?? {},
    turn: undefined,
  }
}

function unknownError(error: unknown, inputStored: boolean): ChatError {
  // A value nested so deeply that JSON.stringify gives up. JSON.parse does not.
  if (error instanceof RangeError) return new ChatError(400, 'nested_too_deeply', 'The request is nested too deeply.')
  if (inputStored)
    return new ChatError(502, 'model_failed', 'The model failed. What it said is in the log of the gateway.', { cause: error })
  return new ChatError(500, 'internal_error', 'The gateway failed. What happened is in its log.', { cause: error })
}

function storeFailure(error: StoreError, inputStored: boolean): Failure {
  const { code, details, retryable } = error
  const status = statuses[code]
  const said = error.kind === 'misuse' || error.kind === 'busy' ? error.message : `The session store failed (${code}).`
  return {
    status,
    type: typeOf(status),
    code,
    message: storeWords[code] ?? said,
    detail: detailOf(error),
    param: undefined,
    effect: inputStored ? 'input' : error.effect,
    retryable,
    retryAfterMs: retryable ? (milliseconds(details.retryAfterMs) ?? defaultRetryMs[status]) : undefined,
    headers: {},
    turn: typeof details.turn === 'number' ? details.turn : undefined,
  }
}

const milliseconds = (value: unknown) => (typeof value === 'number' && value >= 0 && Number.isFinite(value) ? Math.ceil(value) : undefined)

function detailOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const because = error.cause instanceof Error ? `: ${error.cause.message}` : ''
  return `${isStoreError(error) ? '' : `${error.name}: `}${error.message}${because}`
}

export function errorBody(failure: Failure): { error: Record<string, unknown> } {
  const { message, type, param, code, effect, retryable, retryAfterMs } = failure
  return {
    error: {
      message,
      type,
      param: param ?? null,
      code,
      effect,
      retryable,
      ...(retryAfterMs === undefined ? {} : { retry_after_ms: retryAfterMs }),
    },
  }
}

/** `x-should-retry` is what the official clients obey: without it they try every 409, 429 and 5xx again, also when that would say everything
 *  twice. With an idempotency key a second try is safe whatever has happened; without one only when nothing was written. */
export function retryHeaders(failure: Failure, idempotent: boolean): Record<string, string> {
  const { status, retryable, effect, retryAfterMs, headers } = failure
  if (!mayPass(status)) return { ...headers }
  const again = retryable && (idempotent || effect === 'none')
  const seconds = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000))
  return {
    ...headers,
    'x-should-retry': String(again),
    ...(seconds === undefined ? {} : { 'retry-after': String(seconds) }),
  }
}

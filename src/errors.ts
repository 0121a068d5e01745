/** One class for every refusal and failure. What matters to a caller is in the fields, not in the class:
 *  `kind` says whose turn it is to act, `effect` whether anything was written, `retryable` whether the same call may work later. */

/** misuse: fix the call · busy: somebody else is at it, try again · superseded: the world moved on, read and decide again ·
 *  damaged: bytes are wrong, a person should look · failed: the machine refused · bug: ours, please report. */
export type ErrorKind = 'misuse' | 'busy' | 'superseded' | 'damaged' | 'failed' | 'bug'

/** none: nothing of this call is in the store, nor will be. unknown: it may be there; read before trying again, or append with an `id`. */
export type Effect = 'none' | 'unknown'

const table = {
  INVALID_KEY: ['misuse', false],
  INVALID_RECORD: ['misuse', false],
  INVALID_OPTION: ['misuse', false],
  INVALID_ENTRY: ['misuse', false],
  RECORD_TOO_LARGE: ['misuse', false],
  ASYNC_MUTATOR: ['misuse', false],
  STORE_CLOSED: ['misuse', false],
  NOT_FOUND: ['misuse', false],
  LOCK_TIMEOUT: ['busy', true],
  TURN_BUSY: ['busy', true],
  LANE_FULL: ['busy', true],
  LOCK_LOST: ['superseded', true],
  TURN_LOST: ['superseded', false],
  SEQ_CONFLICT: ['superseded', false],
  STORE_CORRUPT: ['damaged', false],
  LOG_CORRUPT: ['damaged', false],
  BACKUP_MISMATCH: ['damaged', false],
  STORE_FORMAT_UNSUPPORTED: ['damaged', false],
  IO_FAILED: ['failed', true],
  DISK_FULL: ['failed', true],
  STORE_POISONED: ['failed', false],
  BACKEND_UNAVAILABLE: ['failed', true],
  INVARIANT: ['bug', false],
} as const satisfies Record<string, readonly [ErrorKind, boolean]>

export type ErrorCode = keyof typeof table

/** Every code, in the order of docs/errors.md. */
export const errorCodes = Object.keys(table) as ErrorCode[]

export interface StoreErrorFields {
  /** Default `none`: most refusals happen before the first byte is written. */
  effect?: Effect
  /** Default: as the code says. */
  retryable?: boolean
  details?: Readonly<Record<string, unknown>>
  /** The next step, as a sentence to a person. */
  hint?: string
  cause?: unknown
}

const brand = Symbol.for('holdfast.StoreError')

export class StoreError extends Error {
  override readonly name = 'StoreError'
  readonly code: ErrorCode
  readonly kind: ErrorKind
  readonly effect: Effect
  readonly retryable: boolean
  readonly details: Readonly<Record<string, unknown>>
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, fields: StoreErrorFields = {}) {
    super(`${code} ${message}${fields.hint ? ` ${fields.hint}` : ''}`, 'cause' in fields ? { cause: fields.cause } : undefined)
    const [kind, retryable] = table[code]
    this.code = code
    this.kind = kind
    this.effect = fields.effect ?? 'none'
    this.retryable = fields.retryable ?? retryable
    this.details = fields.details ?? {}
    this.hint = fields.hint
    Object.defineProperty(this, brand, { value: true })
  }
}

/** True for a StoreError of any copy of this package, and of the given code when one is named. */
export function isStoreError(error: unknown, code?: ErrorCode): error is StoreError {
  return (
    error instanceof Error &&
    (error as { [brand]?: unknown })[brand] === true &&
    (code === undefined || (error as StoreError).code === code)
  )
}

/** The same error of a call of which something has been written, or decided, before. */
export function withEffectUnknown(error: StoreError, hint: string): StoreError {
  const text = error.message.slice(error.code.length + 1, error.hint ? -error.hint.length - 1 : undefined)
  return new StoreError(error.code, text, {
    effect: 'unknown',
    details: error.details,
    cause: error,
    hint,
  })
}

export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}

const full = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])
const hints: Record<string, string> = {
  ENOSPC: 'The disk is full: free space, then try again; what was acknowledged is intact.',
  EDQUOT: 'The disk quota is used up: free space, then try again; what was acknowledged is intact.',
  EFBIG: 'The file may not grow further (a file size limit): raise it or rotate the session.',
  EROFS: 'The file system is read-only: remount it, or open the store with { readOnly: true }.',
  EMFILE: 'This process has too many open files: raise `ulimit -n` or close what is not needed, then try again.',
  ENFILE: 'The machine has too many open files: close some, then try again.',
  EACCES: 'Permission denied: the store must belong to the user that writes it (directories 0700, files 0600).',
  EPERM: 'Not permitted: the store must belong to the user that writes it (directories 0700, files 0600).',
  EIO: 'The disk reported an error: look at the kernel log before trusting this disk further.',
  ENOENT: 'A file or directory of the store is missing: was it moved or removed while open?',
}

/** Turns what the operating system said into a StoreError; a StoreError passes through as it is. */
export function ioError(error: unknown, doing: string, effect: Effect): StoreError {
  if (isStoreError(error)) return error
  const errno = errnoOf(error)
  const code: ErrorCode = errno && full.has(errno) ? 'DISK_FULL' : errno ? 'IO_FAILED' : 'INVARIANT'
  const said = error instanceof Error ? error.message : String(error)
  return new StoreError(code, `${doing}: ${said}.`, {
    effect,
    cause: error,
    details: { errno, doing, path: (error as NodeJS.ErrnoException | undefined)?.path },
    hint: (errno && hints[errno]) ?? (code === 'INVARIANT' ? 'This is a bug in holdfast; please report it with this message.' : undefined),
  } as StoreErrorFields)
}

/** What the exit code of `holdfast` says, and what goes to stderr with it. Scripts rely on these numbers. */
import { errnoOf, isStoreError } from '../errors.js'
import { plain, visible } from './output.js'

export const exitCodes = {
  ok: 0,
  /** The command did its work and what it found is not in order: damage, something that an import left out, no turn to interrupt. */
  found: 1,
  /** Wrong options, an unknown session key, a path that is not there. Nothing was done. */
  usage: 2,
  /** The store or the machine refused: no store there, a lock that stayed held, a full disk. */
  failed: 3,
  interrupted: 130,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

export const exitCodesHelp = `
Exit codes: 0 done · 1 damage found, something left out, or no turn to interrupt · 2 wrong use · 3 the store or the disk refused · 130 interrupted`

/** A refusal of the command line itself; what the store refuses is a StoreError. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
  constructor(
    readonly exitCode: ExitCode,
    message: string,
    /** The next step, as a sentence. */
    readonly hint: string,
  ) {
    super(message)
  }
}

export interface Failure {
  readonly exitCode: ExitCode
  readonly code: string
  readonly message: string
  readonly hint: string | undefined
  readonly effect: 'none' | 'unknown' | undefined
  readonly retryable: boolean | undefined
  /** Only of a bug: where it happened. */
  readonly stack?: string | undefined
}

export function failureOf(error: unknown): Failure {
  if (error instanceof CommandError) {
    const code = error.exitCode === exitCodes.usage ? 'USAGE' : 'FAILED'
    return { exitCode: error.exitCode, code, message: error.message, hint: error.hint, effect: 'none', retryable: false }
  }
  if (isStoreError(error)) {
    const { code, message, hint, effect, retryable } = error
    return { exitCode: storeExitCode(error.kind, code), code, message, hint, effect, retryable }
  }
  const errno = errnoOf(error)
  const message = error instanceof Error ? error.message : String(error)
  return {
    exitCode: exitCodes.failed,
    code: errno ?? 'BUG',
    message,
    hint: errno ? undefined : 'This is a bug in holdfast; please report it with the lines above.',
    effect: undefined,
    retryable: undefined,
    stack: errno || !(error instanceof Error) ? undefined : error.stack,
  }
}

function storeExitCode(kind: string, code: string): ExitCode {
  if (kind === 'misuse') return exitCodes.usage
  // A format of a later release is not damage, only not for this one.
  if (kind === 'damaged' && code !== 'STORE_FORMAT_UNSUPPORTED') return exitCodes.found
  return exitCodes.failed
}

/** One paragraph for a person, one JSON line for a program. */
export function printFailure(failure: Failure, json: boolean): void {
  const { exitCode, stack, ...error } = failure
  if (json) {
    process.stderr.write(`${visible(JSON.stringify({ error: { ...error, exitCode } }))}\n`)
    return
  }
  // A StoreError's message already begins with its code and ends with its hint.
  const parts = [failure.message, ...(failure.hint && !failure.message.includes(failure.hint) ? [failure.hint] : [])]
  if (stack) process.stderr.write(`${stack}\n`)
  process.stderr.write(`holdfast: ${parts.map((part) => plain(part)).join(' ')}\n`)
}

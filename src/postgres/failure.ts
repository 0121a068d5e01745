/** What a database says when it refuses, and what it does not say when it is gone. Decides, touches nothing. */
import { isStoreError, StoreError } from '../errors.js'

/** refused: it says no, and will say no again · again: nothing was done, and the same may work now · absent: nothing was done, it does not
 *  answer, or not for writers · lost: the connection broke while it was asked; whether it was done, only asking tells. */
export type Failure = 'refused' | 'again' | 'absent' | 'lost'

/** @param asked  the statement had been handed to the connection. */
export function failureOf(error: unknown, asked: boolean): Failure {
  const state = stateOf(error)
  if (state === undefined) return asked ? 'lost' : 'absent'
  // 25006: a standby, perhaps about to be made the new primary. 57P03: it is starting. 53300: too many connections.
  if (['25006', '57P03', '53300'].includes(state)) return 'absent'
  if (state.startsWith('08') || ['57P01', '57P02', '57P05'].includes(state)) return asked ? 'lost' : 'absent'
  // Serialization, deadlock. A commit id that stands there already: an earlier try of the same has come in meanwhile.
  if (['40001', '40P01'].includes(state)) return 'again'
  return state === '23505' && fieldOf(error, 'constraint') === 'commits_pkey' ? 'again' : 'refused'
}

/** The SQLSTATE, if it is the server that speaks. */
export function stateOf(error: unknown): string | undefined {
  const code = fieldOf(error, 'code')
  return code !== undefined && fieldOf(error, 'severity') !== undefined && /^[0-9A-Z]{5}$/.test(code) ? code : undefined
}

function fieldOf(error: unknown, name: string): string | undefined {
  const value = error instanceof Error ? (error as unknown as Record<string, unknown>)[name] : undefined
  return typeof value === 'string' ? value : undefined
}

export function wordsOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(wordsOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}

/** What the server said no to, as an error of ours. Nothing was written. */
export function refusal(error: unknown, doing: string, waitMs: number): StoreError {
  if (isStoreError(error)) return error
  const state = stateOf(error)
  const fields = { cause: error, details: { doing, sqlState: state } }
  const text = `${doing}: ${wordsOf(error)}.`
  if (state === '55P03')
    return new StoreError('LOCK_TIMEOUT', `${doing}: waited ${waitMs} ms for rows that another transaction holds.`, {
      ...fields,
      hint: 'Nothing was written. Try again; `select * from pg_stat_activity` shows who holds them.',
    })
  if (state === 'HF001')
    return new StoreError('LOG_CORRUPT', text, {
      ...fields,
      hint: 'Nothing was written. Rows were changed by something other than this library; `verify` says more. Restore them from a backup.',
    })
  if (state === '53100' || state === '53200')
    return new StoreError('DISK_FULL', text, {
      ...fields,
      hint: 'Nothing was written. The server is out of space: free some, then try again; what was acknowledged is intact.',
    })
  if (state === '42501')
    return new StoreError('IO_FAILED', text, {
      ...fields,
      retryable: false,
      hint: 'Nothing was written. The role lacks a right: docs/postgres.md lists what it needs.',
    })
  if (state?.startsWith('28') || state === '3D000')
    return new StoreError('BACKEND_UNAVAILABLE', text, {
      ...fields,
      retryable: false,
      hint: 'Nothing was done. Check user, password and database in the connection string, and pg_hba.conf.',
    })
  if (state === '42P01' || state === '3F000' || state === '42883')
    return new StoreError('NOT_FOUND', text, {
      ...fields,
      hint: 'Nothing was done. The schema is not there, or not whole: open the store with { migrate: true } as its owner.',
    })
  return new StoreError(state === undefined ? 'INVARIANT' : 'IO_FAILED', text, { ...fields, hint: 'Nothing was written.' })
}

/** It did not answer, however often it was asked.
 *  @param unknown  a write was under way when the connection broke, and nobody could be asked what became of it. */
export function unavailable(error: unknown, doing: string, waitMs: number, unknown: boolean): StoreError {
  return new StoreError('BACKEND_UNAVAILABLE', `${doing}: the database did not answer for ${Math.round(waitMs)} ms: ${wordsOf(error)}.`, {
    effect: unknown ? 'unknown' : 'none',
    cause: error,
    details: { doing, waitMs, sqlState: stateOf(error) },
    hint: unknown
      ? 'The connection broke in mid-commit: it may have happened. Read before trying again, or append again with the same id.'
      : 'Nothing was written. Check that the server is up and can be reached, then try again.',
  })
}

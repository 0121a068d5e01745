/** What a caller may build on when a call fails: the fields, and that they mean the same everywhere. */
import { describe, expect, test, vi } from 'vitest'
import { type ErrorCode, type ErrorKind, errnoOf, errorCodes, ioError, isStoreError, StoreError } from '../src/errors.js'

const table: Record<ErrorCode, readonly [kind: ErrorKind, retryable: boolean]> = {
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
}

/** Another copy of the module, as a second installed version would be. */
async function secondCopy(): Promise<typeof import('../src/errors.js')> {
  vi.resetModules()
  return import('../src/errors.js')
}

function systemError(code: string, path = '/store/file'): Error {
  return Object.assign(new Error(`${code}: said so, write '${path}'`), { code, path })
}

describe('a code', () => {
  test('is one of these, and no other', () => {
    expect(errorCodes).toEqual(Object.keys(table))
  })

  test.each(Object.entries(table))('%s says whose turn it is, and whether the same call may work later', (code, [kind, retryable]) => {
    expect(new StoreError(code as ErrorCode, 'said so.')).toMatchObject({ code, kind, retryable })
  })
})

describe('an error', () => {
  test('says nothing was written unless it is told otherwise', () => {
    for (const code of errorCodes) expect(new StoreError(code, '').effect).toBe('none')
    expect(new StoreError('IO_FAILED', '', { effect: 'unknown' }).effect).toBe('unknown')
  })

  test('has details to look into even where there are none, and no cause where there was none', () => {
    const bare = new StoreError('NOT_FOUND', 'no such session.')
    expect(bare.details).toEqual({})
    expect(bare.hint).toBeUndefined()
    expect('cause' in bare).toBe(false)
    expect(new StoreError('NOT_FOUND', '', { cause: undefined })).toHaveProperty('cause', undefined)
  })

  test('begins its message with the code and ends it with the next step', () => {
    const error = new StoreError('LOCK_TIMEOUT', 'waited 10 ms.', { hint: 'Try again.' })
    expect(error.message).toBe('LOCK_TIMEOUT waited 10 ms. Try again.')
    expect(`${error}`).toBe('StoreError: LOCK_TIMEOUT waited 10 ms. Try again.')
    expect(error.stack).toContain('errors.test')
  })

  test('may know better than its code whether to try again', () => {
    expect(new StoreError('IO_FAILED', '', { retryable: false }).retryable).toBe(false)
    expect(new StoreError('SEQ_CONFLICT', '', { retryable: true }).retryable).toBe(true)
  })
})

describe('isStoreError', () => {
  test('knows errors of another copy of the module, which instanceof does not', async () => {
    const other = await secondCopy()
    expect(other.StoreError).not.toBe(StoreError)
    const theirs = new other.StoreError('LOCK_LOST', '')
    expect(theirs instanceof StoreError).toBe(false)
    expect(isStoreError(theirs)).toBe(true)
    expect(isStoreError(theirs, 'LOCK_LOST')).toBe(true)
    expect(isStoreError(theirs, 'LOCK_TIMEOUT')).toBe(false)
    expect(other.isStoreError(new StoreError('LOCK_LOST', ''), 'LOCK_LOST')).toBe(true)
    expect(ioError(theirs, 'appending', 'unknown')).toBe(theirs)
  })

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['a string', 'LOCK_LOST'],
    ['an error of somebody else with such a code', Object.assign(new Error('x'), { name: 'StoreError', code: 'LOCK_LOST' })],
    ['an object that looks like one', { name: 'StoreError', code: 'LOCK_LOST', kind: 'superseded', effect: 'none' }],
    ['what is left of one after JSON', JSON.parse(JSON.stringify(new StoreError('LOCK_LOST', '')))],
  ])('does not take %s for one', (_, value) => {
    expect(isStoreError(value)).toBe(false)
  })

  test('leaves no trace of its mark where fields are listed', () => {
    const error = new StoreError('LOCK_LOST', '', { details: { tries: 3 } })
    expect(Object.getOwnPropertySymbols(error).filter((it) => Object.prototype.propertyIsEnumerable.call(error, it))).toEqual([])
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({ code: 'LOCK_LOST', effect: 'none', details: { tries: 3 } })
  })
})

describe('what the operating system says', () => {
  test.each([
    ['ENOSPC', 'DISK_FULL', 'disk is full'],
    ['EDQUOT', 'DISK_FULL', 'quota'],
    ['EFBIG', 'DISK_FULL', 'file size limit'],
    ['EROFS', 'IO_FAILED', 'read-only'],
    ['EMFILE', 'IO_FAILED', 'ulimit'],
    ['ENFILE', 'IO_FAILED', 'too many open files'],
    ['EACCES', 'IO_FAILED', 'Permission denied'],
    ['EPERM', 'IO_FAILED', 'Not permitted'],
    ['EIO', 'IO_FAILED', 'kernel log'],
    ['ENOENT', 'IO_FAILED', 'missing'],
  ] as const)('%s is %s, and the hint says what to do', (errno, code, hint) => {
    const cause = systemError(errno)
    const error = ioError(cause, 'appending', 'unknown')
    expect(error).toMatchObject({ code, kind: 'failed', retryable: true, effect: 'unknown' })
    expect(error.cause).toBe(cause)
    expect(error.details).toEqual({ errno, doing: 'appending', path: '/store/file' })
    expect(error.hint).toContain(hint)
    expect(error.message).toBe(`${code} appending: ${cause.message}. ${error.hint}`)
  })

  test('an errno that nobody has thought of is IO_FAILED, without a hint', () => {
    expect(ioError(systemError('EBADMSG'), 'reading', 'none')).toMatchObject({ code: 'IO_FAILED', hint: undefined, effect: 'none' })
  })

  test.each([
    ['a bug of ours', new TypeError('x is not a function')],
    ['a complaint of Node about the call', Object.assign(new TypeError('bad'), { code: 'ERR_INVALID_ARG_TYPE' })],
    ['something that is not even an error', 'oh'],
    ['nothing', undefined],
  ])('%s is INVARIANT, and asks to be reported', (_, thrown) => {
    const error = ioError(thrown, 'appending', 'none')
    expect(error).toMatchObject({ code: 'INVARIANT', kind: 'bug', retryable: false, cause: thrown })
    expect(error.hint).toContain('report it')
  })

  test('a StoreError stays what it is, whatever was being done and whatever effect is claimed', () => {
    const error = new StoreError('SEQ_CONFLICT', '')
    expect(ioError(error, 'appending', 'unknown')).toBe(error)
    expect(error.effect).toBe('none')
  })

  test('an errno is what the system calls one', () => {
    expect(errnoOf(systemError('EIO'))).toBe('EIO')
    expect(errnoOf(systemError('E2BIG'))).toBe('E2BIG')
    expect(errnoOf(systemError('ERR_CLOSED'))).toBeUndefined()
    expect(errnoOf(systemError('LOCK_LOST'))).toBeUndefined()
    expect(errnoOf({ code: 'EIO' })).toBeUndefined()
  })
})

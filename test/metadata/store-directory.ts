/** A store in a directory of its own, and its bytes, as a test needs them. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { expect, onTestFinished } from 'vitest'
import { isStoreError, type StoreError } from '../../src/errors.js'
import { SessionStore } from '../../src/store.js'
import type { StoredRecord, StoreOptions } from '../../src/types.js'

/** The path of a store that is not there yet; everything around it goes when the test ends. */
export function storeDirectory(): string {
  const around = mkdtempSync(join(tmpdir(), 'holdfast-files-'))
  onTestFinished(() => rmSync(around, { recursive: true, force: true }))
  return join(around, 'store')
}

/** A handle that is closed when the test ends, if not before. */
export async function opened<S extends StandardSchemaV1 | undefined = undefined>(directory: string, options?: StoreOptions<S>) {
  const store = await SessionStore.open<S>(directory, options)
  onTestFinished(() => store.close())
  return store
}

/** What the call is refused with. */
export async function refusal(call: () => unknown): Promise<StoreError> {
  try {
    await call()
  } catch (error) {
    if (isStoreError(error)) return error
    throw error
  }
  return expect.fail('the call was not refused')
}

/** Every file below the directory, by its relative path, with its bytes; directories end in a slash. */
export function filesIn(directory: string): Map<string, string> {
  const paths = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()
  return new Map(
    paths.map((path) => {
      const full = join(directory, path)
      return statSync(full).isDirectory() ? [`${path}/`, ''] : [path, readFileSync(full, 'latin1')]
    }),
  )
}

/** The files that hold what was acknowledged: all but the locks. */
export function dataIn(directory: string): Map<string, string> {
  return new Map([...filesIn(directory)].filter(([path]) => !path.startsWith('locks')))
}

export function bytesOf(directory: string, file: string): Buffer | undefined {
  return existsSync(join(directory, file)) ? readFileSync(join(directory, file)) : undefined
}

export async function recordsOf(read: AsyncIterable<StoredRecord>): Promise<Record<string, unknown>[]> {
  const records: Record<string, unknown>[] = []
  for await (const { record } of read) records.push(record)
  return records
}

export async function entriesOf<T>(entries: AsyncIterable<[string, T]>): Promise<[string, T][]> {
  const found: [string, T][] = []
  for await (const entry of entries) found.push(entry)
  return found
}

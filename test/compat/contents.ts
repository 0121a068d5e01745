/** All that a reader can get out of a store. */
import type { Entry, StoredRecord } from '../../src/types.js'

export interface Contents {
  readonly entries: Record<string, Entry>
  readonly records: Record<string, StoredRecord[]>
}

interface Readable {
  entries(prefix: string): AsyncIterable<[string, Entry]>
  read(key: string): AsyncIterable<StoredRecord>
}

/** Without a prototype: `__proto__` is a key like any other. */
export async function contentsOf(store: Readable): Promise<Contents> {
  const contents: Contents = { entries: Object.create(null), records: Object.create(null) }
  for await (const [key, entry] of store.entries('')) contents.entries[key] = entry
  for (const key of Object.keys(contents.entries)) contents.records[key] = await all(store.read(key))
  return contents
}

async function all(records: AsyncIterable<StoredRecord>): Promise<StoredRecord[]> {
  const found: StoredRecord[] = []
  for await (const record of records) found.push(record)
  return found
}

/** The real store on a simulated machine. */
import type { Backend } from '../../src/backend.js'
import { type FileBackend, type FileBackendOptions, openFileBackend } from '../../src/file/backend.js'
import type { Host } from '../../src/file/host.js'
import { careOf } from '../backend/care.js'

export const storeDirectory = '/data/store'

export const storeOptions: FileBackendOptions = {
  durability: 'power',
  checkpoint: 'auto',
  waitMs: 10_000,
  maxHoldMs: 15_000,
  readOnly: false,
  checkKey: () => {},
}

export function openStore(host: Host, options: Partial<FileBackendOptions> = {}): Promise<Backend> {
  return openFileBackend(storeDirectory, { ...storeOptions, ...options }, host)
}

/** Adds one to a field of an entry; returns the new value. */
export function increment(store: Backend, key: string): Promise<number> {
  const add = (sessions: Parameters<Parameters<Backend['commitMetadata']>[0]>[0]) => {
    const count = Number(sessions.get(key)?.count ?? 0) + 1
    sessions.patch(key, { count })
    return count
  }
  return store.commitMetadata(add, {})
}

/** Writes high-water marks now, as a round in the background would. */
export function writeMarks(store: Backend): Promise<void> {
  return (store as FileBackend).inside.transcripts.marks.flush({})
}

export function encoded(...names: string[]): { json: string }[] {
  return names.map((name) => ({ json: JSON.stringify({ name }) }))
}

/** Lets a summary stand for all records but the last, and writes the transcript anew without them. */
export async function compactAll(store: Backend, key: string): Promise<unknown> {
  const found = await store.summarizable(key)
  const upTo = found?.cuts.get(found.records.length - 1)
  if (found && upTo !== undefined && found.records.length > 1) {
    const { sessionId, base, records } = found
    await store.summarize(key, { sessionId, base, upTo, records: records.length - 1, text: 's' }, {})
  }
  return careOf(store).compactBytes(key, {})
}

/** Archives the key's session, as a rule does that wants none; false when it may not go now. */
export async function retainNone(store: Backend, key: string): Promise<boolean> {
  const { archived } = await careOf(store).retain({ rules: { prefixes: { [key]: { maxCount: 0 } } } })
  return archived.length > 0
}

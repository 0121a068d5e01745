/** lmdb-js: entries and records as JSON values, one synchronous transaction for each change, the fastest of its ways here. As it stands a
 *  commit is synced; with noSync it is only with the kernel, and a power cut may take more than the last commits. */
import { join } from 'node:path'
import { entryFields, type Fields, sessionKey } from '../harness/data.js'
import { countOf, loadPeer, type Peer, whyMissing } from './peer.js'

interface Database {
  get(key: string): Fields | undefined
  putSync(key: string, value: unknown): void
  transactionSync<R>(work: () => R): R
  getRange(): Iterable<{ key: string; value: Fields }>
  getKeys(options?: { start?: string; end?: string }): Iterable<string>
  close(): Promise<void>
}
interface Module {
  open(options: { path: string; encoding: 'json'; overlappingSync: boolean; noSync: boolean }): Database
}

const recordKey = (session: string, seq: number) => `${session}/${String(seq).padStart(9, '0')}`

function lmdb(name: string, promise: 'power' | 'process'): Peer {
  const openEnvironment = (dir: string) =>
    loadPeer<Module>('lmdb').open({
      path: join(dir, 'store.lmdb'),
      encoding: 'json',
      overlappingSync: false,
      noSync: promise === 'process',
    })
  return {
    name,
    promise,
    missing: () => whyMissing('lmdb'),
    async seed(dir, count) {
      const db = openEnvironment(dir)
      db.transactionSync(() => {
        for (let index = 0; index < count; index++) db.putSync(sessionKey(index), entryFields(index))
      })
      await db.close()
    },
    async sessions(dir) {
      const db = openEnvironment(dir)
      return {
        update: (key, change) => db.transactionSync(() => db.putSync(key, change(db.get(key) ?? {}))),
        get: (key) => db.get(key),
        close: () => db.close(),
      }
    },
    async counters(dir) {
      const db = openEnvironment(dir)
      const counters = new Map<string, number>()
      for (const { key, value } of db.getRange()) counters.set(key, countOf(value))
      await db.close()
      return counters
    },
    async transcripts(dir) {
      const db = openEnvironment(dir)
      const next = new Map<string, number>()
      // One process per session here: it keeps the next number itself, which flatters this peer.
      const put = (session: string, record: Fields) => {
        const seq = next.get(session) ?? recordsIn(db, session) + 1
        next.set(session, seq + 1)
        db.putSync(recordKey(session, seq), record)
      }
      return {
        append: (session, record) => db.transactionSync(() => put(session, record)),
        appendMany: (session, records) => db.transactionSync(() => records.forEach((record) => void put(session, record))),
        close: () => db.close(),
      }
    },
    async recordCount(dir, session) {
      const db = openEnvironment(dir)
      const count = recordsIn(db, session)
      await db.close()
      return count
    },
  }
}

function recordsIn(db: Database, session: string): number {
  let count = 0
  for (const _ of db.getKeys({ start: `${session}/`, end: `${session}0` })) count++
  return count
}

export const lmdbSynced = lmdb('lmdb', 'power')
export const lmdbUnsynced = lmdb('lmdb noSync', 'process')

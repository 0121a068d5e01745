/** lmdb-js: entries and records as JSON values. A write resolves when it is committed and visible; `flushed` when it is on the disk. */
import { join } from 'node:path'
import { entryFields, type Fields, sessionKey } from '../harness/data.js'
import { countOf, loadPeer, type Peer, whyMissing } from './peer.js'

interface Database {
  get(key: string): Fields | undefined
  put(key: string, value: unknown): Promise<boolean>
  putSync(key: string, value: unknown): void
  transaction<R>(work: () => R): Promise<R>
  transactionSync<R>(work: () => R): R
  getRange(): Iterable<{ key: string; value: Fields }>
  getKeys(options?: { start?: string; end?: string }): Iterable<string>
  readonly flushed: PromiseLike<unknown>
  close(): Promise<void>
}
interface Module {
  open(options: { path: string; encoding: 'json' }): Database
}

function openEnvironment(dir: string): Database {
  return loadPeer<Module>('lmdb').open({ path: join(dir, 'store.lmdb'), encoding: 'json' })
}

const recordKey = (session: string, seq: number) => `${session}/${String(seq).padStart(9, '0')}`

function lmdb(name: string, promise: 'power' | 'process'): Peer {
  const acknowledged = async (db: Database, committed: Promise<unknown>) => {
    await committed
    if (promise === 'power') await db.flushed
  }
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
        update: (key, change) =>
          acknowledged(
            db,
            db.transaction(() => void db.put(key, change(db.get(key) ?? {}))),
          ),
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
      // One process per session here: it may keep the next number itself, which flatters this peer.
      const put = (session: string, record: Fields) => {
        const seq = next.get(session) ?? lastSeq(db, session) + 1
        next.set(session, seq + 1)
        return db.put(recordKey(session, seq), record)
      }
      return {
        append: (session, record) => acknowledged(db, put(session, record)),
        appendMany: (session, records) =>
          acknowledged(
            db,
            db.transaction(() => {
              for (const record of records) void put(session, record)
            }),
          ),
        close: () => db.close(),
      }
    },
    async recordCount(dir, session) {
      const db = openEnvironment(dir)
      const count = lastSeq(db, session)
      await db.close()
      return count
    },
  }
}

function lastSeq(db: Database, session: string): number {
  let count = 0
  for (const _ of db.getKeys({ start: `${session}/`, end: `${session}0` })) count++
  return count
}

export const lmdbFlushed = lmdb('lmdb (flushed)', 'power')
export const lmdbCommitted = lmdb('lmdb (committed)', 'process')

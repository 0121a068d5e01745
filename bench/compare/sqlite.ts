/** better-sqlite3: one row per entry, one row per record, WAL. synchronous=FULL keeps an acknowledged commit through a power cut, NORMAL
 *  does not. Changes run in BEGIN IMMEDIATE, so that nobody comes between the read and the write. */
import { join } from 'node:path'
import { entryFields, type Fields, sessionKey } from '../harness/data.js'
import { countOf, loadPeer, type Peer, whyMissing } from './peer.js'

interface Statement {
  run(...values: unknown[]): unknown
  get(...values: unknown[]): unknown
  all(...values: unknown[]): unknown[]
}
interface Transaction<A extends unknown[]> {
  (...args: A): unknown
  immediate(...args: A): unknown
}
interface Database {
  pragma(text: string): unknown
  exec(sql: string): void
  prepare(sql: string): Statement
  transaction<A extends unknown[]>(work: (...args: A) => unknown): Transaction<A>
  close(): void
}
type DatabaseClass = new (path: string, options?: { timeout?: number }) => Database

const schema = `
  CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS records (session TEXT NOT NULL, seq INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (session, seq)) WITHOUT ROWID;`

export function openDatabase(dir: string, synchronous: 'FULL' | 'NORMAL'): Database {
  const Class = loadPeer<DatabaseClass>('better-sqlite3')
  const db = new Class(join(dir, 'store.sqlite'), { timeout: 60_000 })
  db.pragma('journal_mode = WAL')
  db.pragma(`synchronous = ${synchronous}`)
  db.exec(schema)
  return db
}

function sqlite(name: string, synchronous: 'FULL' | 'NORMAL'): Peer {
  return {
    name,
    promise: synchronous === 'FULL' ? 'power' : 'process',
    missing: () => whyMissing('better-sqlite3'),
    async seed(dir, count) {
      const db = openDatabase(dir, synchronous)
      const insert = db.prepare('INSERT INTO sessions VALUES (?, ?)')
      db.transaction(() => {
        for (let index = 0; index < count; index++) insert.run(sessionKey(index), JSON.stringify(entryFields(index)))
      })()
      db.close()
    },
    async sessions(dir) {
      const db = openDatabase(dir, synchronous)
      const select = db.prepare('SELECT entry FROM sessions WHERE key = ?')
      const upsert = db.prepare('INSERT INTO sessions VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET entry = excluded.entry')
      const read = (key: string) => {
        const row = select.get(key) as { entry: string } | undefined
        return row ? (JSON.parse(row.entry) as Fields) : undefined
      }
      const change = db.transaction((key: string, change: (fields: Fields) => Fields) =>
        upsert.run(key, JSON.stringify(change(read(key) ?? {}))),
      )
      return { update: (key, how) => void change.immediate(key, how), get: read, close: () => db.close() }
    },
    async counters(dir) {
      const db = openDatabase(dir, synchronous)
      const rows = db.prepare('SELECT key, entry FROM sessions').all() as { key: string; entry: string }[]
      db.close()
      return new Map(rows.map(({ key, entry }) => [key, countOf(JSON.parse(entry) as Fields)]))
    },
    async transcripts(dir) {
      const db = openDatabase(dir, synchronous)
      // The next number is read inside the insert: several processes may append to one session.
      const insert = db.prepare(
        'INSERT INTO records SELECT @session, coalesce(max(seq), 0) + 1, @record FROM records WHERE session = @session',
      )
      const insertAll = db.transaction((session: string, records: readonly Fields[]) => {
        for (const record of records) insert.run({ session, record: JSON.stringify(record) })
      })
      return {
        append: (session, record) => void insert.run({ session, record: JSON.stringify(record) }),
        appendMany: (session, records) => void insertAll.immediate(session, records),
        close: () => db.close(),
      }
    },
    async recordCount(dir, session) {
      const db = openDatabase(dir, synchronous)
      const { count } = db.prepare('SELECT count(*) AS count FROM records WHERE session = ?').get(session) as { count: number }
      db.close()
      return count
    },
  }
}

export const sqliteFull = sqlite('sqlite WAL FULL', 'FULL')
export const sqliteNormal = sqlite('sqlite WAL NORMAL', 'NORMAL')

/** The distributed backend: one schema of a PostgreSQL database, any number of processes on any number of machines.
 *
 *  Every write is one statement, a function in the schema that decides on rows which it holds and answers what became of it; every read is one
 *  statement, or pages of one. So nothing here holds anything while it thinks, and a client that is killed or frozen leaves nothing behind. */
import { uuidv7 } from 'uuidv7'
import type { Backend, EncodedRecord, NewSummary, Summarizable, SummaryReceipt } from '../backend.js'
import { StoreError } from '../errors.js'
import type {
  AppendOptions,
  AppendReceipt,
  Entry,
  LockStatus,
  ReadOptions,
  RotateReceipt,
  SessionsView,
  StoredRecord,
  StoreStats,
  TailOptions,
  WaitOptions,
} from '../types.js'
import { type Counters, newCounters } from './counters.js'
import { Database } from './database.js'
import { loadDriver } from './driver.js'
import { Metadata } from './metadata/metadata.js'
import { entryOf, rowOf } from './metadata/rows.js'
import { prepareSchema } from './migrations.js'
import { quotedSchema } from './schema.js'
import { ServerClock } from './server-clock.js'
import { Appends } from './transcripts/appends.js'
import { readForSummary } from './transcripts/conversation.js'
import { readRecords, readTail } from './transcripts/reading.js'
import { sessionGone } from './transcripts/refusals.js'
import { PostgresTurns } from './turns/postgres-turns.js'

export interface PostgresBackendOptions {
  readonly connectionString: string
  readonly schema: string
  /** Connections in the pool, at most. */
  readonly connections: number
  /** Makes the schema, or brings it to this version, where it is not. */
  readonly migrate: boolean
  /** How long a server that does not answer, or a row that another holds, is waited for. */
  readonly waitMs: number
  /** How long a process may go without a sign of life before its turns are anybody's. */
  readonly leaseMs: number
  readonly readOnly: boolean
  readonly checkKey: (key: unknown) => asserts key is string
}

/** What the backend is made of. */
export interface PostgresInside {
  readonly database: Database
  /** Quoted. */
  readonly schema: string
  readonly counters: Counters
  readonly turns: PostgresTurns
}

const entriesPerFetch = 2_000

export async function openPostgresBackend(options: PostgresBackendOptions): Promise<PostgresBackend> {
  const schema = quotedSchema(options.schema)
  const database = new Database(await loadDriver(), {
    connectionString: options.connectionString,
    max: options.connections,
    connectionTimeoutMillis: options.waitMs,
    application_name: 'holdfast',
    waitMs: options.waitMs,
  })
  try {
    await prepareSchema(database, schema, options.migrate && !options.readOnly)
    const clock = new ServerClock()
    const askedAtMs = performance.now()
    const [now] = await database.read('select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms', [], {
      doing: 'asking the time',
    })
    clock.note(Number(now!.ms), askedAtMs)
    return new PostgresBackend(database, schema, clock, options)
  } catch (error) {
    await database.close()
    throw error
  }
}

export class PostgresBackend implements Backend {
  readonly #database: Database
  readonly #schema: string
  readonly #options: PostgresBackendOptions
  readonly #counters: Counters
  readonly #metadata: Metadata
  readonly #appends: Appends
  readonly turns: PostgresTurns
  /** A schema that is damaged is not opened. */
  readonly damage = undefined
  /** For maintenance, which knows the tables. */
  readonly inside: PostgresInside

  constructor(database: Database, schema: string, clock: ServerClock, options: PostgresBackendOptions) {
    this.#database = database
    this.#schema = schema
    this.#options = options
    this.#counters = newCounters()
    const counters = this.#counters
    const common = { database, schema, counters, freshCommit: uuidv7, mintId: uuidv7 }
    this.#metadata = new Metadata({ ...common, clock, nowMs: () => clock.nowMs(), checkKey: options.checkKey })
    this.#appends = new Appends(common)
    this.turns = new PostgresTurns({
      ...common,
      leaseMs: options.leaseMs,
      appends: this.#appends,
      assertWritable: () => this.#assertWritable(),
    })
    this.inside = { database, schema, counters, turns: this.turns }
  }

  async commitMetadata<R>(mutate: (sessions: SessionsView<Record<string, unknown>>) => R, wait: WaitOptions): Promise<R> {
    this.#assertWritable()
    return this.#metadata.commit(mutate, wait)
  }

  get(key: string): Promise<Entry | undefined> {
    return this.#metadata.get(key)
  }

  /** One moment's: of a large store, by a transaction that reads only, over a connection of its own. */
  async *entries(prefix: string): AsyncGenerator<[string, Entry]> {
    const asking = { doing: 'reading entries' }
    const select = `select * from ${this.#schema}.entries where key >= $1 and starts_with(key, $1)`
    // A small store is read at once, and whoever goes through it slowly holds nothing.
    const few = await this.#database.read(`${select} limit ${entriesPerFetch + 1}`, [prefix], asking)
    if (few.length <= entriesPerFetch) {
      for (const row of few) yield [row.key as string, entryOf(rowOf(row))]
      return
    }
    const connection = await this.#database.single(asking)
    try {
      await connection.query('begin isolation level repeatable read read only')
      await connection.query(`declare entries no scroll cursor for ${select}`, [prefix])
      let open = true
      while (open) {
        const { rows } = await connection.query(`fetch ${entriesPerFetch} from entries`)
        open = rows.length === entriesPerFetch
        for (const row of rows) yield [row.key as string, entryOf(rowOf(row))]
      }
    } finally {
      await connection.end().catch(() => {})
    }
  }

  async delete(key: string, wait: WaitOptions): Promise<boolean> {
    this.#assertWritable()
    wait.signal?.throwIfAborted()
    const [outcome] = await this.#call('delete_session', [key], 'deleting a session', wait)
    if (outcome === 'deleted') this.#counters.commits++
    return outcome === 'deleted'
  }

  append(key: string, records: readonly EncodedRecord[], options: AppendOptions): Promise<AppendReceipt> {
    try {
      this.#assertWritable()
      return this.#appends.append(key, records, options)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  read(key: string, options: ReadOptions): AsyncIterable<StoredRecord> {
    return readRecords(this.#reading, key, options)
  }

  async tail(key: string, count: number, { compacted }: TailOptions = {}): Promise<StoredRecord[]> {
    return count === 0 ? [] : readTail(this.#reading, key, count, compacted)
  }

  summarizable(key: string, signal?: AbortSignal): Promise<Summarizable | undefined> {
    return readForSummary(this.#reading, key, signal)
  }

  async summarize(key: string, summary: NewSummary, wait: WaitOptions): Promise<SummaryReceipt> {
    this.#assertWritable()
    wait.signal?.throwIfAborted()
    const { sessionId, base, upTo, records, text } = summary
    const [line] = await this.#call('summarize', [key, sessionId, base, upTo, records, JSON.stringify(text)], 'adding a summary', wait)
    const [outcome, first = '', theirUpTo, theirRecords] = line!.split('|')
    if (outcome === 'session') throw sessionGone(key, sessionId, first)
    if (outcome === 'theirs') return { ours: false, seq: Number(first), upTo: Number(theirUpTo), records: Number(theirRecords) }
    return { ours: true, seq: Number(first), upTo, records }
  }

  async rotate(key: string, reason: string, wait: WaitOptions): Promise<RotateReceipt> {
    this.#assertWritable()
    wait.signal?.throwIfAborted()
    const why = reason.replaceAll('\u0000', '\ufffd').toWellFormed()
    const [outcome, sessionId, previousSessionId] = await this.#call('rotate', [key, uuidv7(), why], 'rotating a session', wait)
    if (outcome === 'none')
      throw new StoreError('NOT_FOUND', `there is no session ${JSON.stringify(key)}.`, { details: { key }, hint: 'Nothing was done.' })
    this.#counters.commits++
    return { sessionId: sessionId!, previousSessionId: previousSessionId! }
  }

  /** There is nothing to fold: the database has its own checkpoints. */
  async checkpoint(): Promise<void> {
    this.#assertWritable()
  }

  locks(): Promise<LockStatus[]> {
    return this.turns.leases()
  }

  stats(): StoreStats {
    return { ...this.#counters, takeovers: { ...this.#counters.takeovers } }
  }

  async close(): Promise<void> {
    await this.turns.close()
    await this.#database.close()
  }

  get #reading() {
    return { database: this.#database, schema: this.#schema }
  }

  /** A function of the schema that commits. */
  async #call(name: string, values: readonly unknown[], doing: string, wait: WaitOptions): Promise<readonly string[]> {
    const waitMs = wait.waitMs ?? this.#database.waitMs
    const places = ['$1', '$2', ...values.map((_, at) => `$${at + 3}`)].join(', ')
    const text = `select ${this.#schema}.${name}(${places}) as result`
    const [answer] = await this.#database.write(text, [uuidv7(), Math.ceil(waitMs), ...values], { doing, waitMs })
    return answer!.result as string[]
  }

  #assertWritable(): void {
    if (this.#options.readOnly)
      throw new StoreError('INVALID_OPTION', 'the store was opened with readOnly: true.', { hint: 'Nothing was written.' })
    if (!this.#metadata.mutating) return
    throw new StoreError('ASYNC_MUTATOR', 'the store was called from inside a mutator.', {
      hint: 'Nothing was written by this call. Use the view that the mutator is given; call the store before or after.',
    })
  }
}

/** The database behind a pool of connections: asks, and asks again when a connection breaks, so that whoever writes learns what became of it.
 *
 *  A write carries a commit id, and the statement that does it stores what it answered under that id in the same transaction. When the
 *  connection breaks, the same statement is sent again: had the first one been committed, its answer comes back and nothing is done twice;
 *  were it still on its way, the two meet at the primary key of `commits`, and one is undone.
 *
 *  One statement is one transaction, unnamed and without any state of the session: it makes no difference which connection it goes over. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection, Driver, DriverOptions, Pool, Queryable, Single } from './driver.js'
import { failureOf, refusal, unavailable } from './failure.js'

export interface DatabaseOptions extends DriverOptions {
  /** How long a server that does not answer is waited for. */
  readonly waitMs: number
}

export type Row = Readonly<Record<string, unknown>>

/** What a statement says of its own work. */
export interface Asking {
  /** For errors, such as "appending". */
  readonly doing: string
  readonly waitMs?: number | undefined
}

const pauseMsMin = 5
const pauseMsMax = 250
/** How far above its own patience a server may be: it is to say itself that a lock was not to be had. */
const answerMsMore = 15_000

export class Database {
  readonly waitMs: number
  readonly #driver: Driver
  readonly #options: DatabaseOptions
  readonly #pool: Pool
  #closed = false

  constructor(driver: Driver, options: DatabaseOptions) {
    this.#driver = driver
    this.#options = options
    this.waitMs = options.waitMs
    this.#pool = driver.pool(poolOptions(options))
    // Of a connection that lies idle: the pool replaces it.
    this.#pool.on('error', () => {})
  }

  /** Reads. @throws BACKEND_UNAVAILABLE  effect none */
  read(text: string, values: readonly unknown[], asking: Asking): Promise<readonly Row[]> {
    return this.#ask(text, values, asking, false)
  }

  /** A statement that may be sent twice: it stores its answer under a commit id, or repeating it changes nothing.
   *  @throws BACKEND_UNAVAILABLE  effect unknown, only when a connection broke under it and the server stayed away. */
  write(text: string, values: readonly unknown[], asking: Asking): Promise<readonly Row[]> {
    return this.#ask(text, values, asking, true)
  }

  async #ask(text: string, values: readonly unknown[], asking: Asking, writes: boolean): Promise<readonly Row[]> {
    const waitMs = asking.waitMs ?? this.waitMs
    const deadlineMs = performance.now() + waitMs
    let unknown = false
    for (let tries = 0; ; tries++) {
      const result = await this.#once(text, values, waitMs)
      if ('rows' in result) return result.rows
      const { error, asked } = result
      const failure = failureOf(error, asked)
      if (failure === 'refused') throw refusal(error, asking.doing, waitMs)
      if (failure === 'lost' && writes) unknown = true
      if (performance.now() >= deadlineMs || this.#closed) throw unavailable(error, asking.doing, waitMs, unknown)
      const pauseMs = failure === 'again' ? pauseMsMin : Math.min(pauseMsMax, pauseMsMin * 2 ** tries)
      await sleep(pauseMs * (0.5 + Math.random()))
    }
  }

  async #once(text: string, values: readonly unknown[], waitMs: number) {
    let connection: Connection
    try {
      connection = await this.#pool.connect()
    } catch (error) {
      return { error, asked: false }
    }
    // Without a listener, a connection that breaks between two statements would end the process.
    connection.on('error', nothing)
    try {
      const { rows } = await withinMs(connection.query(text, values), waitMs + answerMsMore)
      connection.off('error', nothing)
      connection.release()
      return { rows }
    } catch (error) {
      connection.off('error', nothing)
      connection.on('error', nothing)
      connection.release(failureOf(error, true) === 'lost' ? (error as Error) : undefined)
      return { error, asked: true }
    }
  }

  /** A connection of its own, outside the pool: whoever holds one for long does not keep others from theirs. */
  async apart<R>(asking: Asking, work: (connection: Queryable) => Promise<R>): Promise<R> {
    const single = await this.single(asking)
    try {
      return await work(single)
    } finally {
      await single.end().catch(nothing)
    }
  }

  /** @throws BACKEND_UNAVAILABLE  effect none. To be ended by the caller. */
  async single({ doing, waitMs = this.waitMs }: Asking): Promise<Single> {
    const deadlineMs = performance.now() + waitMs
    for (let tries = 0; ; tries++) {
      const single = this.#driver.single(poolOptions(this.#options))
      single.on('error', nothing)
      try {
        await single.connect()
        return single
      } catch (error) {
        await single.end().catch(nothing)
        if (failureOf(error, false) === 'refused') throw refusal(error, doing, waitMs)
        if (performance.now() >= deadlineMs) throw unavailable(error, doing, waitMs, false)
      }
      await sleep(Math.min(pauseMsMax, pauseMsMin * 2 ** tries))
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#pool.end()
  }
}

function poolOptions({ connectionString, max, connectionTimeoutMillis, application_name }: DatabaseOptions): DriverOptions {
  return { connectionString, max, connectionTimeoutMillis, application_name }
}

/** A server that is frozen, or a network that swallows everything, must not hold a caller for ever. */
async function withinMs<R>(work: Promise<R>, ms: number): Promise<R> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function nothing(): void {}

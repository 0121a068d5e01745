/** `pg`, as far as it is used here. It is an optional peer: whoever does not use PostgreSQL need not have it, nor its types. */
import { StoreError } from '../errors.js'

export interface QueryResult {
  readonly rows: readonly Record<string, unknown>[]
}

export interface Queryable {
  query(text: string, values?: readonly unknown[]): Promise<QueryResult>
}

export interface Connection extends Queryable {
  on(event: 'error', listener: (error: Error) => void): unknown
  off(event: 'error', listener: (error: Error) => void): unknown
  /** @param error  it is not to be used again. */
  release(error?: Error | boolean): void
}

/** A connection of one's own. */
export interface Single extends Queryable {
  connect(): Promise<unknown>
  end(): Promise<void>
  on(event: 'error', listener: (error: Error) => void): unknown
}

export interface Pool {
  connect(): Promise<Connection>
  end(): Promise<void>
  on(event: 'error', listener: (error: Error) => void): unknown
}

export interface DriverOptions {
  readonly connectionString: string
  readonly max: number
  readonly connectionTimeoutMillis: number
  readonly application_name: string
}

export interface Driver {
  pool(options: DriverOptions): Pool
  single(options: DriverOptions): Single
}

interface PgModule {
  readonly Pool: new (options: object) => Pool
  readonly Client: new (options: object) => Single
}

/** @throws INVALID_OPTION  it is not installed */
export async function loadDriver(): Promise<Driver> {
  const module = await import('pg').catch((cause: unknown) => {
    throw new StoreError('INVALID_OPTION', 'a store in PostgreSQL needs the package pg, which is not installed.', {
      cause,
      hint: 'Nothing was done. Install it beside holdfast: npm install pg.',
    })
  })
  const { Pool, Client } = module.default as unknown as PgModule
  const common = { keepAlive: true }
  return {
    // An idle connection keeps no process alive: a program that is done may end without having closed its store.
    pool: (options) => new Pool({ ...common, ...options, allowExitOnIdle: true }),
    single: (options) => new Client({ ...common, ...options }),
  }
}

/** Stores in a database, each in a schema of its own that goes with the test. */
import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { checkKey } from '../../src/input.js'
import { PostgresMaintenance } from '../../src/maintenance/postgres/postgres-maintenance.js'
import { openPostgresBackend, type PostgresBackend, type PostgresBackendOptions } from '../../src/postgres/backend.js'
import type { Place } from '../backend/conformance.js'

export function postgresPlace(url: string, options: Partial<PostgresBackendOptions> = {}): Place & { readonly schema: string } {
  const schema = `test-${randomUUID()}`
  return {
    schema,
    open: () =>
      openPostgresBackend({
        connectionString: url,
        schema,
        connections: 10,
        migrate: true,
        waitMs: 10_000,
        leaseMs: 10_000,
        readOnly: false,
        checkKey,
        ...options,
      }),
    care: (handle) => new PostgresMaintenance((handle as PostgresBackend).inside),
    remove: () => withClient(url, async (client) => void (await client.query(`drop schema if exists "${schema}" cascade`))),
  }
}

export async function withClient<R>(url: string, work: (client: pg.Client) => Promise<R>): Promise<R> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** The second door, `holdfast/postgres`: the same store for many machines, in a schema of a PostgreSQL database (14 or newer). Needs the package
 *  `pg`, an optional peer dependency. */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { z } from 'zod'
import { checkKey, checkOptions, checkWith } from './input.js'
import { PostgresMaintenance } from './maintenance/postgres/postgres-maintenance.js'
import { partedAddress, postgresAddress } from './postgres/address.js'
import { openPostgresBackend } from './postgres/backend.js'
import { type FieldsOf, SessionStore } from './store.js'
import type { StoreOptions } from './types.js'

export type { Effect, ErrorCode, ErrorKind } from './errors.js'
export { errorCodes, isStoreError, StoreError } from './errors.js'
export type * from './findings.js'
export type * from './repair-plan.js'
export { Session } from './session.js'
export type * from './types.js'
export type * from './upkeep.js'
export { SessionStore }

/** As for a store of files, where that makes sense in a database: an acknowledged write is always on the server's disk (its
 *  `synchronous_commit` decides on whose else), and there is nothing to checkpoint or to repair. */
export interface PostgresOptions<S extends StandardSchemaV1 | undefined = undefined>
  extends Omit<StoreOptions<S>, 'durability' | 'checkpoint' | 'repair' | 'lock'> {
  /** The store's own schema. Several stores live side by side in one database. Default `holdfast`. */
  schema?: string
  /** Makes the schema where there is none, and brings it to this version, default true; needs the rights of its owner. */
  migrate?: boolean
  /** Connections in the pool, at most; 2 to 1,000, default 10. */
  connections?: number
  /** How long a server that does not answer, or a row that another holds, is waited for; 100 to 3,600,000 ms, default 10,000. */
  waitMs?: number
  /** How long a process may go without a sign of life before its turns are anybody's; 1,000 to 3,600,000 ms, default 10,000. */
  leaseMs?: number
}

const own = z.object({
  schema: z.string().default('holdfast'),
  migrate: z.boolean().default(true),
  connections: z.number().int().min(2).max(1_000).default(10),
  waitMs: z.number().int().min(100).max(3_600_000).default(10_000),
  leaseMs: z.number().int().min(1_000).max(3_600_000).default(10_000),
})

/** Opens the store in a schema of the database, and makes it where there is none (unless `readOnly`, or `migrate: false`).
 *  @param place  postgres://user:password@host/database; through a pooler in transaction mode, too. `?schema=` is another way to say
 *         `schema`
 *  @throws STORE_FORMAT_UNSUPPORTED  a newer version made the schema · NOT_FOUND  there is none, and it is not to be made ·
 *          BACKEND_UNAVAILABLE · INVALID_OPTION. Effect none in every case. */
export async function openPostgres<S extends StandardSchemaV1 | undefined = undefined>(
  place: string,
  options: PostgresOptions<S> = {},
): Promise<SessionStore<FieldsOf<S>>> {
  checkWith(z.string().regex(postgresAddress, 'must begin with postgres://'), place, 'the connection string')
  const { connectionString, schema: named } = partedAddress(place)
  const { schema, migrate, connections, waitMs, leaseMs, ...rest } = options
  const checked = checkOptions(rest)
  const mine = checkWith(own, { schema: schema ?? named, migrate, connections, waitMs, leaseMs }, 'options')
  const backend = await openPostgresBackend({ connectionString, readOnly: checked.readOnly, checkKey, ...mine })
  return SessionStore.over<S>(backend, new PostgresMaintenance(backend.inside), checked)
}

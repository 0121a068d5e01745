/** Bringing a schema to what this version needs: numbered files, each applied once, in one transaction with all the others that are due.
 *
 *  1 look which are applied                       a newer schema than this version knows is refused
 *  2 in a transaction, under a lock of its own: look again, apply what is missing, write it down
 *  A crash before the commit leaves what was before. Two who come at once: the second finds everything done. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { StoreError } from '../errors.js'
import type { Database } from './database.js'
import type { Queryable } from './driver.js'
import { refusal, stateOf } from './failure.js'

export interface Migration {
  readonly version: number
  readonly name: string
  readonly sql: string
  readonly sha256: string
}

interface Applied {
  readonly version: number
  readonly sha256: string
}

/** Those that are shipped, in their order. */
export function shippedMigrations(): Migration[] {
  const directory = new URL('./migrations/', import.meta.url)
  return readdirSync(directory)
    .filter((name) => /^\d{4}-[a-z-]+\.sql$/.test(name))
    .sort()
    .map((name) => {
      const sql = readFileSync(new URL(name, directory), 'utf8')
      return { version: Number(name.slice(0, 4)), name, sql, sha256: createHash('sha256').update(sql).digest('hex') }
    })
}

/** Makes sure that the schema is this version's.
 *  @param migrate  else it is only looked at
 *  @throws STORE_FORMAT_UNSUPPORTED  a newer version of this library made it, or what is applied is not what is shipped · NOT_FOUND  it is not
 *          there, or not whole, and is not to be made · BACKEND_UNAVAILABLE. Effect none in every case. */
export async function prepareSchema(
  database: Database,
  schema: string,
  migrate: boolean,
  migrations: readonly Migration[] = shippedMigrations(),
): Promise<void> {
  const asking = { doing: `opening the store in schema ${schema}` }
  const missing = missingOf(await appliedIn(schema, (text) => database.read(text, [], asking)), migrations, schema)
  if (missing.length === 0) return
  if (!migrate)
    throw new StoreError('NOT_FOUND', `the schema ${schema} lacks ${missing.map(({ name }) => name).join(', ')}.`, {
      details: { schema, missing: missing.map(({ name }) => name) },
      hint: 'Nothing was done. Its owner opens the store with { migrate: true } once; then this role can.',
    })
  try {
    await database.apart(asking, (connection) => applyAll(connection, schema, migrations))
  } catch (error) {
    throw refusal(error, asking.doing, database.waitMs)
  }
}

async function applyAll(connection: Queryable, schema: string, migrations: readonly Migration[]): Promise<void> {
  await connection.query('begin')
  try {
    // Ends with the transaction, so that it works through a pooler, too.
    await connection.query('select pg_advisory_xact_lock(hashtextextended($1, 2))', [`holdfast:${schema}`])
    await assertUtf8(connection)
    await connection.query(`create schema if not exists ${schema}`)
    await connection.query(
      `create table if not exists ${schema}.migrations (version integer primary key, name text not null, sha256 text not null, applied_at timestamptz not null default clock_timestamp())`,
    )
    const applied = await appliedIn(schema, async (text) => (await connection.query(text)).rows)
    for (const { version, name, sql, sha256 } of missingOf(applied, migrations, schema)) {
      await connection.query(sql.replaceAll('@schema@', schema))
      await connection.query(`insert into ${schema}.migrations (version, name, sha256) values ($1, $2, $3)`, [version, name, sha256])
    }
    await connection.query('commit')
  } catch (error) {
    await connection.query('rollback').catch(() => {})
    throw error
  }
}

async function assertUtf8(connection: Queryable): Promise<void> {
  const { rows } = await connection.query('show server_encoding')
  if (rows[0]?.server_encoding === 'UTF8') return
  throw new StoreError('INVALID_OPTION', `the database has the encoding ${String(rows[0]?.server_encoding)}, not UTF8.`, {
    hint: "Nothing was done. Make a database for it: create database … encoding 'UTF8' template template0.",
  })
}

async function appliedIn(schema: string, query: (text: string) => Promise<readonly object[]>): Promise<readonly Applied[]> {
  try {
    // Not by an error that a transaction would not survive.
    const [there] = (await query(`select to_regclass('${schema}.migrations') is not null as there`)) as { there: boolean }[]
    return there?.there ? ((await query(`select version, sha256 from ${schema}.migrations order by version`)) as Applied[]) : []
  } catch (error) {
    if (stateOf(error) === '42P01') return []
    throw error
  }
}

/** @throws STORE_FORMAT_UNSUPPORTED */
function missingOf(applied: readonly Applied[], migrations: readonly Migration[], schema: string): Migration[] {
  const known = new Map(migrations.map((migration) => [migration.version, migration]))
  for (const { version, sha256 } of applied) {
    const ours = known.get(version)
    if (ours?.sha256 === sha256) continue
    throw new StoreError(
      'STORE_FORMAT_UNSUPPORTED',
      ours
        ? `the schema ${schema} was made with another text of ${ours.name}.`
        : `the schema ${schema} has version ${version}; this version of holdfast knows ${Math.max(0, ...known.keys())}.`,
      {
        details: { schema, version, known: [...known.keys()] },
        hint: 'Nothing was done. Use the version of holdfast that made it, or a newer one.',
      },
    )
  }
  const there = new Set(applied.map(({ version }) => version))
  return migrations.filter(({ version }) => !there.has(version))
}

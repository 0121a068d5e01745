/** How a schema comes to be, what it is refused for, and who may use it. */
import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { Database } from '../../src/postgres/database.js'
import { loadDriver } from '../../src/postgres/driver.js'
import { prepareSchema, shippedMigrations } from '../../src/postgres/migrations.js'
import { quotedSchema } from '../../src/postgres/schema.js'
import { openPostgres } from '../../src/postgres.js'
import { encoded } from '../backend/conformance.js'
import { postgresPlace, withClient } from './place.js'
import { server } from './server.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe
const url = 'url' in found ? found.url : ''

async function refusal(work: Promise<unknown>): Promise<{ code: string; effect: string; message: string }> {
  return work.then(
    () => ({ code: 'not refused', effect: '', message: '' }),
    (error: { code: string; effect: string; message: string }) => error,
  )
}

function place() {
  const made = postgresPlace(url)
  onTestFinished(() => made.remove())
  return made
}

describe('schema names', () => {
  test('are quoted, and what cannot be a name of ours is refused', () => {
    expect(quotedSchema('holdfast')).toBe('"holdfast"')
    expect(quotedSchema('Ünïcode 2 - x_y')).toBe('"Ünïcode 2 - x_y"')
    for (const name of ['', 'a"b', "a'b", 'a$holdfast$', 'a;b', 'pg_catalog', 'PG_x', '1a', 'é'.repeat(32), 'a\u0000', 'a\\b', 'a.b'])
      expect(() => quotedSchema(name)).toThrow(/INVALID_OPTION/)
  })

  test('the door takes a postgres:// address, and nothing else', async () => {
    for (const address of ['', './sessions', 'mysql://x', undefined as unknown as string])
      expect((await refusal(openPostgres(address))).code).toBe('INVALID_OPTION')
    expect((await refusal(SessionStore.open('postgres://x/y'))).message).toMatch(/openPostgres/)
  })
})

describeOnServer('the schema', () => {
  test('is made once, whoever comes first: ten openings at once', async () => {
    const { open, schema } = place()
    const handles = await Promise.all(Array.from({ length: 10 }, () => open()))
    await handles[3]!.append('k', [encoded({ n: 1 })], {})
    expect(await handles[7]!.tail('k', 1)).toMatchObject([{ record: { n: 1 } }])
    for (const handle of handles) await handle.close()
    const rows = await withClient(url, async (client) => (await client.query(`select version from "${schema}".migrations`)).rows)
    expect(rows.map(({ version }) => version).sort()).toEqual(shippedMigrations().map(({ version }) => version))
  })

  test('of a newer version is refused, and so is one whose migrations were other ones', async () => {
    const { open, schema } = place()
    await (await open()).close()
    await withClient(url, (client) => client.query(`insert into "${schema}".migrations values (9999, '9999-later.sql', 'x')`))
    expect(await refusal(open())).toMatchObject({ code: 'STORE_FORMAT_UNSUPPORTED', effect: 'none' })
    await withClient(url, (client) =>
      client.query(
        `delete from "${schema}".migrations where version = 9999; update "${schema}".migrations set sha256 = 'other' where version = 2`,
      ),
    )
    expect(await refusal(open())).toMatchObject({ code: 'STORE_FORMAT_UNSUPPORTED' })
  })

  test('a migration that fails half-way leaves what was there before', async () => {
    const { schema } = place()
    const options = { connectionString: url, max: 2, connectionTimeoutMillis: 5_000, application_name: 'test', waitMs: 5_000 }
    const database = new Database(await loadDriver(), options)
    onTestFinished(() => database.close())
    const quoted = quotedSchema(schema)
    const good = shippedMigrations()
    await prepareSchema(database, quoted, true, good.slice(0, 3))
    const bad = { version: 4, name: '0004-bad.sql', sql: 'create table @schema@.halfway (); select nonsense', sha256: 'x' }
    expect((await refusal(prepareSchema(database, quoted, true, [...good.slice(0, 3), bad]))).effect).toBe('none')
    const tables = await database.read(`select to_regclass($1) as there`, [`${quoted}.halfway`], { doing: 'test' })
    expect(tables[0]!.there).toBeNull()
    await prepareSchema(database, quoted, true)
  })

  test('is not made by a handle that only reads, or that is told not to', async () => {
    const schema = `test-${randomUUID()}`
    for (const options of [{ readOnly: true }, { migrate: false }])
      expect(await refusal(openPostgres(url, { schema, ...options }))).toMatchObject({ code: 'NOT_FOUND', effect: 'none' })
    const [row] = await withClient(url, async (client) => (await client.query('select to_regnamespace($1) as there', [`"${schema}"`])).rows)
    expect(row.there).toBeNull()
  })

  test('two stores in one database do not see each other', async () => {
    const [one, two] = [place(), place()]
    const handles = [await one.open(), await two.open()] as const
    await handles[0].append('k', [encoded({ from: 'one' })], { id: 'a' })
    expect(await handles[1].get('k')).toBeUndefined()
    expect((await handles[1].append('k', [encoded({ from: 'two' })], { id: 'a' })).duplicate).toBe(false)
    expect(await handles[0].tail('k', 5)).toMatchObject([{ record: { from: 'one' } }])
    for (const handle of handles) await handle.close()
  })

  test('a role with no more rights than docs/postgres.md gives it can do everything but migrate', async () => {
    const { open, schema } = place()
    await (await open()).close()
    const role = `role-${randomUUID()}`
    await withClient(url, (client) =>
      client.query(`create role "${role}" login password 'secret';
        grant usage on schema "${schema}" to "${role}";
        grant select, insert, update, delete on all tables in schema "${schema}" to "${role}";
        grant usage on all sequences in schema "${schema}" to "${role}";
        grant execute on all functions in schema "${schema}" to "${role}"`),
    )
    onTestFinished(() => withClient(url, async (client) => void (await client.query(`drop owned by "${role}"; drop role "${role}"`))))
    const theirs = new URL(url)
    theirs.username = role
    theirs.password = 'secret'
    const store = await openPostgres(theirs.href, { schema, migrate: false })
    await store.update('k', () => ({ model: 'x' }))
    await store.runTurn('k', { input: { n: 1 } }, (turn) => turn.append({ n: 2 }))
    await store.session('k').rotate()
    await store.withStoreLock((sessions) => sessions.size)
    await store.maintain()
    expect((await store.verify()).ok).toBe(true)
    expect(await store.delete('k')).toBe(true)
    await store.close()
  })
})

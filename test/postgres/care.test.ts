/** What is looked after in a database: verify finds rows that were changed by hand, retention archives and removes, archives can be read and restored. */
import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { PostgresOptions } from '../../src/postgres.js'
import { openPostgres } from '../../src/postgres.js'
import { collect } from '../backend/conformance.js'
import { withClient } from './place.js'
import { server } from './server.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe
const url = 'url' in found ? found.url : ''

async function opened(options: PostgresOptions = {}) {
  const schema = `test-${randomUUID()}`
  const store = await openPostgres(url, { schema, ...options })
  const sql = (text: string) => withClient(url, (client) => client.query(text.replaceAll('@', `"${schema}".`)))
  onTestFinished(async () => {
    await store.close()
    await withClient(url, (client) => client.query(`drop schema "${schema}" cascade`))
  })
  return { store, sql, schema }
}

describeOnServer('verify', () => {
  test('finds a record that is gone, a log that is gone, and a log that its key does not name', async () => {
    // F29
    const { store, sql } = await opened()
    for (const key of ['a', 'b', 'c', 'sound']) await store.session(key).append([{ n: 1 }, { n: 2 }, { n: 3 }])
    const [a, b] = [await store.get('a'), await store.get('b')]
    await sql(`delete from @records where session_id = '${a!.sessionId}' and seq = 2`)
    await sql(`delete from @logs where session_id = '${b!.sessionId}'`)
    await sql(`delete from @entries where key = 'c'`)
    const { ok, findings } = await store.verify()
    expect(ok).toBe(false)
    expect(findings.map(({ kind, key }) => [kind, key]).sort()).toEqual([
      ['missing-bytes', 'a'],
      ['transcript-missing', 'b'],
      ['transcript-orphan', 'c'],
    ])
    await expect(store.session('b').append({ n: 4 })).rejects.toMatchObject({ code: 'LOG_CORRUPT', effect: 'none' })
    await expect(store.planRepair()).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  })
})

describeOnServer('retention', () => {
  test('archives what the rules say, never what is pinned, active or waited for, and removes only what a rule for archives names', async () => {
    // F49
    const { store, sql } = await opened()
    for (const key of ['old', 'pinned', 'busy', 'kept', 'new']) await store.session(key).append({ key })
    await store.update('pinned', () => ({ pinned: true }))
    await sql(`update @entries set updated_at = updated_at - 100000 where key <> 'new'`)
    await sql(`update @logs set changed_at = changed_at - 100000 where key <> 'new'`)
    const rules = { maxAgeMs: 50_000 }
    const protect = (key: string) => key === 'kept'
    const report = await store.runTurn('busy', {}, async () => {
      await sql(`update @logs set changed_at = changed_at - 100000 where key = 'busy'`)
      expect((await store.retain({ rules, protect, dryRun: true })).archived.map(({ key }) => key)).toEqual(['old'])
      return store.retain({ rules, protect })
    })
    expect(report.value!.archived.map(({ key }) => key)).toEqual(['old'])
    expect(report.value!.protected.map(({ key, why }) => [key, why]).sort()).toEqual([
      ['busy', 'active-turn'],
      ['kept', 'predicate'],
      ['pinned', 'pinned'],
    ])
    expect(await store.get('old')).toBeUndefined()
    const [archive] = await store.archives('old')
    expect(await collect(store.readArchive(archive!.archive))).toMatchObject([{ record: { key: 'old' } }])
    await sql(`update @logs set closed_at = closed_at - 100000 where key = 'old'`)
    const { removed } = await store.retain({ rules: { archives: { maxAgeMs: 50_000 } } })
    expect(removed.map(({ key }) => key)).toEqual(['old'])
    expect(await store.archives()).toEqual([])
    expect((await store.verify()).ok).toBe(true)
  })
})

describeOnServer('archives', () => {
  test('a rotated or deleted session can be found, read and brought back with its numbers and ids (F51)', async () => {
    const { store } = await opened()
    const session = store.session('k')
    await session.append([{ n: 1 }, { n: 2 }], { id: 'a\u0000' })
    await store.runTurn('k', { input: { n: 3 }, requestId: 'r' }, (turn) => turn.append({ n: 4 }))
    const before = await collect(session.read())
    await session.rotate({ reason: 'reset' })
    await store.delete('k')
    const archives = await store.archives('k')
    expect(archives.map(({ reason, why, next }) => [reason, why, next !== undefined])).toEqual([
      ['deleted', 'deleted', false],
      ['rotated', 'reset', true],
    ])
    const archive = archives[1]!.archive
    expect(await collect(store.readArchive(archive))).toEqual(before)
    expect(await store.restoreArchive(archive, { key: 'back', entry: { model: 'x' } })).toMatchObject({ key: 'back' })
    expect(await collect(store.session('back').read())).toEqual(before)
    expect(await store.get('back')).toMatchObject({ model: 'x', revision: 1 })
    expect((await store.session('back').append({}, { id: 'a\u0000' })).duplicate).toBe(true)
    await expect(store.restoreArchive(archive, { key: 'back' })).rejects.toMatchObject({ code: 'INVALID_KEY', effect: 'none' })
    await expect(store.restoreArchive(randomUUID(), { key: 'other' })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    expect((await store.verify()).ok).toBe(true)
  })
})

describeOnServer('background maintenance', () => {
  test('forgets commits of long ago, and those of the last hour stay', async () => {
    const { store, sql } = await opened()
    for (let n = 0; n < 5; n++) await store.session('k').append({ n })
    await sql(`update @commits set at = at - interval '2 hours' where id in (select id from @commits order by at limit 3)`)
    const report = await store.maintain()
    expect(report.steps.find(({ step }) => step === 'forget-commits')).toMatchObject({ outcome: 'done', units: 3 })
    expect((await sql('select count(*)::integer as n from @commits')).rows[0].n).toBe(2)
  })
})

describeOnServer('a summary', () => {
  test('stands for what it was made of, for readers and for turns', async () => {
    const { store } = await opened()
    const session = store.session('k')
    for (let n = 0; n < 30; n++) await session.append({ n })
    const receipt = await session.compact({ keepLast: 10, summarize: (records) => `${records.length} records` })
    expect(receipt).toMatchObject({ compacted: true, upTo: 20, records: 20 })
    await session.append({ n: 30 })
    const seen = await collect(session.read({ compacted: true }))
    expect(seen[0]).toMatchObject({ record: { type: 'summary', text: '20 records' } })
    expect(seen.slice(1).map(({ record }) => record.n)).toEqual(Array.from({ length: 11 }, (_, at) => 20 + at))
    expect(await session.tail(11, { compacted: true })).toEqual(seen.slice(1))
    expect(await session.tail(50, { compacted: true })).toEqual(seen)
    await store.runTurn('k', {}, async (turn) => expect(await turn.tail(50, { compacted: true })).toEqual(seen))
    expect(await collect(session.read())).toHaveLength(31)
  })
})

/** The commands on a store in a database, named by its address. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openPostgres } from '../../src/postgres.js'
import { withClient } from '../postgres/place.js'
import { server } from '../postgres/server.js'
import { holdfastHere, jsonLines } from './run.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe
const schema = `test-${randomUUID()}`
const url = 'url' in found ? `${found.url}?schema=${schema}` : ''
const on = (...args: string[]) => holdfastHere([...args, '--store', url])

describeOnServer('on a store in PostgreSQL', () => {
  beforeAll(async () => {
    const store = await openPostgres(url)
    await store.update('k', () => ({ model: 'x' }))
    await store.session('k').append([{ n: 1 }, { n: 2 }])
    await store.runTurn('k', { input: { n: 3 }, requestId: 'r' }, () => {})
    await store.close()
  })
  afterAll(() => ('url' in found ? withClient(found.url, (client) => client.query(`drop schema "${schema}" cascade`)) : undefined))

  test('list, show, tail, turns, locks, stats and verify show what is there', async () => {
    expect(jsonLines((await on('list', '--json')).stdout)).toMatchObject([{ key: 'k', entry: { model: 'x' } }])
    expect(jsonLines((await on('show', 'k', '--json')).stdout)).toMatchObject([
      { key: 'k', transcript: { records: 3, firstSeq: 1, lastSeq: 3 } },
    ])
    expect((await on('show', 'k')).stdout).toContain('model')
    expect(jsonLines((await on('tail', 'k', '--json')).stdout)).toMatchObject([
      { record: { n: 1 } },
      { record: { n: 2 } },
      { record: { n: 3 }, request: 'r' },
    ])
    expect(jsonLines((await on('turns', 'k', '--json')).stdout)).toMatchObject([{ turn: 1, state: 'completed', requestId: 'r' }])
    expect((await on('locks')).stdout).toContain('No lock is held')
    expect(jsonLines((await on('stats', '--json')).stdout)).toMatchObject([{ sessions: { count: 1 }, damage: 0 }])
    expect(await on('verify')).toMatchObject({ code: 0 })
  })

  test('rotate, archives, restore-archive, retain and maintain do what they do with files', async () => {
    expect(await on('rotate', 'k')).toMatchObject({ code: 0 })
    const [archive] = jsonLines((await on('archives', 'k', '--json')).stdout) as { archive: string }[]
    expect((await on('show', '--archive', archive!.archive, '--json')).stdout).toContain('"n":2')
    expect(await on('restore-archive', archive!.archive, '--key', 'back')).toMatchObject({ code: 0 })
    expect(jsonLines((await on('tail', 'back', '--json')).stdout)).toHaveLength(3)
    expect(await on('retain', '--max-age', '1d', '--apply')).toMatchObject({ code: 0 })
    expect(await on('maintain')).toMatchObject({ code: 0 })
  })

  test('what is for files says so, and an unknown key or schema is refused without showing the password', async () => {
    expect(await on('repair')).toMatchObject({ code: 2 })
    expect((await on('show', 'nobody')).code).toBe(2)
    const secret = new URL(url)
    secret.password = 'hush'
    secret.searchParams.set('schema', 'not-there')
    const refused = await holdfastHere(['list', '--store', secret.href])
    expect(refused.code).not.toBe(0)
    expect(refused.stdout + refused.stderr).not.toContain('hush')
    secret.searchParams.set('schema', schema)
    const unknown = await holdfastHere(['show', 'nobody', '--store', secret.href])
    expect(unknown).toMatchObject({ code: 2 })
    expect(unknown.stderr).not.toContain('hush')
  })
})

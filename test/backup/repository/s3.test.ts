/** S3-compatible storage, as it is and as it fails: a server in a process of its own, a proxy between that does harm. */
import fs from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { S3TargetOptions } from '../../../src/backup/repository/access.js'
import { createRepository, openRepository } from '../../../src/backup/repository/open.js'
import type { Repository, SnapshotWriter } from '../../../src/backup/repository/repository.js'
import { parsePage, S3Target } from '../../../src/backup/targets/s3.js'
import { s3SettingsOf } from '../../../src/backup/targets/s3-options.js'
import { contentsOf, digest, digested, factsOf, noise, piecesOf, plainFacts, snapshotOf, temporaryDirectory, transcript } from './depot.js'
import { type Harm, type HarmfulProxy, type S3Server, startProxy, startS3Server } from './s3-server.js'

let directory: string
let server: S3Server
let proxy: HarmfulProxy
let number = 0
let options: S3TargetOptions

beforeAll(async () => {
  directory = temporaryDirectory()
  server = await startS3Server(directory)
})

afterAll(async () => {
  await server.stop()
  fs.rmSync(directory, { recursive: true, force: true })
})

beforeEach(async () => {
  proxy = await startProxy(server.port)
  const credentials = { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' }
  options = {
    url: `s3://backups/prefix ${++number}/x`.replace(' ', '-'),
    endpoint: proxy.endpoint,
    backoffMs: 5,
    requestMs: 400,
    ...credentials,
  }
})

afterEach(async () => {
  await proxy.stop()
})

const target = (more: Partial<S3TargetOptions> = {}) => new S3Target(s3SettingsOf({ ...options, ...more }, {}))
const files = { a: transcript(900_000), b: noise(300_000), c: Buffer.alloc(0) }

async function made(): Promise<{ repository: Repository; id: string }> {
  const { repository } = await createRepository(options, { packBytes: 200_000 })
  const { info } = await snapshotOf(repository, files)
  return { repository, id: info.id }
}

describe('objects', () => {
  test('are put, found, read whole and in part, listed page by page, and removed', async () => {
    const it = target({ pageMax: 7 })
    expect(await it.get('a')).toBeUndefined()
    await Promise.all(Array.from({ length: 30 }, (_, at) => it.put(`many/${String(at).padStart(4, '0')}`, Buffer.from(String(at)))))
    const listed = await it.list('many/')
    expect(listed.map(({ name }) => name).sort()).toEqual(Array.from({ length: 30 }, (_, at) => `many/${String(at).padStart(4, '0')}`))
    expect(listed.every(({ modifiedMs }) => Math.abs(modifiedMs - Date.now()) < 60_000)).toBe(true)
    expect((await it.get('many/0012'))!.toString()).toBe('12')
    expect((await it.get('many/0012', { range: { from: 1, length: 2 } }))!.toString()).toBe('2')
    expect((await it.get('many/0012', { range: { from: 0, length: 90 } }))!.toString()).toBe('12')
    await it.delete('many/0012')
    await it.delete('many/0012')
    expect(await it.get('many/0012')).toBeUndefined()
    expect(Math.abs((await it.nowMs()) - Date.now())).toBeLessThan(5_000)
  })

  test('of several puts where nothing is, one succeeds', async () => {
    const it = target()
    const outcomes = await Promise.all(Array.from({ length: 8 }, (_, at) => it.put('one', Buffer.from(`${at}`), { ifAbsent: true })))
    expect(outcomes.filter(Boolean)).toHaveLength(1)
    expect((await it.get('one'))!.toString()).toBe(String(outcomes.indexOf(true)))
    expect(await it.isExclusive()).toBe(true)
  })

  test.each(['no', 'refuses'] as const)(
    'a service without conditional writes is told by trying (%s), and looked at before a put',
    async (conditions) => {
      proxy.conditions = conditions
      const it = target()
      expect(await it.isExclusive()).toBe(false)
      expect(await it.put('one', Buffer.from('1'), { ifAbsent: true })).toBe(true)
      expect(await it.put('one', Buffer.from('2'), { ifAbsent: true })).toBe(false)
      expect((await it.get('one'))!.toString()).toBe('1')
      expect(await it.list('tmp/')).toEqual([])
    },
  )

  test('a put whose answer is lost has succeeded, not failed, and not twice', async () => {
    const it = target()
    await it.isExclusive()
    let lost = 0
    proxy.harm = ({ method }) => (method === 'PUT' && lost++ === 0 ? 'dropAfter' : 'none')
    expect(await it.put('one', Buffer.from('mine'), { ifAbsent: true })).toBe(true)
    lost = 0
    expect(await it.put('one', Buffer.from('other'), { ifAbsent: true })).toBe(false)
  })
})

describe('a repository', () => {
  test('is written, read, checked, forgotten and pruned', async () => {
    const { repository, id } = await made()
    expect(await contentsOf(repository, id)).toEqual(digested(files))
    const second = await snapshotOf(repository, { b: files.b })
    await repository.forget({ keepLast: 1 })
    const { packsRemoved, packsRepacked } = await repository.prune()
    expect(packsRemoved + packsRepacked).toBeGreaterThan(0)
    const again = await openRepository(options)
    expect((await again.check({ deep: true })).ok).toBe(true)
    expect(await contentsOf(again, second.info.id)).toEqual(digested({ b: files.b }))
  })

  test('survives a bad day: every kind of failure, on a third of all requests', async () => {
    const kinds: Harm[] = ['dropBefore', 'dropAfter', 'error500', 'slowDown', 'cut']
    let state = 7
    proxy.harm = () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return state % 3 === 0 ? kinds[(state >>> 8) % kinds.length]! : 'none'
    }
    options = { ...options, triesMax: 12 }
    const { repository, id } = await made()
    expect(await contentsOf(repository, id)).toEqual(digested(files))
    expect((await repository.check({ deep: true })).ok).toBe(true)
    await repository.prune()
    proxy.harm = () => 'none'
    expect(await contentsOf(await openRepository(options), id)).toEqual(digested(files))
  })

  test('that does not answer in time is told as such, and nothing waits for ever', async () => {
    const { repository, id } = await made()
    options = { ...options, triesMax: 2 }
    proxy.harm = () => 'stall'
    const beganMs = performance.now()
    await expect(openRepository(options)).rejects.toMatchObject({ code: 'BACKEND_UNAVAILABLE', retryable: true, effect: 'none' })
    expect(performance.now() - beganMs).toBeLessThan(5_000)
    proxy.harm = () => 'none'
    expect(await contentsOf(repository, id)).toEqual(digested(files))
  })

  test('a wait for it ends when the caller does not want it any more', async () => {
    const { repository } = await made()
    proxy.harm = () => 'error500'
    const stop = new AbortController()
    const listing = repository.snapshots({ signal: stop.signal })
    setTimeout(() => stop.abort(new Error('enough')), 15)
    await expect(listing).rejects.toThrow('enough')
  })

  test('an interrupted backup is resumed: what has been sent is not sent again', async () => {
    const { repository } = await createRepository(options, { packBytes: 100_000 })
    const all = Array.from({ length: 12 }, () => noise(100_000))
    const stop = new AbortController()
    const first = await repository.begin({ storeId: 's', host: 'h' }, { signal: stop.signal })
    for (const [at, bytes] of all.slice(0, 10).entries()) await first.file(factsOf(`f${at}`), piecesOf(bytes))
    const sentPacks = () => proxy.seen.filter(({ method, key }) => method === 'PUT' && key.includes('/packs/')).length
    while (sentPacks() < 6) await new Promise((resolve) => setTimeout(resolve, 5))
    stop.abort(new Error('killed'))
    await expect(first.commit(plainFacts)).rejects.toThrow('killed')
    expect(await repository.snapshots()).toEqual([])
    proxy.seen.length = 0
    const second = await repository.begin({ storeId: 's', host: 'h' })
    for (const [at, bytes] of all.entries()) await second.file(factsOf(`f${at}`), piecesOf(bytes))
    const { id } = await second.commit(plainFacts)
    const sent = proxy.seen.filter(({ method }) => method === 'PUT').reduce((sum, { bytes }) => sum + bytes, 0)
    expect(sent).toBeLessThan(1_000_000)
    expect((await repository.manifest(id)).files).toHaveLength(12)
    expect((await repository.check({ deep: true })).ok).toBe(true)
  })

  test('a backup that a prune gave up cannot commit, with conditional writes and without', async () => {
    const each = ['yes', 'no'] as const
    const begun: { repository: Repository; writer: SnapshotWriter }[] = []
    for (const conditions of each) {
      proxy.conditions = conditions
      const { repository } = await createRepository({ ...options, prefix: `given-up-${conditions}` }, { packBytes: 100_000 })
      const writer = await repository.begin({ storeId: 's', host: 'h' })
      await writer.file(factsOf('a'), piecesOf(files.b))
      begun.push({ repository, writer })
    }
    await new Promise((resolve) => setTimeout(resolve, 1_100)) // The server's clock has seconds.
    for (const [at, { repository, writer }] of begun.entries()) {
      proxy.conditions = each[at]!
      expect((await repository.prune({ staleMs: 0 })).givenUp).toEqual([writer.id])
      await expect(writer.commit(plainFacts)).rejects.toMatchObject({ code: 'LOCK_LOST' })
      expect(await repository.snapshots()).toEqual([])
      expect((await repository.check()).ok).toBe(true)
    }
  })

  test('is worth few requests, however many small files there are', async () => {
    const { repository } = await createRepository(options)
    proxy.seen.length = 0
    const many = Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`s/${at}`, transcript(2_000, at + 1)]))
    const { info } = await snapshotOf(repository, many)
    expect(proxy.seen.filter(({ method }) => method === 'PUT').length).toBeLessThan(12)
    proxy.seen.length = 0
    const again = await openRepository(options)
    expect(await contentsOf(again, info.id)).toEqual(digested(many))
    expect(proxy.seen.length).toBeLessThan(20)
  })
})

describe('credentials', () => {
  test('that are wrong are refused at once, with a hint, and appear in no error', async () => {
    const wrong = { ...options, secretAccessKey: 'wrong-secret-of-mine', accessKeyId: 'wrong-id-of-mine' }
    const error = await openRepository(wrong).catch((it: unknown) => it)
    expect(error).toMatchObject({ code: 'INVALID_OPTION', details: { status: 403 } })
    expect(proxy.seen).toHaveLength(1)
    const { inspect } = await import('node:util')
    expect(inspect(error, { depth: 10, showHidden: true })).not.toMatch(/of-mine/)
    await proxy.stop()
    const unreachable = await openRepository({ ...wrong, triesMax: 1 }).catch((it: unknown) => it)
    expect(unreachable).toMatchObject({ code: 'BACKEND_UNAVAILABLE' })
    expect(inspect(unreachable, { depth: 10, showHidden: true })).not.toMatch(/of-mine/)
    proxy = await startProxy(server.port)
  })

  test('come from the environment where they are not given; the place is checked', () => {
    const env = {
      AWS_ACCESS_KEY_ID: 'id',
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_SESSION_TOKEN: 'token',
      AWS_ENDPOINT_URL_S3: 'https://r2.example/',
    }
    expect(s3SettingsOf({ url: 's3://bucket/a/b/' }, env)).toMatchObject({
      accessKeyId: 'id',
      sessionToken: 'token',
      region: 'auto',
      prefix: 'a/b/',
      baseUrl: 'https://r2.example/bucket/',
      place: 's3://bucket/a/b/ at r2.example',
    })
    const aws = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret', AWS_REGION: 'eu-central-1' }
    expect(s3SettingsOf({ bucket: 'bucket' }, aws).baseUrl).toBe('https://bucket.s3.eu-central-1.amazonaws.com/')
    for (const bad of [
      { url: 's3:bucket' },
      { bucket: 'x' },
      { url: 's3://bucket/../y' },
      { bucket: 'bucket', endpoint: 'https://u:p@host' },
    ])
      expect(() => s3SettingsOf(bad, env)).toThrow(/INVALID_OPTION/)
    expect(() => s3SettingsOf({ bucket: 'bucket' }, {})).toThrow(/credentials/)
  })
})

test('a page of a listing is read whole or not at all', () => {
  const entry = '<Contents><Key>a&amp;b&#39;</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>5</Size></Contents>'
  const page = (inner: string) => `<?xml version="1.0"?><ListBucketResult xmlns="x">${inner}</ListBucketResult>`
  expect(parsePage(page(entry))).toEqual({ objects: [{ name: "a&b'", bytes: 5, modifiedMs: Date.UTC(2026, 0, 1) }], next: undefined })
  expect(parsePage(page('<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>'))).toEqual({
    objects: [],
    next: 't',
  })
  expect(parsePage(page('<IsTruncated>true</IsTruncated>'))).toBeUndefined()
  expect(parsePage(page(entry.replace('5', 'x')))).toBeUndefined()
  expect(parsePage('<html></html>')).toBeUndefined()
  expect(digest(Buffer.alloc(0))).toMatch(/^0 e3b0/)
})

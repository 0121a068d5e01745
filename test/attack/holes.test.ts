/** Holes in the promises, each shown by the smallest program that falls into it. `fails` goes once the hole is closed. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { type FileBackendOptions, openFileBackend } from '../../src/file/backend.js'
import type { Disk } from '../../src/file/durable.js'
import { type Host, systemHost } from '../../src/file/host.js'
import { heldName, holderPrefix } from '../../src/file/lock/holder.js'
import { bootTag, Chain } from '../../src/file/log/chain.js'
import { encodeLine } from '../../src/file/log/record.js'

let dir = ''
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-attack-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

const never = () => {}
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const record = (a: unknown) => [{ json: JSON.stringify({ a }) }]

function machine(): Host & { disk: Disk } {
  const host = systemHost()
  return { ...host, disk: { ...host.disk } }
}

function open(options: Partial<FileBackendOptions> = {}, host: Host = systemHost()): Promise<Backend> {
  const checkKey = never as FileBackendOptions['checkKey']
  return openFileBackend(
    dir,
    { durability: 'process', checkpoint: 'auto', waitMs: 2_000, maxHoldMs: 15_000, readOnly: false, checkKey, ...options },
    host,
  )
}

async function all(store: Backend, key: string): Promise<unknown[]> {
  const found: unknown[] = []
  for await (const { record } of store.read(key, {})) found.push(record.a)
  return found
}

function lockOf(sessionId: string): string {
  return join(dir, 'locks/transcripts', String(crc32(Buffer.from(sessionId)) % 64).padStart(2, '0'))
}

/** Somebody alive takes the lock, which is free; what is returned gives it back. */
function takeAway(lock: string, host: Host): () => void {
  const free = fs.readdirSync(lock).find((name) => name.startsWith('free.'))
  if (!free) throw new Error('the lock is not free')
  const n = Number(free.slice(5)) + 1
  const { clock, identity } = host
  const held = heldName(n, holderPrefix(identity), clock.monotonicMs(), 15_000, 'commit', identity.host, 'abcdef')
  fs.renameSync(join(lock, free), join(lock, held))
  return () => fs.renameSync(join(lock, held), join(lock, `free.${n}`))
}

/** Takes the lock away as soon as it is released after a seal. */
function takeAwayAfterSeal(lock: string, host: Host): { giveBack: () => void } {
  const { rename, write } = host.disk
  const taken = { giveBack: never }
  let sealed = false
  host.disk.write = (fd, bytes) => {
    if (Buffer.from(bytes).includes('"seal"')) sealed = true
    return write(fd, bytes)
  }
  host.disk.rename = (from, to) => {
    rename(from, to)
    if (!sealed || !to.startsWith(`${lock}/free.`)) return
    sealed = false
    taken.giveBack = takeAway(lock, host)
  }
  return taken
}

const settled = (work: Promise<unknown>) =>
  work.then(
    () => 'ok',
    (error: { effect?: string; code?: string }) => `${error.code} ${error.effect}`,
  )

test('a transcript that an editor has saved (new file, renamed) is appended to by a handle that has the lock to itself', async () => {
  const store = await open()
  const { sessionId } = await store.append('k', record(1), {})
  const path = join(dir, 'transcripts', `${sessionId}.jsonl`)
  fs.writeFileSync(`${path}.tmp`, fs.readFileSync(path))
  fs.renameSync(`${path}.tmp`, path)
  expect(await settled(store.append('k', record(2), {}))).toBe('ok')
  await store.close()
})

test('what is refused with effect none is not in the file that was moved away and put back', async () => {
  const store = await open()
  const { sessionId } = await store.append('k', record(1), {})
  const path = join(dir, 'transcripts', `${sessionId}.jsonl`)
  fs.renameSync(path, `${path}.away`)
  const told = await settled(store.append('k', record(2), {}))
  fs.renameSync(`${path}.away`, path)
  const found = (await all(store, 'k')).filter((a) => a === 2).length
  expect([told.endsWith('none') ? 0 : 1, found]).toEqual([found, found])
  await store.close()
})

test('a mutator that aborts its own signal does not cost the next caller its answer', async () => {
  const store = await open()
  const own = new AbortController()
  const first = store.commitMetadata(
    (sessions) => {
      own.abort(new Error('changed my mind'))
      return sessions.set('a', {})
    },
    { signal: own.signal },
  )
  const second = store.commitMetadata((sessions) => sessions.set('b', {}), {})
  await settled(first)
  expect(await Promise.race([settled(second), sleep(500).then(() => 'hangs')])).toBe('ok')
})

// As by an append of 40 records of 15 MB: `RangeError: Invalid string length` while the batch is put together.
test('a call whose batch cannot be put together is answered', async () => {
  const host = machine()
  const store = await open({}, host)
  await store.append('k', record(1), {})
  const { write } = host.disk
  host.disk.write = () => {
    host.disk.write = write
    throw new RangeError('Invalid string length')
  }
  expect(await Promise.race([settled(store.append('k', record(2), {})), sleep(500).then(() => 'hangs')])).not.toBe('hangs')
})

for (const doing of ['rotate', 'delete'] as const)
  test(`${doing} does not say effect none once its seal stands`, async () => {
    const host = machine()
    const store = await open({ waitMs: 100 }, host)
    const { sessionId } = await store.append('k', record(1), {})
    const taken = takeAwayAfterSeal(lockOf(sessionId), host)
    const told = await settled(doing === 'rotate' ? store.rotate('k', 'why', {}) : store.delete('k', {}))
    taken.giveBack()
    const after = await store.append('k', record(2), {})
    expect([told, after.sessionId === sessionId]).not.toEqual(['LOCK_TIMEOUT none', false])
  })

test('a mutator that deletes is not told effect none when only the archiving has failed', async () => {
  const host = machine()
  const store = await open({ waitMs: 100 }, host)
  const { sessionId } = await store.append('k', record(1), {})
  takeAway(lockOf(sessionId), host)
  const told = await settled(store.commitMetadata((sessions) => sessions.delete('k'), {}))
  expect([told, await store.get('k')]).not.toEqual(['LOCK_TIMEOUT none', undefined])
})

test('a rotation whose lock is taken over while it makes the new log loses no idempotency id', async () => {
  const host = machine()
  const store = await open({ maxHoldMs: 50 }, host)
  const other = await open({ maxHoldMs: 50 })
  const { sessionId } = await store.append('k', record(1), { id: 'evt-1' })
  let neighbour = ''
  for (let at = 0; !neighbour; at++) {
    const made = await store.append(`s${at}`, record(0), {})
    if (lockOf(made.sessionId) === lockOf(sessionId)) neighbour = `s${at}`
  }
  const { open: openFile, sync } = host.disk
  let staged = -1
  host.disk.open = (path, flags) => {
    const fd = openFile(path, flags)
    if (staged === -1 && flags === 'create' && path.startsWith(`${lockOf(sessionId)}/held.`)) staged = fd
    return fd
  }
  host.disk.sync = async (fd) => {
    if (fd === staged) {
      staged = -2
      await sleep(80)
      await other.append(neighbour, record(1), {})
    }
    return sync(fd)
  }
  await store.rotate('k', 'why', {})
  expect((await other.append('k', record(1), { id: 'evt-1' })).duplicate).toBe(true)
})

test('a rotation that waits for a lock while 256 other sessions are written to loses no idempotency id', async () => {
  const host = machine()
  const store = await open({}, host)
  const { sessionId } = await store.append('k', record(1), { id: 'evt-1' })
  const names: string[] = []
  for (let at = 0; at < 300; at++)
    if (lockOf((await store.append(`s${at}`, record(0), {})).sessionId) !== lockOf(sessionId)) names.push(`s${at}`)
  const taken = takeAwayAfterSeal(lockOf(sessionId), host)
  const rotation = store.rotate('k', 'why', {})
  await sleep(100)
  for (const name of names) await store.append(name, record(1), {})
  taken.giveBack()
  await rotation
  expect((await store.append('k', record(1), { id: 'evt-1' })).duplicate).toBe(true)
})

test('appends of one handle land in the order of the calls when the metadata hears of a rotation between them', async () => {
  const store = await open()
  const other = await open()
  await store.append('k', record(0), {})
  await other.rotate('k', 'why', {})
  const first = store.append('k', record(1), {})
  void store.get('k')
  await Promise.all([first, store.append('k', record(2), {})])
  expect(await all(store, 'k')).toEqual([1, 2])
})

test('effect none of a call that wrote a void batch is not said before what it lost to is on the disk', async () => {
  const host = machine()
  const store = await open({ durability: 'power' }, host)
  const { sessionId, seq } = await store.append('k', record(0), {})
  const path = join(dir, 'transcripts', `${sessionId}.jsonl`)
  const tag = bootTag(host.identity.boot)
  const chain = new Chain(tag)
  chain.feed(fs.readFileSync(path))
  const sleeper = encodeLine('{"a":1}', { seq: seq + 1, left: 0, synced: -1, writer: `${tag}cccccccc`, prev: chain.crc }).line
  const { sync, write } = host.disk
  let raced = false
  let syncs = 0
  host.disk.write = (fd, bytes) => {
    if (!raced) fs.appendFileSync(path, sleeper)
    raced = true
    return write(fd, bytes)
  }
  host.disk.sync = (fd) => {
    syncs++
    return sync(fd)
  }
  expect(await settled(store.append('k', record(2), { expectedSeq: seq }))).toBe('SEQ_CONFLICT none')
  expect(syncs).toBeGreaterThan(0)
})

test('a journal whose sync has failed is marked although a transcript failed first', async () => {
  const host = machine()
  const store = await open({ durability: 'power' }, host)
  await store.append('k', record(1), {})
  const { sync } = host.disk
  let bad = true
  host.disk.sync = async (fd) => {
    const path = fs.readlinkSync(`/proc/self/fd/${fd}`)
    if (!bad || path.includes('/locks/')) return sync(fd)
    if (path.includes('journal')) await sleep(20)
    throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
  }
  await Promise.all([
    settled(store.append('k', record(2), {})),
    settled(store.commitMetadata((sessions) => sessions.patch('k', { n: 1 }), {})),
  ])
  await sleep(150)
  bad = false
  const journal = fs.readFileSync(join(dir, 'sessions.journal.jsonl'), 'utf8')
  expect(journal.includes('"seal"') || !journal.includes('"op"')).toBe(true)
})

test('the name of a rotated session is on the disk before the metadata names it, whoever made its file', async () => {
  const dying = machine()
  const first = await open({ durability: 'power' }, dying)
  const { sessionId } = await first.append('k', record(1), { id: 'evt-1' })
  const { rename } = dying.disk
  dying.disk.rename = (from, to) => {
    rename(from, to)
    if (!to.includes('/locks/') && to.includes('/transcripts/')) {
      dying.disk.syncDirectory = () => new Promise(never)
      dying.disk.rename = () => {
        throw Object.assign(new Error('EIO: dead'), { code: 'EIO' })
      }
    }
  }
  void first.rotate('k', 'why', {}).catch(never)
  await sleep(100)
  const lock = lockOf(sessionId)
  const left = fs.readdirSync(lock).find((name) => name.startsWith('held.'))
  if (left) fs.renameSync(join(lock, left), join(lock, `free.${left.split('.')[1]}`))
  const host = machine()
  const second = await open({ durability: 'power' }, host)
  const events: string[] = []
  const { syncDirectory, write } = host.disk
  host.disk.write = (fd, bytes) => {
    if (Buffer.from(bytes).includes('"op":"put"')) events.push('named')
    return write(fd, bytes)
  }
  host.disk.syncDirectory = async (path) => {
    await syncDirectory(path)
    if (path.endsWith('/transcripts')) events.push('directory')
  }
  await second.append('k', record(2), {})
  expect(events[0]).toBe('directory')
})

test('a stage that could not be emptied once does not block its own handle until the hold expires', async () => {
  const host = machine()
  const store = await open({ waitMs: 500 }, host)
  const lock = join(dir, 'locks/metadata')
  const free = fs.readdirSync(lock)[0] ?? ''
  const gone = heldName(Number(free.slice(5)) + 1, holderPrefix({ ...host.identity, startTime: '1' }), 1, 15_000, 'commit', 'x', 'abcdef')
  fs.renameSync(join(lock, free), join(lock, gone))
  const { readdir } = host.disk
  host.disk.readdir = (path) => {
    if (!path.includes('/held.')) return readdir(path)
    host.disk.readdir = readdir
    throw Object.assign(new Error('EMFILE: too many open files, scandir'), { code: 'EMFILE' })
  }
  await settled(store.commitMetadata((sessions) => sessions.set('x', {}), {}))
  expect(await settled(store.commitMetadata((sessions) => sessions.set('x', {}), {}))).toBe('ok')
})

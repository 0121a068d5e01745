/** What the store tells those who look on: three channels, and the counters of a handle. */
import { spawnSync } from 'node:child_process'
import diagnostics from 'node:diagnostics_channel'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { openFileBackend } from '../src/file/backend.js'
import { nodeDisk } from '../src/file/durable.js'
import { type Host, systemHost } from '../src/file/host.js'
import { Baton, type Held } from '../src/file/lock/baton.js'
import { encodeLine, readMark } from '../src/file/log/record.js'
import { channels, newCounters } from '../src/file/stats.js'
import { SessionStore, type StoreOptions, type StoreStats } from '../src/index.js'
import { faultyDisk } from './faults/faulty-disk.js'
import { storeOptions } from './simulation/store-on-disk.js'

type Message = Record<string, unknown>

const key = 'agent:main:main'
let dir: string
let store: SessionStore

beforeEach(async () => {
  dir = fs.mkdtempSync(join(tmpdir(), 'holdfast-observability-'))
  store = await open()
})
afterEach(async () => {
  await store.close()
  fs.rmSync(dir, { recursive: true, force: true })
})

function open(options: StoreOptions = {}): Promise<SessionStore> {
  return SessionStore.open(join(dir, 'store'), options)
}

/** What goes over a channel until the test is over. */
function listen(name: 'holdfast:lock' | 'holdfast:commit' | 'holdfast:maintenance'): Message[] {
  const heard: Message[] = []
  const note = (message: unknown) => void heard.push(message as Message)
  diagnostics.subscribe(name, note)
  onTestFinished(() => void diagnostics.unsubscribe(name, note))
  return heard
}

/** Somebody else who holds a lock of the store. */
function other(lock: string, maxHoldMs = 60_000, host: Host = systemHost()) {
  const baton = new Baton(host, join(dir, 'store/locks', lock), { maxHoldMs, counters: newCounters(), label: 'somebody else’s' })
  return {
    take(): Held {
      const held = baton.tryAcquire('commit')
      if (!held) throw new Error(`${lock} is held`)
      return held
    },
    release: (held: Held) => baton.release(held),
  }
}

const slotOf = (sessionId: string) => `transcripts/${String(crc32(sessionId) % 64).padStart(2, '0')}`
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const failureOf = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error)

/** How the counters have moved; those that stand still are left out. */
async function moved(work: () => unknown, of = store): Promise<Partial<StoreStats>> {
  const flat = ({ takeovers, ...rest }: StoreStats): Record<string, number> => ({ ...rest, ...takeovers })
  const before = flat(of.stats())
  await work()
  const now = flat(of.stats())
  return Object.fromEntries(
    Object.keys(now)
      .map((name) => [name, now[name]! - before[name]!] as const)
      .filter(([, by]) => by !== 0),
  )
}

describe('holdfast:commit', () => {
  test('of an append names key, session, request and channel together', async () => {
    await store.session(key).append({ n: 1 })
    const heard = listen('holdfast:commit')
    const receipt = await store.session(key).append([{ n: 2 }, { n: 3 }], { requestId: 'r-17', channelId: 'telegram:42' })
    const { sessionId, seqs } = receipt
    const log = `transcripts/${sessionId}.jsonl`
    const bytes = Buffer.byteLength(
      `${fs
        .readFileSync(join(dir, 'store', log), 'utf8')
        .trimEnd()
        .split('\n')
        .slice(-2)
        .join('\n')}\n`,
    )
    expect(heard).toEqual([{ log, seqs, bytes, key, sessionId, requestId: 'r-17', channelId: 'telegram:42' }])
  })

  test('comes once for each call of a commit that several share, each with its own', async () => {
    await store.session(key).append({ n: 1 })
    const heard = listen('holdfast:commit')
    const calls = ['a', 'b', 'c'].map((requestId) => store.session(key).append({ requestId }, { requestId }))
    const receipts = await Promise.all(calls)
    expect(heard.map(({ requestId, seqs }) => [requestId, seqs])).toEqual(['a', 'b', 'c'].map((it, at) => [it, receipts[at]!.seqs]))
    expect(new Set(heard.map(({ bytes }) => bytes)).size).toBe(1)
  })

  test('of a change of metadata names key and session', async () => {
    const heard = listen('holdfast:commit')
    const { sessionId } = await store.update(key, () => ({ model: 'x' }))
    await store.withStoreLock((sessions) => sessions.delete(key))
    expect(heard).toMatchObject([
      { log: 'metadata', key, sessionId },
      { log: 'metadata', key, sessionId },
    ])
  })

  test('of a change of several sessions names the keys', async () => {
    const heard = listen('holdfast:commit')
    await store.withStoreLock((sessions) => ['a', 'b'].map((it) => sessions.set(it, {})))
    expect(heard).toMatchObject([{ log: 'metadata', keys: ['a', 'b'], seqs: [expect.any(Number), expect.any(Number)] }])
  })

  test('of a first append names the session in both commits: the one that makes it and the one that appends', async () => {
    const heard = listen('holdfast:commit')
    const { sessionId } = await store.session(key).append({ n: 1 }, { requestId: 'r-1' })
    expect(heard).toMatchObject([
      { log: 'metadata', key, sessionId },
      { log: `transcripts/${sessionId}.jsonl`, key, sessionId, requestId: 'r-1' },
    ])
  })

  test.each(['rotate', 'delete'] as const)('of a %s names key and session in each of its commits', async (how) => {
    await store.session(key).append({ n: 1 })
    const heard = listen('holdfast:commit')
    await (how === 'rotate' ? store.session(key).rotate() : store.delete(key))
    expect(heard.map(({ log }) => String(log).split('/')[0])).toEqual(['transcripts', 'metadata'])
    for (const message of heard) expect(message).toMatchObject({ key, sessionId: expect.any(String) })
  })
})

describe('holdfast:lock', () => {
  test('tells of a lock that had to be waited for, how long and for whom; one that is free is not worth a message', async () => {
    const { sessionId } = await store.session(key).append({ n: 1 })
    const heard = listen('holdfast:lock')
    await store.session(key).append({ n: 2 })
    expect(heard).toEqual([])
    const holder = other(slotOf(sessionId))
    const held = holder.take()
    const appending = store.session(key).append({ n: 3 }, { requestId: 'r-3', channelId: 'c-3' })
    await sleep(30)
    holder.release(held)
    await appending
    const about = { key, sessionId, requestId: 'r-3', channelId: 'c-3' }
    expect(heard).toEqual([{ event: 'acquired', lock: slotOf(sessionId), waitedMs: expect.any(Number), ...about }])
    expect(heard[0]!.waitedMs).toBeGreaterThan(20)
  })

  test('two sessions that share a lock are told apart', async () => {
    const first = await store.session(key).append({ n: 1 })
    let second = first
    for (let n = 0; second === first; n++) {
      const { sessionId } = await store.update(`k${n}`, () => ({}))
      if (slotOf(sessionId) === slotOf(first.sessionId)) second = await store.session(`k${n}`).append({ n: 1 })
    }
    const heard = listen('holdfast:lock')
    const holder = other(slotOf(first.sessionId))
    const held = holder.take()
    const both = [store.session(key).append({ n: 2 }, { requestId: 'first' })]
    await sleep(10)
    const keyOfSecond = (await all(store)).find(([, { sessionId }]) => sessionId === second.sessionId)![0]
    both.push(store.session(keyOfSecond).append({ n: 2 }, { requestId: 'second' }))
    await sleep(10)
    holder.release(held)
    await Promise.all(both)
    expect(heard).toMatchObject([
      { event: 'acquired', sessionId: first.sessionId, requestId: 'first' },
      { event: 'acquired', sessionId: second.sessionId, requestId: 'second' },
    ])
  })

  test('tells of a takeover, from whom and why', async () => {
    const { sessionId } = await store.session(key).append({ n: 1 })
    const heard = listen('holdfast:lock')
    const host = systemHost()
    const { pid } = spawnSync('true')
    const { n } = other(slotOf(sessionId), 60_000, { ...host, identity: { ...host.identity, pid: pid! } }).take()
    await store.session(key).append({ n: 2 }, { requestId: 'r-2' })
    expect(heard).toMatchObject([
      { event: 'takeover', lock: slotOf(sessionId), token: n + 1, from: { pid, verdict: 'dead' }, key, sessionId, requestId: 'r-2' },
    ])
  })

  test('tells of a lock that was lost, by whom it had been held', async () => {
    await store.update(key, () => ({}))
    await store.close()
    store = await open({ lock: { maxHoldMs: 10 } })
    const heard = listen('holdfast:lock')
    const robber = other('metadata')
    const { sessionId } = await store.update(key, (entry) => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30)
      robber.release(robber.take())
      return { ...entry, n: 1 }
    })
    expect(heard.filter(({ lock }) => lock === 'metadata')).toMatchObject([{ event: 'lost', token: expect.any(Number) }])
    expect(store.stats().locksLost).toBe(1)
    expect(await store.get(key)).toMatchObject({ sessionId, n: 1 })
  })

  test('tells of a wait that was in vain, for whom, and who is in the way', async () => {
    const { sessionId } = await store.session(key).append({ n: 1 })
    const heard = listen('holdfast:lock')
    const holder = other(slotOf(sessionId))
    const held = holder.take()
    await expect(store.session(key).append({ n: 2 }, { waitMs: 30, requestId: 'r-2' })).rejects.toMatchObject({ code: 'LOCK_TIMEOUT' })
    holder.release(held)
    expect(heard[0]).toMatchObject({ event: 'timeout', lock: slotOf(sessionId), waitMs: 30, key, sessionId, requestId: 'r-2' })
    expect(heard[0]).toMatchObject({ holder: { pid: process.pid, verdict: 'alive' } })
  })
})

describe('holdfast:maintenance', () => {
  test('tells of a checkpoint what it cost', async () => {
    await store.update(key, () => ({ model: 'x' }))
    const heard = listen('holdfast:maintenance')
    await store.checkpoint()
    const { size } = fs.statSync(join(dir, 'store/sessions.json'))
    expect(heard).toEqual([{ event: 'checkpoint', bytes: size, entries: 1, tookMs: expect.any(Number) }])
    await store.checkpoint()
    expect(heard).toHaveLength(1)
  })

  test('tells of a failed sync that this handle writes no more, once', async () => {
    await store.session(key).append({ n: 1 })
    const { disk } = faultyDisk(nodeDisk, { call: 'sync', nth: 1, how: 'EIO', path: (path) => path.endsWith('.jsonl') })
    const backend = await openFileBackend(join(dir, 'store'), storeOptions, { ...systemHost(), disk })
    const heard = listen('holdfast:maintenance')
    const appending = () => failureOf(backend.append(key, [{ json: '{"n":2}' }], {}))
    expect(await appending()).toMatchObject({ code: 'IO_FAILED', effect: 'unknown' })
    expect(await appending()).toMatchObject({ code: 'STORE_POISONED', effect: 'none' })
    await backend.close()
    expect(heard.filter(({ event }) => event === 'poisoned')).toMatchObject([{ error: { code: 'EIO' } }])
  })
})

describe('when nobody listens', () => {
  test('nothing is published', async () => {
    const publishing = Object.values(channels).map((channel) => vi.spyOn(channel, 'publish'))
    onTestFinished(() => {
      for (const spy of publishing) spy.mockRestore()
    })
    const { sessionId } = await store.session(key).append({ n: 1 })
    const holder = other(slotOf(sessionId))
    const held = holder.take()
    await failureOf(store.session(key).append({ n: 2 }, { waitMs: 20 }))
    const appending = store.session(key).append({ n: 3 })
    await sleep(10)
    holder.release(held)
    await appending
    other(slotOf(sessionId), 10).take()
    await sleep(20)
    await store.session(key).append({ n: 4 })
    await store.update(key, () => ({ n: 1 }))
    await store.checkpoint()
    expect(store.stats()).toMatchObject({ checkpoints: 1, takeovers: { expired: 1 } })
    expect(publishing.flatMap((spy) => spy.mock.calls)).toEqual([])
  })
})

describe('stats', () => {
  test('count commits, records and bytes as they are on the disk, and one sync for what is acknowledged together', async () => {
    const { sessionId } = await store.session(key).append({ n: 1 })
    await store.session(key).append({ n: 2 })
    const file = join(dir, 'store/transcripts', `${sessionId}.jsonl`)
    const before = fs.statSync(file).size
    const by = await moved(() => Promise.all([store.session(key).append([{ n: 3 }, { n: 4 }]), store.session(key).append({ n: 5 })]))
    expect(by).toEqual({ commits: 1, recordsWritten: 3, bytesWritten: fs.statSync(file).size - before, syncs: 1, lockAcquisitions: 1 })
  })

  test('count no sync where none was asked for', async () => {
    await store.close()
    store = await open({ durability: 'process' })
    await store.session(key).append({ n: 1 })
    expect(store.stats()).toMatchObject({ syncs: 0, commits: 2, recordsWritten: 3 })
  })

  test('are not moved by reading, nor by a call that writes nothing', async () => {
    await store.session(key).append({ n: 1 }, { id: 'once' })
    const reading = async () => {
      await store.get(key)
      await store.session(key).tail(5)
      for await (const _ of store.session(key).read());
    }
    expect(await moved(reading)).toEqual({})
    expect(await moved(() => store.session(key).append({ n: 1 }, { id: 'once' }))).toEqual({ lockAcquisitions: 1 })
    expect(await moved(() => store.withStoreLock((sessions) => sessions.size))).toEqual({ lockAcquisitions: 1 })
  })

  test('count a checkpoint', async () => {
    await store.update(key, () => ({}))
    expect(await moved(() => store.checkpoint())).toMatchObject({ checkpoints: 1 })
    expect(await moved(() => store.checkpoint())).not.toHaveProperty('checkpoints')
  })

  test('count no wait for a lock that was free', async () => {
    await store.update(key, () => ({}))
    await store.checkpoint()
    expect(store.stats()).toMatchObject({ lockWaits: 0, lockWaitMsTotal: 0, lockWaitMsMax: 0 })
  })

  test('count a wait for a lock and how long it was', async () => {
    await store.update(key, () => ({}))
    const before = store.stats().lockWaitMsMax
    const holder = other('metadata')
    const held = holder.take()
    const by = await moved(async () => {
      const updating = store.update(key, () => ({ n: 1 }))
      await sleep(30)
      holder.release(held)
      await updating
    })
    expect(by).toMatchObject({ lockWaits: 1, lockAcquisitions: 1 })
    expect(by.lockWaitMsTotal).toBeGreaterThan(20)
    expect(store.stats().lockWaitMsMax).toBeCloseTo(before + by.lockWaitMsMax!)
    expect(store.stats().lockWaitMsMax).toBeLessThanOrEqual(store.stats().lockWaitMsTotal)
  })

  test('count each call whose wait was in vain, once', async () => {
    await store.update(key, () => ({}))
    const holder = other('metadata')
    const held = holder.take()
    const wait = { waitMs: 30 }
    const heard = listen('holdfast:lock')
    expect(await moved(() => failureOf(store.update(key, () => ({}), wait)))).toEqual({ lockTimeouts: 1 })
    expect(heard).toHaveLength(1)
    const two = () => Promise.all([1, 2].map((n) => failureOf(store.update(key, () => ({ n }), wait))))
    expect(await moved(two)).toEqual({ lockTimeouts: 2 })
    holder.release(held)
  })

  test('count takeovers by why', async () => {
    await store.update(key, () => ({}))
    const host = systemHost()
    other('metadata', 60_000, { ...host, identity: { ...host.identity, pid: spawnSync('true').pid! } }).take()
    expect(await moved(() => store.update(key, () => ({ n: 1 })))).toMatchObject({ dead: 1, commits: 1 })
    other('metadata', 10).take()
    await sleep(20)
    expect(await moved(() => store.update(key, () => ({ n: 2 })))).toMatchObject({ expired: 1, commits: 1 })
  })

  test('count what a killed writer has left', async () => {
    const { sessionId } = await store.session(key).append({ n: 1 })
    fs.appendFileSync(join(dir, 'store/transcripts', `${sessionId}.jsonl`), '{"n":2,"$":"2.0')
    await store.close()
    store = await open()
    expect(await moved(() => store.session(key).append({ n: 2 }))).toMatchObject({ voidLines: 1, commits: 1, recordsWritten: 1 })
  })

  test('count a race that was lost, and the call that ran again for it', async () => {
    await store.update(key, () => ({ n: 0 }))
    let runs = 0
    const by = await moved(() =>
      store.update(key, (entry) => {
        // Another writer lands while ours is being decided.
        if (runs++ === 0) fs.appendFileSync(join(dir, 'store/sessions.journal.jsonl'), next({ ...entry, n: 10 }))
        return { ...entry, n: Number(entry?.n) + 1 }
      }),
    )
    expect(by).toMatchObject({ conflicts: 1, reruns: 1, commits: 1, recordsWritten: 1 })
    expect([runs, (await store.get(key))?.n]).toEqual([2, 11])
  })
})

/** The next record of the journal, by somebody who takes no lock. */
function next(entry: object): string {
  const bytes = fs.readFileSync(join(dir, 'store/sessions.journal.jsonl'))
  const mark = readMark(bytes, bytes.lastIndexOf('\n', bytes.length - 2) + 1, bytes.length - 1)!
  const body = JSON.stringify({ op: 'put', key, entry })
  return encodeLine(body, { seq: mark.seq + 1, left: 0, synced: mark.synced, writer: 'somebody', prev: mark.crc }).line
}

async function all(of: SessionStore): Promise<[string, { sessionId: string }][]> {
  const found: [string, { sessionId: string }][] = []
  for await (const entry of of.entries()) found.push(entry)
  return found
}

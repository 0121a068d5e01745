// What a waiter makes of a holder, and what becomes of a holder that was overtaken: one step at a time, with real processes.
import fs from 'node:fs'
import { join } from 'node:path'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { parseEntry } from '../../src/file/lock/holder.js'
import { isStoreError, SessionStore, type StoreError } from '../../src/index.js'
import type { StoreOptions } from '../../src/types.js'
import { startPuppet } from './puppet.js'
import { freshDirectory } from './trials.js'

const linux = process.platform === 'linux'
const key = 'agent:main:main'
/** Far below every time that somebody might wait out (maxHoldMs is 15,000), and enough for a machine that does other work. */
const atOnceMs = 1_000

async function openStore(dir: string, options: StoreOptions = {}) {
  const store = await SessionStore.open(dir, { durability: 'process', ...options })
  onTestFinished(() => store.close())
  return store
}

type Store = Awaited<ReturnType<typeof openStore>>

function addOne(store: Store, wait?: { waitMs?: number; signal?: AbortSignal }) {
  return store.update(key, (entry) => ({ n: Number(entry?.n ?? 0) + 1 }), wait)
}

async function refusal(work: Promise<unknown>): Promise<StoreError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!isStoreError(error)) throw new Error(`not refused by the store, but: ${error}`)
  return error
}

function metadataEntries(dir: string): string[] {
  return fs.readdirSync(join(dir, 'locks/metadata'))
}

test('the lock of a process that died is taken over at the first look, with nothing to wait out', async () => {
  // F6
  const dir = freshDirectory()
  const store = await openStore(dir)
  await addOne(store)
  const puppet = await startPuppet(dir)
  void puppet.hold(key, 'die')
  await puppet.ended
  const begun = performance.now()
  expect((await addOne(store)).n).toBe(2)
  expect(performance.now() - begun).toBeLessThan(atOnceMs)
  expect(store.stats().takeovers).toEqual({ dead: 1, expired: 0 })
})

test.skipIf(!linux)('a zombie is as dead as a process that is gone', async () => {
  // F6: its parent never reaps it, so its pid stays.
  const dir = freshDirectory()
  const store = await openStore(dir)
  await addOne(store)
  const neverReaps = { execPath: '/bin/sh', execArgv: ['-c', '"$0" "$@" & exec sleep 60', process.execPath] }
  const puppet = await startPuppet(dir, {}, neverReaps)
  void puppet.hold(key, 'die')
  await expect.poll(() => fs.readFileSync(`/proc/${puppet.pid}/stat`, 'utf8')).toMatch(/\) Z /)
  const begun = performance.now()
  expect((await addOne(store)).n).toBe(2)
  expect(performance.now() - begun).toBeLessThan(atOnceMs)
  expect(store.stats().takeovers.dead).toBe(1)
})

test.skipIf(!linux)('a pid that now belongs to another process does not keep a lock alive', async () => {
  // F7: the entry of a dead holder, with the pid of a living process that is not it.
  const dir = freshDirectory()
  const store = await openStore(dir)
  await addOne(store)
  const puppet = await startPuppet(dir)
  const stranger = await startPuppet(freshDirectory())
  void puppet.hold(key, 'die')
  await puppet.ended
  const [left] = metadataEntries(dir)
  const recycled = left?.replace(`.${puppet.pid}.`, `.${stranger.pid}.`)
  expect(recycled).not.toBe(left)
  fs.renameSync(join(dir, 'locks/metadata', String(left)), join(dir, 'locks/metadata', String(recycled)))
  const begun = performance.now()
  expect((await addOne(store)).n).toBe(2)
  expect(performance.now() - begun).toBeLessThan(atOnceMs)
})

test('a holder that sleeps past its hold adds nothing to what others did meanwhile: its change is made again', async () => {
  // F1
  const dir = freshDirectory()
  const options = { lock: { maxHoldMs: 100, waitMs: 10_000 } }
  const store = await openStore(dir, options)
  await addOne(store)
  const puppet = await startPuppet(dir, options)
  const { outcome } = await puppet.hold(key, 'stop')
  for (let n = 2; n <= 6; n++) expect((await addOne(store)).n).toBe(n)
  expect(store.stats().takeovers).toEqual({ dead: 0, expired: 1 })
  puppet.signal('SIGCONT')
  const result = await outcome
  if (result.is === 'done') expect(result).toMatchObject({ n: 7, runs: 2 })
  else expect(result).toMatchObject({ code: 'LOCK_LOST', effect: 'none' })
  expect((await store.get(key))?.n).toBe(result.is === 'done' ? 7 : 6)
  expect(await store.verify()).toMatchObject({ ok: true, damage: [] })
})

test('a holder that wakes after a takeover does not let go of the lock of the one who took over', async () => {
  // F9
  const dir = freshDirectory()
  const store = await openStore(dir)
  const [sleeper, heir] = await Promise.all([startPuppet(dir, { lock: { maxHoldMs: 100, waitMs: 10_000 } }), startPuppet(dir)])
  const slept = await sleeper.hold(key, { stallMs: 400 })
  // It takes over after 100 ms, and is still in its mutator when the sleeper wakes and comes to its release.
  const held = await heir.hold(key, { stallMs: 1_300 })
  const entries = metadataEntries(dir)
  expect(entries).toHaveLength(1)
  expect(entries.map(parseEntry)).toMatchObject([{ state: 'held', holder: { pid: heir.pid } }])
  await setTimeout(900)
  expect(metadataEntries(dir)).toEqual(entries)
  const [late, first] = await Promise.all([slept.outcome, held.outcome])
  // Which of the two is first, the log says; that the other is made again, the promise.
  expect([late, first]).toMatchObject([
    { is: 'done', locksLost: 1 },
    { is: 'done', locksLost: 0 },
  ])
  expect((await store.get(key))?.n).toBe(2)
})

test('who waits too long is told who holds the lock: pid, host, alive or not, for how long, doing what, and what to do next', async () => {
  // F10
  const dir = freshDirectory()
  const store = await openStore(dir)
  const puppet = await startPuppet(dir)
  const { outcome } = await puppet.hold(key, { stallMs: 800 })
  const begun = performance.now()
  const error = await refusal(addOne(store, { waitMs: 200 }))
  expect(performance.now() - begun).toBeLessThan(600)
  expect(error).toMatchObject({ code: 'LOCK_TIMEOUT', kind: 'busy', effect: 'none', retryable: true })
  const holder = { pid: puppet.pid, verdict: 'alive', host: expect.any(String), does: expect.any(String), heldMs: expect.any(Number) }
  expect(error.details).toMatchObject({ lock: 'metadata', waitMs: 200, holder })
  for (const said of ['waited 200 ms', 'metadata', `pid ${puppet.pid}`, 'alive', 'holdfast locks']) expect(error.message).toContain(said)
  expect(await outcome).toMatchObject({ is: 'done', n: 1 })
  expect((await addOne(store)).n).toBe(2)
})

test('a living holder is not overtaken for what it calls itself, only past its own hold', async () => {
  // F8
  const dir = freshDirectory()
  const store = await openStore(dir, { lock: { maxHoldMs: 10, waitMs: 10_000 } })
  const puppet = await startPuppet(dir, { title: 'vim notes.txt' })
  const { outcome } = await puppet.hold(key, { stallMs: 600 })
  const before = metadataEntries(dir)
  expect(await refusal(addOne(store, { waitMs: 300 }))).toMatchObject({ code: 'LOCK_TIMEOUT' })
  expect(metadataEntries(dir)).toEqual(before)
  expect(await outcome).toMatchObject({ is: 'done', n: 1, runs: 1, locksLost: 0 })
  expect(store.stats().takeovers).toEqual({ dead: 0, expired: 0 })
})

test('a waiter that is aborted leaves the line at once and never runs later', async () => {
  // F41
  const dir = freshDirectory()
  const store = await openStore(dir)
  const puppet = await startPuppet(dir)
  const { outcome } = await puppet.hold(key, { stallMs: 600 })
  const controller = new AbortController()
  const reason = new Error('the user has gone')
  let ran = false
  const mutator = () => {
    ran = true
    return { ran }
  }
  const aborted = store.update(key, mutator, { signal: controller.signal })
  const behind = addOne(store)
  await setTimeout(100)
  const begun = performance.now()
  controller.abort(reason)
  await expect(aborted).rejects.toBe(reason)
  expect(performance.now() - begun).toBeLessThan(100)
  expect(await outcome).toMatchObject({ is: 'done', n: 1 })
  expect((await behind).n).toBe(2)
  await setTimeout(50)
  expect(ran).toBe(false)
  expect(await store.get(key)).not.toHaveProperty('ran')
})

test('a mutator that calls its own store is refused at once, whichever way it calls it', async () => {
  // F5
  const store = await openStore(freshDirectory())
  await addOne(store)
  const ways: Record<string, () => Promise<unknown>> = {
    withStoreLock: () => store.withStoreLock(() => 1),
    update: () => addOne(store),
    delete: () => store.delete(key),
    append: () => store.session(key).append({ type: 'message' }),
    checkpoint: () => store.checkpoint(),
  }
  for (const [way, call] of Object.entries(ways)) {
    let inner: Promise<StoreError> | undefined
    const begun = performance.now()
    await store.withStoreLock(() => {
      inner = refusal(call())
    })
    expect(await inner, way).toMatchObject({ code: 'ASYNC_MUTATOR', kind: 'misuse', effect: 'none' })
    expect(performance.now() - begun).toBeLessThan(100)
  }
  expect(await store.get(key)).toMatchObject({ n: 1 })
})

test('a lock is never seen half-made: not while it is created by several at once, nor while it changes hands', async () => {
  // F3: every look finds no lock at all, or one whose entry says everything.
  const dir = freshDirectory()
  const lock = join(dir, 'locks/metadata')
  const puppets = await Promise.all(Array.from({ length: 4 }, () => startPuppet(dir)))
  const seen = { absent: 0, free: 0, held: 0 }
  let updates = 0
  const until = performance.now() + 1_500
  const work = puppets.map(async (puppet) => {
    while (performance.now() < until) {
      expect(await puppet.update(key)).toMatchObject({ is: 'done' })
      // Whole and at once, as a look that falls into a removal would prove nothing.
      if (++updates % 20 === 0 && fs.existsSync(lock)) fs.renameSync(lock, join(dir, `removed-${updates}`))
    }
  })
  while (performance.now() < until) {
    for (let n = 0; n < 50; n++) look(lock, seen)
    await setImmediate()
  }
  await Promise.all(work)
  for (const state of ['absent', 'free', 'held'] as const) expect(seen[state], state).toBeGreaterThan(0)
  expect((await (await openStore(dir)).get(key))?.n).toBe(updates)
})

function look(path: string, seen: { absent: number; free: number; held: number }): void {
  let names: string[]
  try {
    names = fs.readdirSync(path)
  } catch (error) {
    expect(error).toMatchObject({ code: 'ENOENT' })
    seen.absent++
    return
  }
  expect(names).toHaveLength(1)
  const entry = parseEntry(String(names[0]))
  expect(entry, names[0]).toBeDefined()
  if (entry) seen[entry.state]++
}

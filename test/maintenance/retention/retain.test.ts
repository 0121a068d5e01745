/** What becomes of sessions that nobody wants any more, and of those that somebody does. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { RequestFacts } from '../../../src/backend.js'
import { type FileBackend, openFileBackend } from '../../../src/file/backend.js'
import { SessionStore } from '../../../src/index.js'
import { checkKey } from '../../../src/input.js'
import { Pace } from '../../../src/maintenance/pace.js'
import { retain, retaining } from '../../../src/maintenance/retention/retain.js'
import type { StoredRecord } from '../../../src/types.js'
import type { RetentionReport } from '../../../src/upkeep.js'

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-retention-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

async function open(options: Parameters<typeof SessionStore.open>[1] = {}): Promise<SessionStore> {
  const store = await SessionStore.open(dir, { durability: 'process', ...options })
  onTestFinished(() => store.close())
  return store as SessionStore
}

async function fill(store: SessionStore, keys: readonly string[]): Promise<Map<string, string>> {
  const ids = new Map<string, string>()
  for (const key of keys) {
    const { sessionId } = await store.session(key).append({ said: key })
    ids.set(key, sessionId)
    await sleep(3) // The disk's times tell them apart.
  }
  await sleep(15) // They are coarser than the clock.
  return ids
}

async function all(store: SessionStore, key: string): Promise<StoredRecord['record'][]> {
  const records = []
  for await (const { record } of store.session(key).read()) records.push(record)
  return records
}

const keysOf = async (store: SessionStore) => {
  const keys = []
  for await (const [key] of store.entries()) keys.push(key)
  return keys.sort()
}

describe('what goes', () => {
  test('is in the archive, whole, closed, with the reason', async () => {
    const store = await open()
    const ids = await fill(store, ['old', 'new'])
    const report = await store.retain({ rules: { maxCount: 1 } })
    expect(report).toMatchObject({ dryRun: false, sessions: 2, kept: 1, protected: [], unsatisfied: [], removed: [] })
    expect(report.archived).toMatchObject([{ key: 'old', sessionId: ids.get('old'), rule: 'count', prefix: '' }])
    expect(await keysOf(store)).toEqual(['new'])
    expect(fs.readdirSync(join(dir, 'transcripts'))).toEqual([`${ids.get('new')}.jsonl`])
    const text = fs.readFileSync(join(dir, 'archive', `${ids.get('old')}.jsonl`), 'utf8')
    expect(text).toContain('{"said":"old"')
    expect(text).toMatch(/"seal":\{"reason":"deleted","key":"old","why":"retention: count","at":\d+\}/)
    expect((await store.verify()).damage).toEqual([])
  })

  // F49
  test('an entry without a transcript leaves a record in the archive, too', async () => {
    const store = await open()
    const { sessionId } = await store.update('bare', () => ({ model: 'x' }))
    await store.retain({ rules: { maxCount: 0 } })
    expect(await store.get('bare')).toBeUndefined()
    expect(fs.readFileSync(join(dir, 'archive', `${sessionId}.jsonl`), 'utf8')).toContain('"why":"retention: count"')
    expect((await store.verify()).damage).toEqual([])
  })

  test('the key goes on as a new session, also for a handle that had the old one open', async () => {
    const [store, other] = [await open(), await open()]
    const [first] = [...(await fill(other, ['k'])).values()]
    await store.retain({ rules: { maxCount: 0 } })
    for (const handle of [other, store]) {
      const { sessionId } = await handle.session('k').append({ said: 'again' })
      expect(sessionId).not.toBe(first)
    }
    expect(await all(store, 'k')).toEqual([{ said: 'again' }, { said: 'again' }])
  })

  test('a dry run says the same and does nothing', async () => {
    const store = await open()
    await fill(store, ['a', 'b', 'c'])
    const rules = { maxCount: 1 }
    const dry = await store.retain({ rules, dryRun: true })
    expect(await keysOf(store)).toEqual(['a', 'b', 'c'])
    expect(dry).toMatchObject({ dryRun: true, sessions: 3, kept: 1 })
    expect({ ...(await store.retain({ rules })), dryRun: true }).toEqual(dry)
  })

  test('stops between two sessions when it is aborted; what is archived by then, is', async () => {
    const store = await open()
    await fill(store, ['a', 'b', 'c'])
    const over = new AbortController()
    const reason = new Error('enough')
    const seen: number[] = []
    const onProgress = (done: number) => {
      seen.push(done)
      if (done === 2) over.abort(reason)
    }
    await expect(store.retain({ rules: { maxCount: 0 }, signal: over.signal, onProgress })).rejects.toBe(reason)
    expect(seen).toEqual([1, 2])
    expect(await keysOf(store)).toEqual(['c'])
  })
})

/** Whatever has not been changed since. */
const old = { maxAgeMs: 0 }

describe('F49: what stays', () => {
  test('pinned entries, and what the caller says', async () => {
    const store = await open()
    await fill(store, ['a', 'b', 'c'])
    await store.update('a', () => ({ pinned: true }))
    await sleep(15)
    const report = await store.retain({ rules: old, protect: (key) => key === 'b' })
    expect(report.protected.map(({ key, why }) => `${key} ${why}`).sort()).toEqual(['a pinned', 'b predicate'])
    expect(report.archived.map(({ key }) => key)).toEqual(['c'])
    expect(await keysOf(store)).toEqual(['a', 'b'])
  })

  test('a session with an active turn, whichever handle has it, and one whose input nobody has answered', async () => {
    const [store, other] = [await open(), await open()]
    await fill(store, ['left', 'busy', 'idle'])
    let finish = () => {}
    const work = new Promise<void>((resolve) => {
      finish = resolve
    })
    const begun = new Promise<void>((resolve) => {
      void other.runTurn('busy', {}, async () => {
        resolve()
        await work
      })
    })
    await begun
    await leaveInput('left')
    await sleep(15)
    const dry = await store.retain({ rules: old, dryRun: true })
    const report = await store.retain({ rules: old })
    finish()
    for (const each of [dry, report]) {
      expect(each.archived.map(({ key }) => key)).toEqual(['idle'])
      expect(each.protected.map(({ key, why }) => `${key} ${why}`).sort()).toEqual(['busy active-turn', 'left pending-input'])
    }
    expect(await keysOf(store)).toEqual(['busy', 'left'])
  })

  test('a damaged transcript is for repair to look at first', async () => {
    const store = await open()
    const ids = await fill(store, ['a', 'b'])
    await store.session('a').append([{ n: 1 }, { n: 2 }])
    const path = join(dir, 'transcripts', `${ids.get('a')}.jsonl`)
    fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('"n":1', '"n":7'))
    await sleep(15)
    const report = await store.retain({ rules: old })
    expect(report.protected).toMatchObject([{ key: 'a', why: 'damaged' }])
    expect(await keysOf(store)).toEqual(['a'])
  })

  test('a cap that cannot be kept archives nothing, and says so', async () => {
    const store = await open()
    await fill(store, ['a', 'b', 'c'])
    for (const key of ['a', 'b']) await store.update(key, () => ({ pinned: true }))
    const report = await store.retain({ rules: { maxCount: 1 } })
    expect(report).toMatchObject({ kept: 3, archived: [], unsatisfied: [{ rule: 'count', limit: 1, least: 2, protected: 2 }] })
    expect(await keysOf(store)).toEqual(['a', 'b', 'c'])
  })

  test('the predicate has to be synchronous, and what it throws comes through', async () => {
    const store = await open()
    await fill(store, ['a'])
    const rules = { maxCount: 0 }
    await expect(store.retain({ rules, protect: (async () => true) as unknown as () => boolean })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    const mine = new Error('mine')
    await expect(
      store.retain({
        rules,
        protect: () => {
          throw mine
        },
      }),
    ).rejects.toBe(mine)
    expect(await keysOf(store)).toEqual(['a'])
  })
})

async function openBackend(): Promise<FileBackend> {
  const waits = { waitMs: 1_000, maxHoldMs: 1_000 }
  const backend = await openFileBackend(dir, { durability: 'process', checkpoint: 'auto', ...waits, readOnly: false, checkKey })
  onTestFinished(() => backend.close())
  return backend
}

/** Whose sender dies before any turn has taken it. */
async function leaveInput(key: string): Promise<void> {
  const request: RequestFacts = { requestId: 'r', given: true, lane: 'main', whenBusy: 'queue' }
  await (await openBackend()).turns.leaveInput(key, [{ json: '{"asked":1}' }], request, {})
}

// F30, F49: whatever happens between the decision and the deletion, and in its very last moment.
describe('what has been changed since it was decided stays', () => {
  const changes: readonly (readonly [name: string, change: (store: SessionStore) => Promise<unknown>, why: string])[] = [
    ['pinned', (store) => store.update('k', () => ({ pinned: true })), 'changed'],
    ['an append', (store) => store.session('k').append({ said: 'late' }), 'changed'],
    ['a turn that was', (store) => store.runTurn('k', {}, () => {}), 'changed'],
    ['an input', () => leaveInput('k'), 'changed'],
    ['a rotation', (store) => store.session('k').rotate(), 'changed'],
  ]

  test.each(changes)('%s, by another handle', async (name, change, why) => {
    const [store, other] = [await open(), await open()]
    await fill(store, ['first', 'k'])
    const before = await all(store, 'k')
    const backend = await openBackend()
    const units = retaining(backend.inside, { rules: { maxCount: 0 } }, new Pace(backend.inside.host.clock))
    expect((await units.next()).value).toMatchObject({ key: 'first', outcome: 'archived' })
    await change(other)
    expect((await units.next()).value).toMatchObject({ key: 'k', outcome: why })
    const report = (await units.next()).value as RetentionReport
    expect(report).toMatchObject({ kept: 1, protected: [{ key: 'k', why }] })
    expect(await store.get('k')).toBeDefined()
    if (name !== 'a rotation') expect((await all(store, 'k'))[0]).toEqual(before[0])
  })

  test('a turn that is about to begin: its process has the lease, and nothing is in the log yet', async () => {
    const [store, backend] = [await open(), await openBackend()]
    await fill(store, ['first', 'k'])
    const units = retaining(backend.inside, { rules: { maxCount: 0 } }, new Pace(backend.inside.host.clock))
    expect((await units.next()).value).toMatchObject({ key: 'first', outcome: 'archived' })
    const request: RequestFacts = { requestId: 'r', given: true, lane: 'main', whenBusy: 'queue' }
    const place = (await openBackend()).turns.enlist('k', request)
    const lease = await place.tryLease(10_000, { onLost() {}, onExpired() {}, onInterrupt() {} })
    expect((await units.next()).value).toMatchObject({ key: 'k', outcome: 'active-turn' })
    await lease?.release()
    place.leave()
    expect(await store.get('k')).toBeDefined()
  })

  test('what the caller has come to protect since', async () => {
    const store = await open()
    await fill(store, ['k'])
    let asked = 0
    const report = await store.retain({ rules: { maxCount: 0 }, protect: () => ++asked === 2 })
    expect(report).toMatchObject({ kept: 1, protected: [{ key: 'k', why: 'predicate' }] })
    expect(await store.get('k')).toBeDefined()
  })

  // Whoever has closed it by a rule, and died before the key was removed.
  test('a session that was decided on is brought to its end by the next call', async () => {
    const store = await open()
    const ids = await fill(store, ['k'])
    const backend = await openBackend()
    const { committer } = backend.inside.metadata
    const appended = committer.appendHeld.bind(committer)
    committer.appendHeld = () => false
    await store.retain({ rules: { maxCount: 0 }, dryRun: true })
    const { archived } = await retain(backend.inside, { rules: { maxCount: 0 } })
    committer.appendHeld = appended
    expect(archived).toHaveLength(1)
    expect(await store.session('k').append({ said: 'anew' })).toMatchObject({ sessionId: expect.not.stringMatching(ids.get('k')!) })
    expect(fs.readdirSync(join(dir, 'archive'))).toEqual([`${ids.get('k')}.jsonl`])
  })

  test('an append by somebody who does not respect the lock, in the very last moment', async () => {
    const store = await open()
    const path = join(dir, 'transcripts', `${(await fill(store, ['k'])).get('k')}.jsonl`)
    let asked = 0
    const protect = () => {
      if (++asked === 2) fs.appendFileSync(path, '#\n')
      return false
    }
    const report = await store.retain({ rules: { maxCount: 0 }, protect })
    expect(asked).toBe(2)
    expect(report.protected).toMatchObject([{ key: 'k', why: 'changed' }])
    expect(await all(store, 'k')).toEqual([{ said: 'k' }])
  })

  test('an entry that was deleted and made anew is another', async () => {
    const store = await open()
    const ids = await fill(store, ['k'])
    const backend = await openBackend()
    await store.delete('k')
    await store.session('k').append({ said: 'anew' })
    const { revision } = (await store.get('k'))!
    const outcome = await backend.inside.transcripts.retire(
      { key: 'k', sessionId: ids.get('k')!, revision, bytes: undefined, why: 'test', refuses: () => undefined },
      {},
    )
    expect(outcome).toBe('changed')
    expect(await all(store, 'k')).toEqual([{ said: 'anew' }])
  })

  // The id of the one is the beginning of the other's; markers in a key mean nothing.
  test('exact names only', async () => {
    const store = await open()
    await fill(store, ['a', 'a:1', 'a.deleted', 'a.deleted.2026', 'keep.deleted.keep'])
    const report = await store.retain({ rules: { prefixes: { 'a:': { maxAgeMs: 0 } } } })
    expect(report.archived.map(({ key }) => key)).toEqual(['a:1'])
    expect(await keysOf(store)).toEqual(['a', 'a.deleted', 'a.deleted.2026', 'keep.deleted.keep'])
  })
})

test('rules that make no sense are refused before anything is done', async () => {
  const store = await open()
  await fill(store, ['a'])
  const wrong = [
    { maxAgeMs: -1 },
    { maxCount: 1.5 },
    { maxage: 1 },
    { prefixes: { '': {} } },
    { archives: { keepLast: 3 } },
    { maxBytes: '1' },
  ]
  for (const rules of wrong) await expect(store.retain({ rules: rules as never })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  const reader = await SessionStore.open(dir, { readOnly: true })
  onTestFinished(() => reader.close())
  await expect(reader.retain({ rules: { maxCount: 0 } })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  expect((await reader.retain({ rules: { maxCount: 0 }, dryRun: true })).archived).toHaveLength(1)
  expect(await keysOf(store)).toEqual(['a'])
})

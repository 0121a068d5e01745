/** Transcripts and metadata that do not agree, and what lies around them (P5, F29, F30, F49, F50, F51): nobody's conversation is lost over it. */
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { RepairPlan } from '../../../src/repair-plan.js'
import { SessionStore } from '../../../src/store.js'
import { damagedKey as key, linesOf, type Made, repairedStore, templateStore, writeLines } from './damaged-store.js'

const fresh = templateStore(6)
const options = { durability: 'process' } as const

async function withStore<R>({ dir }: Made, work: (store: SessionStore) => Promise<R>): Promise<R> {
  const store = await SessionStore.open(dir, options)
  try {
    return await work(store)
  } finally {
    await store.close()
  }
}

const kinds = ({ actions }: RepairPlan) => actions.map(({ kind }) => kind)

/** The entry goes, the transcript stays: as after going back to older metadata. */
async function orphaned(made: Made): Promise<void> {
  const bytes = readFileSync(made.path)
  await withStore(made, (store) => store.delete(key))
  rmSync(join(made.dir, 'archive', `${made.sessionId}.jsonl`))
  writeFileSync(made.path, bytes, { mode: 0o600 })
}

/** Older generations say that it was deleted. */
async function forgetful(made: Made): Promise<void> {
  await withStore(made, async (store) => {
    for (let n = 0; n < 2; n++) {
      await store.update('agent:other:main', (entry) => ({ ...entry, n }))
      await store.checkpoint()
    }
  })
}

describe('a transcript that no key names', () => {
  test('gets its key back when that is free', async () => {
    const made = fresh()
    await orphaned(made)
    await forgetful(made)
    const { plan, records } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['attach-transcript'])
    expect(plan.actions[0]).toMatchObject({ key, sessionId: made.sessionId })
    expect(records.map(({ record }) => record.n)).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('goes to the archive when it was deleted', async () => {
    const made = fresh()
    await orphaned(made)
    const { plan } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['archive-transcript'])
    expect(existsSync(join(made.dir, 'archive', `${made.sessionId}.jsonl`))).toBe(true)
    expect(existsSync(made.path)).toBe(false)
  })

  test('goes to the archive when its key names another session', async () => {
    const made = fresh()
    await orphaned(made)
    await forgetful(made)
    await withStore(made, (store) => store.session(key).append({ another: true }))
    const { plan, records } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['archive-transcript'])
    expect(records.map(({ record }) => record)).toEqual([{ another: true }])
    expect(readFileSync(join(made.dir, 'archive', `${made.sessionId}.jsonl`), 'utf8')).toContain('text 6')
  })

  test('is left alone when its key has come to name a session since the plan was made', async () => {
    const made = fresh()
    await orphaned(made)
    await forgetful(made)
    await withStore(made, async (store) => {
      const plan = await store.planRepair()
      await store.session(key).append({ another: true })
      const { actions } = await store.repair(plan)
      expect(actions).toMatchObject([{ outcome: 'refused', error: { code: 'SEQ_CONFLICT', effect: 'none' } }])
    })
  })
})

test('damaged metadata, and transcripts that do not agree with what they were: one plan for all of it', async () => {
  const made = fresh()
  await orphaned(made)
  await forgetful(made)
  const snapshot = join(made.dir, 'sessions.json')
  writeFileSync(snapshot, readFileSync(snapshot).subarray(0, 30))
  const { plan, records } = await repairedStore(made)
  expect(kinds(plan)).toEqual(['rebuild-metadata', 'attach-transcript'])
  expect(records).toHaveLength(6)
})

describe('a transcript that its entry says was on the disk', () => {
  test('is shorter: what is there stays, and the numbers that were given are not given again (F29)', async () => {
    const made = fresh()
    writeLines(made.path, linesOf(made.path).slice(0, 4))
    const { plan, records } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['rewrite-log'])
    expect(plan.actions[0]?.loses.seqs).toEqual([{ from: 4, to: 6 }])
    expect(records.map(({ record }) => record.n)).toEqual([1, 2, 3])
    await withStore(made, async (store) => expect((await store.session(key).append({ more: true })).seq).toBe(7))
  })

  test('is gone: the session goes on behind the numbers that it had', async () => {
    const made = fresh()
    rmSync(made.path)
    const { plan, records } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['begin-anew'])
    expect(plan.actions[0]?.loses.seqs).toEqual([{ from: 1, to: 6 }])
    expect(records).toEqual([])
    await withStore(made, async (store) => expect((await store.session(key).append({ more: true })).seq).toBe(7))
  })

  test('lies in the archive, and was never closed: it comes back whole', async () => {
    const made = fresh()
    renameSync(made.path, join(made.dir, 'archive', `${made.sessionId}.jsonl`))
    const { plan, records } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['restore-transcript'])
    expect(records).toHaveLength(6)
  })

  test('is an older copy, restored alone: it stays, with marks for what it lacks', async () => {
    const made = fresh()
    const older = readFileSync(made.path)
    await withStore(made, (store) => store.session(key).append([{ n: 7 }, { n: 8 }]))
    writeFileSync(made.path, older)
    const { plan, records } = await repairedStore(made)
    expect(plan.actions[0]?.loses.seqs).toEqual([{ from: 7, to: 8 }])
    expect(records).toHaveLength(6)
  })
})

describe('work that somebody died over', () => {
  test('a rotation whose old transcript was not yet archived is finished', async () => {
    const made = fresh()
    await withStore(made, (store) => store.session(key).rotate({ reason: 'reset' }))
    const archived = join(made.dir, 'archive', `${made.sessionId}.jsonl`)
    renameSync(archived, made.path)
    const { plan } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['finish-work'])
    expect(existsSync(archived)).toBe(true)
  })
})

describe('around the data', () => {
  test('what stands in the directory of a lock, and is no state of it, goes to quarantine; the state stays (F30)', async () => {
    const made = fresh()
    const lock = join(made.dir, 'locks', 'metadata')
    const state = readdirSync(lock)
    writeFileSync(join(lock, 'free.old backup'), 'somebody’s notes')
    const { plan, report } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['move-aside'])
    expect(readdirSync(lock).map((name) => name.replace(/\d+$/, ''))).toEqual(state.map((name) => name.replace(/\d+$/, '')))
    expect(readFileSync(join(made.dir, report.actions[0]!.quarantine!, 'moved-free.old backup'), 'utf8')).toBe('somebody’s notes')
  })

  test('permissions are put right', async () => {
    const made = fresh()
    chmodSync(made.path, 0o644)
    chmodSync(join(made.dir, 'transcripts'), 0o755)
    const { plan } = await repairedStore(made)
    expect(kinds(plan)).toEqual(['set-permissions', 'set-permissions'])
    expect(statSync(made.path).mode & 0o777).toBe(0o600)
    expect(statSync(join(made.dir, 'transcripts')).mode & 0o777).toBe(0o700)
  })

  test('a store in order: nothing to do', async () => {
    expect((await repairedStore(fresh())).plan).toMatchObject({ actions: [], findings: [] })
  })
})

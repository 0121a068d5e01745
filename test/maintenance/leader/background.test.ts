/** Maintenance while a store is open: who leads, what is told, how it stops. */

import diagnostics from 'node:diagnostics_channel'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../../src/clock.js'
import { type FileBackend, openFileBackend } from '../../../src/file/backend.js'
import { SessionStore } from '../../../src/index.js'
import { checkKey, checkMaintenance } from '../../../src/input.js'
import { Lead } from '../../../src/maintenance/leader/lead.js'
import { runRound, type Step, type Unit } from '../../../src/maintenance/leader/round.js'
import { stepsOf } from '../../../src/maintenance/leader/steps.js'
import { Pace } from '../../../src/maintenance/pace.js'
import type { MaintenanceEvent, MaintenanceOptions } from '../../../src/upkeep.js'

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-background-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

async function open(maintenance?: MaintenanceOptions): Promise<SessionStore> {
  const store = await SessionStore.open(dir, { durability: 'process', ...(maintenance && { maintenance }) })
  onTestFinished(() => store.close())
  return store as SessionStore
}

async function openBackend(): Promise<FileBackend> {
  const options = {
    durability: 'process',
    checkpoint: 'auto',
    waitMs: 1_000,
    maxHoldMs: 1_000,
    readOnly: false,
    repair: false,
    checkKey,
  } as const
  const backend = await openFileBackend(dir, options)
  onTestFinished(() => backend.close())
  return backend
}

async function until(what: () => boolean | Promise<boolean>, withinMs = 20_000): Promise<void> {
  for (const untilMs = performance.now() + withinMs; !(await what()); await sleep(5))
    if (performance.now() > untilMs) throw new Error(`not within ${withinMs} ms: ${what}`)
}

const soon = { everyMs: 100, jitter: 0, leaseMs: 1_000, pauseMs: 0 }

describe('in the background', () => {
  test('rules are kept while others write, and all of it is told: to the option, to the channel, in the counters', async () => {
    const [told, heard]: [MaintenanceEvent[], unknown[]] = [[], []]
    const hear = (message: unknown) => void heard.push(message)
    diagnostics.subscribe('holdfast:maintenance', hear)
    onTestFinished(() => void diagnostics.unsubscribe('holdfast:maintenance', hear))
    const store = await open({ ...soon, retention: { maxCount: 2 }, onEvent: (event) => void told.push(event) })
    const writer = await open()
    for (let n = 0; n < 6; n++) await writer.session(`k${n}`).append({ n })
    await until(async () => {
      let count = 0
      for await (const _ of writer.entries()) count++
      return count === 2
    })
    await until(() => store.stats().maintenanceRounds > 1)
    await store.close()
    expect(told[0]).toMatchObject({ event: 'leader', outcome: 'took' })
    expect(told.at(-1)).toMatchObject({ event: 'leader', outcome: 'gave' })
    const archived = told.filter(({ outcome }) => outcome === 'archived')
    expect(archived.map(({ key }) => key)).toEqual(['k0', 'k1', 'k2', 'k3'])
    for (const event of archived) {
      expect(event).toMatchObject({
        event: 'step',
        step: 'retain',
        sessionId: expect.any(String),
        bytes: expect.any(Number),
        tookMs: expect.any(Number),
      })
      expect(heard).toContainEqual(event)
    }
    expect(store.stats()).toMatchObject({ maintenanceFailures: 0, damageFound: 0 })
  })

  // F53
  test('damage is told, and counted once', async () => {
    const writer = await open()
    const { sessionId } = await writer.session('k').append([{ n: 1 }, { n: 2 }])
    const path = join(dir, 'transcripts', `${sessionId}.jsonl`)
    fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('"n":1', '"n":7'))
    const told: MaintenanceEvent[] = []
    const store = await open({ ...soon, verifyShare: 1, onEvent: (event) => void told.push(event) })
    await until(() => store.stats().maintenanceRounds > 2)
    const damage = told.filter(({ event }) => event === 'damage')
    expect(damage[0]).toMatchObject({ step: 'verify', file: `transcripts/${sessionId}.jsonl`, sessionId, text: expect.any(String) })
    expect(store.stats().damageFound).toBe(new Set(damage.map(({ outcome, text }) => `${outcome} ${text}`)).size)
  })

  test('close stops it between two units, at once, and gives the lead back', async () => {
    const writer = await open()
    for (let n = 0; n < 40; n++) await writer.session(`k${n}`).append({ n })
    let store: SessionStore | undefined
    const closed: Promise<void>[] = []
    const onEvent = ({ outcome }: MaintenanceEvent) => {
      if (outcome === 'archived' && closed.length === 0) closed.push(store!.close())
    }
    store = await open({ ...soon, everyMs: 100, retention: { maxCount: 0 }, onEvent })
    await until(() => closed.length > 0)
    await closed[0]
    expect(fs.readdirSync(join(dir, 'archive'))).toHaveLength(1)
    expect((await writer.locks()).find(({ lock }) => lock === 'maintenance')?.holder).toBeUndefined()
  })

  test('a handle that only reads does none', async () => {
    await (await open()).update('k', () => ({}))
    await expect(SessionStore.open(dir, { readOnly: true, maintenance: {} })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    const reader = await SessionStore.open(dir, { readOnly: true })
    onTestFinished(() => reader.close())
    await expect(reader.maintain()).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  })

  test.each([{ everyMs: 1 }, { jitter: 2 }, { leaseMs: 10 }, { verifyShare: 1.5 }, { retention: { maxage: 1 } }, { every: 1 }])(
    '%j makes no sense',
    async (wrong) => {
      await expect(SessionStore.open(dir, { maintenance: wrong as MaintenanceOptions })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    },
  )
})

describe('one leads', () => {
  test('the others see who, and one of them takes it when it is given back', async () => {
    const [a, b] = [await open(), await open()]
    await a.session('k').append({ n: 1 })
    const outcomes: string[] = []
    const protect = () => false
    const leading = a.maintain({
      retention: { maxCount: 0 },
      protect,
      onEvent: async ({ outcome }) => {
        if (outcome === 'archived') outcomes.push(JSON.stringify(await b.maintain()))
      },
    })
    expect(await leading).toMatchObject({ led: true, stopped: false })
    await until(() => outcomes.length > 0)
    expect(JSON.parse(outcomes[0]!)).toMatchObject({ led: expect.any(Boolean) })
    expect(await b.maintain()).toMatchObject({ led: true })
  })

  test('a lead that is robbed ends the round before the next unit', async () => {
    const backend = await openBackend()
    const lost: string[] = []
    const lead = new Lead(backend.inside.leads, 1_000, { lost: (why) => void lost.push(why) })
    expect(await lead.take()).toMatchObject({ taken: true })
    const done: number[] = []
    const step: Step = {
      name: 'count',
      wanted: true,
      async *run() {
        for (let n = 1; n <= 5; n++) {
          done.push(n)
          if (n === 2) fs.rmSync(join(dir, 'locks', 'maintenance'), { recursive: true })
          yield { outcome: 'counted' }
        }
      },
    }
    const { clock } = backend.inside.host
    const reports = await runRound([step, step], { clock, pace: new Pace(clock), goesOn: () => lead.stands(), tell() {} })
    expect(done).toEqual([1, 2])
    expect(reports).toMatchObject([{ outcome: 'stopped', units: 2 }])
    await until(() => lost.length > 0)
    expect(await lead.release()).toBe(false)
  })
})

describe('a round', () => {
  const steps = (run: Step['run']): Step[] => [
    { name: 'first', wanted: true, run },
    { name: 'unwanted', wanted: false, run },
    {
      name: 'second',
      wanted: true,
      async *run() {
        yield { outcome: 'fine' }
      },
    },
  ]

  test('a step that fails is told, and the next one is done', async () => {
    const { clock } = (await openBackend()).inside.host
    const told: MaintenanceEvent[] = []
    const reports = await runRound(
      steps(async function* (): AsyncGenerator<Unit> {
        yield { outcome: 'half', key: 'k' }
        throw new Error('mine')
      }),
      { clock, pace: new Pace(clock), goesOn: () => true, tell: (event) => void told.push(event) },
    )
    expect(reports).toMatchObject([
      { step: 'first', outcome: 'failed', units: 1, error: { code: 'INVARIANT', cause: { message: 'mine' } } },
      { step: 'second', outcome: 'done', units: 1 },
    ])
    expect(told.map(({ step, outcome }) => `${step} ${outcome}`)).toEqual(['first half', 'first failed', 'second fine', 'second done'])
  })

  test('it rests when its budget is used up, and breathes in between', async () => {
    let nowMs = 0
    const rests: number[] = []
    let breaths = 0
    const rest = async (ms: number) => void rests.push(nowMs, ms)
    const clock = { ...systemClock, monotonicMs: () => nowMs }
    const pace = new Pace(clock, { budgetMs: 20, pauseMs: 7, rest, onBreath: () => breaths++ })
    for (; nowMs < 50; nowMs++) await pace.breathe()
    expect(rests).toEqual([20, 7, 40, 7])
    expect(breaths).toBe(12)
  })
})

describe('steps', () => {
  test('a deletion and a rotation whose doers died are brought to their end', async () => {
    const store = await open()
    const ids = [await store.session('deleted').append({ n: 1 }), await store.session('rotated').append({ n: 1 })].map(
      ({ sessionId }) => sessionId,
    )
    await store.delete('deleted')
    await store.session('rotated').rotate()
    // As after a crash before the last step: the seal stands, the metadata are done, the file is where it was.
    for (const id of ids) fs.renameSync(join(dir, 'archive', `${id}.jsonl`), join(dir, 'transcripts', `${id}.jsonl`))
    const told: MaintenanceEvent[] = []
    await store.maintain({ onEvent: (event) => void told.push(event) })
    expect(
      told
        .filter(({ outcome }) => outcome === 'finished')
        .map(({ key, text }) => `${key} ${text}`)
        .sort(),
    ).toEqual(['deleted deleted', 'rotated rotated'])
    expect(fs.readdirSync(join(dir, 'archive')).sort()).toEqual(ids.map((id) => `${id}.jsonl`).sort())
    expect(await store.session('rotated').append({ n: 2 })).toMatchObject({ sessionId: expect.not.stringMatching(ids[1]!) })
    expect(await store.get('deleted')).toBeUndefined()
    expect((await store.verify()).findings.filter(({ kind }) => kind === 'unfinished-work')).toEqual([])
  })

  test('a transcript that no key names, without a word what is to become of it, stays where it is', async () => {
    const store = await open()
    await store.session('k').append({ n: 1 })
    const id = '01a1ff7e-2b63-7773-8234-93e4069c4db1'
    fs.writeFileSync(join(dir, 'transcripts', `${id}.jsonl`), '{"mine":1}\n')
    await store.maintain()
    expect(fs.existsSync(join(dir, 'transcripts', `${id}.jsonl`))).toBe(true)
  })

  test('a transcript of which much can go is written anew, once, and the old file is in the archive', async () => {
    const store = await open()
    const session = store.session('k')
    for (let n = 0; n < 50; n++) await session.append({ n, filler: 'x'.repeat(200) })
    await session.compact({ keepLast: 2, summarize: async () => 'much was said' })
    await store.session('short').append({ n: 1 })
    const rounds: (string | undefined)[][] = []
    for (let round = 0; round < 2; round++) {
      const told: MaintenanceEvent[] = []
      await store.maintain({ compactBytes: { minBytes: 1_000 }, verifyShare: 0, onEvent: (event) => void told.push(event) })
      rounds.push(told.filter(({ outcome }) => outcome === 'compacted').map(({ key }) => key))
    }
    expect(rounds).toEqual([['k'], []])
    expect(fs.readdirSync(join(dir, 'archive'))).toHaveLength(1)
    expect((await session.tail(2)).map(({ record }) => record.n)).toEqual([48, 49])
    expect((await store.verify()).damage).toEqual([])
  })
})

// Every step is safe without the lead.
test('two leaders at once lose nothing, and each session is archived once', async () => {
  const writer = await open()
  const acknowledged = new Map<string, string>()
  for (let n = 0; n < 30; n++) acknowledged.set(`k${n}`, (await writer.session(`k${n}`).append({ n })).sessionId)
  const options = checkMaintenance({ retention: { maxCount: 10 }, verifyShare: 1 })
  const outcomes: string[] = []
  const round = async () => {
    const { inside } = await openBackend()
    const { clock } = inside.host
    const tell = ({ outcome, key }: MaintenanceEvent) => void (key && outcomes.push(`${key} ${outcome}`))
    return runRound(stepsOf(inside, options), { clock, pace: new Pace(clock), goesOn: () => true, tell })
  }
  let writing = true
  const appends = (async () => {
    for (let n = 0; writing; n++) {
      await writer.session('k29').append({ more: n })
      await sleep(2)
    }
  })()
  const reports = await Promise.all([round(), round(), round()])
  writing = false
  await appends
  expect(reports.flat().filter(({ outcome }) => outcome !== 'done')).toEqual([])
  const archived = outcomes.filter((outcome) => outcome.endsWith(' archived'))
  expect(new Set(archived).size).toBe(archived.length)
  // One that another has just sealed looks as if it were in use: then one more goes in its place.
  expect(archived.length).toBeGreaterThanOrEqual(20)
  expect(archived.length).toBeLessThanOrEqual(23)
  const files = new Set(['transcripts', 'archive'].flatMap((folder) => fs.readdirSync(join(dir, folder))))
  for (const sessionId of acknowledged.values()) expect(files).toContain(`${sessionId}.jsonl`)
  expect((await writer.verify()).damage).toEqual([])
})

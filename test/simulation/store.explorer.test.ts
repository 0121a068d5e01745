/** The real store, one system call at a time, through all interleavings of several processes (F1, F2, F13, F20, F31, F32; P1 to P3, P6):
 *  any process may be killed anywhere, and any may be taken for dead although it lives and goes on later. */
import { describe, expect, test, vi } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { careOf } from '../backend/care.js'
import { census } from './census.js'
import { type Bounds, type Coverage, type End, type Exploration, explore } from './explorer.js'
import { assertBorneOut, assertReadersSawPrefixes, attempt, type Deed, deedsOf } from './ledger.js'
import type { Program, SimulatedProcess } from './machine.js'
import { processDisk } from './process-disk.js'
import { SimulatedDisk } from './simulated-disk.js'
import { simulatedHost } from './simulated-host.js'
import { encoded, increment, openStore, writeMarks } from './store-on-disk.js'

const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0
if (soak) vi.setConfig({ testTimeout: 3_600_000 })

/** Two processes: every schedule with one preemption, one kill and one false verdict and, where those are few, the first of those with two
 *  preemptions; three processes: as many as fit. */
function bounds(programs = 2): Bounds {
  if (soak) return { preemptions: 3, kills: 1, falseVerdicts: 2, runsMax: 100_000 }
  return { preemptions: 2, kills: 1, falseVerdicts: 1, runsMax: programs > 2 ? 400 : 1_500, runsEnough: 250 }
}

type Part = (store: Backend, process: SimulatedProcess) => Promise<unknown>

const counting: Part = (store, process) => attempt(process, 'count shared', () => increment(store, 'shared'))
const appending =
  (name: string, options = {}): Part =>
  (store, process) =>
    attempt(process, `append shared ${name}`, () => store.append('shared', encoded(...name.split(',')), options))
const rotating: Part = (store, process) => attempt(process, 'rotate shared', () => store.rotate('shared', 'reset', {}))
const deleting: Part = (store, process) => attempt(process, 'delete shared', () => store.delete('shared', {}))
const compacting: Part = (store, process) => attempt(process, 'compact shared', () => careOf(store).compactBytes('shared', {}))
const marking: Part = (store, process) => attempt(process, 'marks', () => writeMarks(store))
const checkpointing: Part = (store, process) => attempt(process, 'checkpoint', () => store.checkpoint())

/** Looks twice: what it sees the second time may not be older. */
const reading: Part = async (store, process) => {
  for (let look = 0; look < 2; look++) {
    process.mark('reads')
    process.note(`saw count ${Number((await store.get('shared'))?.count ?? 0)}`)
    process.mark('reads')
    const names: string[] = []
    for await (const { record } of store.read('shared', {})) names.push(String(record.name))
    process.note(`saw names ${names.join()}`)
  }
}
const together =
  (...parts: Part[]): Part =>
  (store, process) =>
    Promise.all(parts.map((part) => part(store, process)))

/** Everybody has the store open; then everybody does their part at once. */
function program(...parts: Part[]): Program {
  return async (process) => {
    const store = await openStore(process.host)
    process.mark('open')
    for (const part of parts) await part(store, process)
  }
}

const lastPid = 900

async function madeStore(prepare?: (store: Backend) => Promise<unknown>): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk()
  disk.mkdir(1, '/data')
  if (!prepare) return disk
  const store = await openStore(simulatedHost(processDisk(disk, 1)))
  await prepare(store)
  await store.close()
  disk.exit(1)
  return disk
}

async function assertBorneOutAtTheEnd({ disk, facts }: End, before: readonly Deed[]): Promise<void> {
  const alarm = facts.find(({ fact }) => /^(not|unsure) .*_CORRUPT/.test(fact))
  if (alarm) throw new Error(`damage was told where there is none: ${alarm.fact}`)
  const host = simulatedHost(processDisk(disk, lastPid), { pid: lastPid })
  const found = await census(host, true)
  assertBorneOut([...before, ...deedsOf(facts)], found)
  const earlier = before.map(({ what, outcome }) => ({ process: -1, fact: `${outcome} ${what}` }))
  assertReadersSawPrefixes(
    [...earlier.map(({ fact }) => ({ process: -1, fact: fact.replace('did', 'try') })), ...earlier, ...facts],
    found,
    'shared',
  )
}

async function explored(
  disk: SimulatedDisk,
  programs: Program[],
  before: readonly Deed[] = [],
  more: Partial<Exploration> = {},
  leastCovered = programs.length > 2 ? 0 : 1,
): Promise<Coverage> {
  const check = (end: End) => assertBorneOutAtTheEnd(end, before)
  const coverage = await explore({ disk, programs, prepared: true, bounds: bounds(programs.length), check, ...more })
  console.log(`${expect.getState().currentTestName}: ${JSON.stringify(coverage)}`)
  expect(coverage.preemptionsCovered).toBeGreaterThanOrEqual(leastCovered)
  return coverage
}

const nothing = () => madeStore((store) => increment(store, 'other'))
const written = () =>
  madeStore(async (store) => {
    await increment(store, 'shared')
    await store.append('shared', encoded('first'), { id: 'id-first' })
    await store.append('shared', encoded('second'), {})
  })
/** The same, with a summary that stands for the first of them. */
const summarized = () =>
  madeStore(async (store) => {
    await increment(store, 'shared')
    await store.append('shared', encoded('first'), { id: 'id-first' })
    await store.append('shared', encoded('second'), {})
    const { sessionId, base } = (await store.summarizable('shared'))!
    await store.summarize('shared', { sessionId, base, upTo: 1, records: 1, text: 's' }, {})
  })
const earlier: Deed[] = [
  { what: 'count shared', outcome: 'did' },
  { what: 'append shared first', outcome: 'did' },
  { what: 'append shared second', outcome: 'did' },
]

describe('whatever the order of their system calls', () => {
  test('two processes count, and no count is lost', async () => {
    await explored(await nothing(), [program(counting), program(counting)])
  })

  test('two processes count twice, and no count is lost', async () => {
    await explored(await nothing(), [program(counting, counting), program(counting, counting)])
  })

  test('three processes count, and no count is lost', async () => {
    await explored(await nothing(), [program(counting), program(counting), program(counting)])
  })

  test('two first messages for one key meet in one session (F31)', async () => {
    await explored(await nothing(), [program(appending('a')), program(appending('b,c'))])
  })

  test('three processes append to one session, and nothing is lost, doubled or out of order', async () => {
    await explored(await written(), [program(appending('a')), program(appending('b')), program(appending('c'))], earlier)
  })

  test('an append meets a rotation: it lands in the old session or in the new one, once (F32)', async () => {
    await explored(await written(), [program(appending('a')), program(rotating)], earlier)
  })

  test('two rotations meet an append', async () => {
    await explored(await written(), [program(rotating), program(rotating), program(appending('a'))], earlier)
  })

  test('an append meets a deletion: it is archived with the rest or begins a new session', async () => {
    await explored(await written(), [program(appending('a')), program(deleting)], earlier.slice(1))
  })

  test.each([
    ['rotation', rotating],
    ['deletion', deleting],
  ])('a first append meets a %s: it lands where it is found again', async (_, closing) => {
    const disk = await madeStore((store) => increment(store, 'shared'))
    await explored(disk, [program(appending('a')), program(closing)])
  })

  test.each<[what: string, part: Part]>([
    ['an append', appending('b')],
    ['a rotation', rotating],
  ])('marks meet %s: a sound transcript is never taken for a damaged one (F29)', async (_, part) => {
    await explored(await written(), [program(appending('a'), marking), program(part)], earlier)
  })

  test.each<[what: string, part: Part, disk: () => Promise<SimulatedDisk>]>([
    ['its rotation', rotating, written],
    ['its compaction', compacting, summarized],
  ])('a reader of a marked session meets %s: what has been archived is not missing (F29)', async (_, part, made) => {
    const looking: Part = async (store) => {
      for (let look = 0; look < 2; look++) for await (const _ of store.read('shared', {}));
      await store.tail('shared', 1)
    }
    const more = { bounds: { ...bounds(), ...(soak ? {} : { runsMax: 500 }) } }
    await explored(await made(), [program(appending('a'), part, marking), program(looking, appending('b'))], earlier, more, soak ? 1 : 0)
  })

  test.each<[string, ...Part[]]>([
    ['an append', appending('a')],
    ['another, and an append', compacting, appending('a')],
    ['a rotation', rotating],
    ['a deletion', deleting],
    ['an append under an id that is in the part that goes', appending('first', { id: 'id-first' })],
  ])('a compaction meets %s: nothing is lost, doubled or out of order', async (what, ...parts) => {
    const before = what === 'a deletion' ? earlier.slice(1) : earlier
    // It makes many calls: every schedule with one preemption takes some thousands of runs.
    const more = { bounds: { ...bounds(), ...(soak ? {} : { runsMax: 250 }) } }
    await explored(await summarized(), [program(compacting), ...parts.map((part) => program(part))], before, more, soak ? 1 : 0)
  })

  test('a count meets a checkpoint', async () => {
    await explored(await written(), [program(counting), program(checkpointing)], earlier)
  })

  test('two checkpoints meet a count', async () => {
    await explored(await written(), [program(checkpointing), program(checkpointing), program(counting)], earlier)
  })

  test('a rotation meets a checkpoint', async () => {
    await explored(await written(), [program(rotating), program(counting, checkpointing)], earlier)
  })

  test('one idempotency id from two processes is one record', async () => {
    await explored(await written(), [program(appending('a', { id: 'evt-7' })), program(appending('a', { id: 'evt-7' }))], earlier)
  })

  test('a reader among writers sees a prefix, with all that was acknowledged before it began (P4)', async () => {
    await explored(
      await written(),
      [program(reading), program(counting, appending('a,b')), program(appending('c'), checkpointing)],
      earlier,
    )
  })

  test('calls made at once in one process share commits with each other, not with those of another', async () => {
    const both = (one: string, two: string) => together(counting, counting, appending(one), appending(two, { id: two }))
    await explored(await written(), [program(both('a', 'b,c')), program(both('d', 'e'))], earlier)
  })

  test('a lock that is handed over to the one who waits has one holder', async () => {
    const programs = [program(counting, counting), program(counting, counting), program(counting)]
    await explored(await written(), programs, earlier, { callMs: 3 })
  })

  test('two processes make a store at once, and both write to it', async () => {
    const opening: Program = async (process) => {
      const store = await openStore(process.host)
      await counting(store, process)
    }
    await explored(await madeStore(), [opening, opening], [], {
      prepared: false,
      bounds: { ...bounds(), runsMax: soak ? 100_000 : 3_500 },
    })
  })
})

describe('with locks that stop nobody, since everybody takes everybody else for dead (P3),', () => {
  test.each<[what: string, ...programs: Program[]]>([
    ['three counts', program(counting), program(counting), program(counting)],
    ['two first appends', program(appending('a')), program(appending('b,c'))],
    ['an append and a rotation', program(appending('a')), program(rotating)],
    ['two compactions and an append', program(compacting), program(compacting), program(appending('a'))],
    ['a compaction and a rotation', program(compacting), program(rotating)],
    ['counts and a checkpoint', program(counting), program(checkpointing), program(counting)],
  ])('%s lose nothing', async (what, ...programs) => {
    const first = what === 'two first appends'
    const compaction = what.includes('compaction')
    const made = first ? nothing() : compaction ? summarized() : written()
    const runs = soak ? {} : { runsMax: compaction ? 300 : 1_000 }
    const more = { allLookDead: true, bounds: { ...bounds(), falseVerdicts: 0, ...runs } }
    await explored(await made, programs, first ? [] : earlier, more, programs.length > 2 || (compaction && !soak) ? 0 : 1)
  })
})

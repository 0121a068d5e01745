/** The real store, one system call at a time, through all interleavings of several processes (F1, F2, F13, F20, F31, F32; P1 to P3, P6):
 *  any process may be killed anywhere, and any may be taken for dead although it lives and goes on later. */
import { describe, expect, test } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { census } from './census.js'
import { type Bounds, type Coverage, type End, explore } from './explorer.js'
import { assertBorneOut, attempt, type Deed, deedsOf } from './ledger.js'
import type { Program, SimulatedProcess } from './machine.js'
import { processDisk } from './process-disk.js'
import { SimulatedDisk } from './simulated-disk.js'
import { simulatedHost } from './simulated-host.js'
import { encoded, increment, openStore } from './store-on-disk.js'

const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0

/** Two processes: all schedules with two preemptions, one kill and one false verdict; three: fewer. */
function bounds(processes: number): Bounds {
  if (soak) return { preemptions: 3, kills: 1, falseVerdicts: 2, runsMax: 400_000 }
  return { preemptions: processes > 2 ? 1 : 2, kills: 1, falseVerdicts: 1, runsMax: 20_000 }
}

type Part = (store: Backend, process: SimulatedProcess) => Promise<unknown>

const counting: Part = (store, process) => attempt(process, 'count shared', () => increment(store, 'shared'))
const appending =
  (name: string, options = {}): Part =>
  (store, process) =>
    attempt(process, `append shared ${name}`, () => store.append('shared', encoded(...name.split(',')), options))
const rotating: Part = (store, process) => attempt(process, 'rotate shared', () => store.rotate('shared', 'reset', {}))
const deleting: Part = (store, process) => attempt(process, 'delete shared', () => store.delete('shared', {}))
const checkpointing: Part = (store, process) => attempt(process, 'checkpoint', () => store.checkpoint())

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

async function check({ disk, facts }: End, before: readonly Deed[]): Promise<void> {
  const host = simulatedHost(processDisk(disk, lastPid), { pid: lastPid })
  const found = await census(host, true)
  assertBorneOut([...before, ...deedsOf(facts)], found)
}

async function explored(disk: SimulatedDisk, programs: Program[], before: readonly Deed[] = [], prepared = true): Promise<Coverage> {
  const coverage = await explore({ disk, programs, prepared, bounds: bounds(programs.length), check: (end) => check(end, before) })
  console.log(`${expect.getState().currentTestName}: ${JSON.stringify(coverage)}`)
  return coverage
}

const nothing = () => madeStore((store) => increment(store, 'other'))
const written = () =>
  madeStore(async (store) => {
    await increment(store, 'shared')
    await store.append('shared', encoded('first'), { id: 'id-first' })
    await store.append('shared', encoded('second'), {})
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

  test('two processes make a store at once, and both write to it', async () => {
    const opening: Program = async (process) => {
      const store = await openStore(process.host)
      await counting(store, process)
    }
    await explored(await madeStore(), [opening, opening], [], false)
  })
})

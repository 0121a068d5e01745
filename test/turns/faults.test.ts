/** Turns on a disk that fails once, at any call, and in processes that die at any call: what was acknowledged is there, no lease, slot or place
 *  in line is held by nobody, and the next turn begins at once (P1, P2, P7; F4, F6, F34, F35). */
import { spawnSync } from 'node:child_process'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openFileBackend } from '../../src/file/backend.js'
import type { Disk } from '../../src/file/durable.js'
import { nodeDisk } from '../../src/file/durable.js'
import { type Host, systemHost } from '../../src/file/host.js'
import { checkAppend, checkTail, encodeRecords } from '../../src/input.js'
import type { SessionStore } from '../../src/store.js'
import { Turns } from '../../src/turns/turns.js'
import type { Turn } from '../../src/types.js'
import { type Call, type Fault, faultyDisk } from '../faults/faulty-disk.js'
import { opened, storeDirectory } from '../metadata/store-directory.js'
import { soaking } from '../processes/trials.js'
import { storyIn } from '../processes/turns-trial.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { freshStore, leftBehind, transcriptOf } from './conversation.js'

const text = (uid: string) => ({ uid })
const encode = (records: object | readonly object[]) => encodeRecords(records, 1 << 20)

/** Turns as a store has them, on a machine of the test's making. */
async function turnsOn(directory: string, host: Host) {
  const options = { durability: 'process', checkpoint: 'auto', waitMs: 1_000, maxHoldMs: 300, readOnly: false, checkKey: () => {} } as const
  const backend = await openFileBackend(directory, options, host)
  let ids = 0
  const turns = new Turns(
    backend.turns,
    { main: 2 },
    { clock: host.clock, freshId: () => `fresh-${host.nonce(8)}-${ids++}`, encode, checkAppend, checkTail },
  )
  const run = (key: string, options: Record<string, unknown>, work: (turn: Turn) => unknown) =>
    turns.run(
      key,
      {
        requestId: undefined,
        channelId: undefined,
        lane: 'main',
        whenBusy: 'queue',
        maxTurnMs: 60_000,
        waitMs: 3_000,
        signal: undefined,
        ...options,
        records: options.input === undefined ? undefined : encode(options.input as object),
      } as Parameters<Turns['run']>[1],
      work,
    )
  return { turns, backend, run }
}

/** What was acknowledged: records that must be there, requests that must not run again. */
interface Told {
  readonly appended: string[]
  readonly left: string[]
  readonly completed: string[]
}

/** A little of everything that turns do. Whatever fails, fails; what was told is written down. */
async function morning({ run }: Awaited<ReturnType<typeof turnsOn>>, told: Told): Promise<void> {
  const append = async (turn: Turn, uid: string) => {
    await turn.append(text(uid))
    told.appended.push(uid)
  }
  const completed = async (id: string, work: Promise<{ outcome: string }>) => {
    if ((await work).outcome === 'completed') told.completed.push(id)
  }
  const tried = (work: Promise<unknown>) => work.catch(() => {})
  await tried(
    completed(
      'r-1',
      run('k', { requestId: 'r-1', input: text('in-1') }, (turn) => append(turn, 'out-1')),
    ),
  )
  let go = () => {}
  const staying = (entered: (turn: Turn | undefined) => void) =>
    run('k', { input: text('in-2') }, async (turn) => {
      const first = turn.inputs.some(({ record }) => record.uid === 'in-2')
      if (!first) return void (await append(turn, `more-${turn.turn}`))
      entered(turn)
      await new Promise<void>((resolve) => {
        go = resolve
      })
    })
  let second: Promise<unknown> = Promise.resolve()
  const turn = await new Promise<Turn | undefined>((resolve) => {
    second = tried(staying(resolve)).then(() => resolve(undefined))
  })
  const giving = new AbortController()
  const left = tried(
    run('k', { whenBusy: 'coalesce', input: text('left-1') }, (mine) => append(mine, 'out-left')).then(
      ({ outcome }) => void (outcome === 'coalesced' && told.left.push('left-1')),
    ),
  )
  const third = tried(
    completed(
      'r-3',
      run('k', { requestId: 'r-3', input: text('in-3') }, (mine) => append(mine, 'out-3')),
    ),
  )
  const gone = tried(run('k', { input: text('gone'), signal: giving.signal }, () => {}))
  await left
  if (turn) await tried(turn.pending())
  if (turn) await tried(append(turn, 'out-2'))
  if (turn) await tried(turn.tail(5))
  const fourth = tried(run('k', { whenBusy: 'interrupt', input: text('in-4') }, (mine) => append(mine, 'out-4')))
  giving.abort(new Error('gone'))
  await gone
  go()
  await Promise.all([second, third, fourth])
}

/** @param whole  as it is found by another process, on a disk without faults */
async function assertSound(whole: SessionStore, directory: string, told: Told, label: string): Promise<void> {
  const entry = await whole.get('k')
  if (!entry) return expect(told, label).toEqual({ appended: [], left: [], completed: [] })
  const sinceMs = performance.now()
  await whole.runTurn('k', { waitMs: 5_000 }, (turn) => turn.pending())
  expect(performance.now() - sinceMs, `${label}: the next turn`).toBeLessThan(1_500)
  const story = storyIn(transcriptOf(directory, (await whole.get('k'))!.sessionId))
  expect(story.violations, label).toEqual([])
  for (const uid of told.appended) expect(story.records.get(uid), `${label}: ${uid}`).toMatchObject({ times: 1 })
  for (const uid of told.left) expect(story.inputs.get(uid), `${label}: ${uid}`).toBeGreaterThan(0)
  for (const id of told.completed) {
    const again = await whole.runTurn('k', { requestId: id, input: text('never') }, () => expect.fail(`${label}: ${id} ran again`))
    expect(again.outcome, label).toBe('duplicate')
  }
  for (const [id, times] of story.completed) expect(times, `${label}: ${id}`).toBe(1)
  // Nobody is shown as waiting or active who is not.
  expect(
    (await whole.turns()).filter(({ state }) => state !== 'interrupted'),
    label,
  ).toEqual([])
}

const calls: readonly Call[] = ['open', 'write', 'read', 'fstat', 'stat', 'rename', 'mkdir', 'readdir', 'unlink', 'rmdir', 'close']
/** Of turns: their leases and cards, and the transcript. */
const ofTurns = (path: string) => path.includes('/locks/turns') || path.includes('/transcripts/')
/** Each run a part of them; in the end all. */
const stride = soaking ? 1 : 6
const seed = Math.floor(Math.random() * 2 ** 31)

async function everyCall(call: Call, work: (fault: Fault) => Promise<boolean>, how: string, times: number): Promise<number> {
  const random = seededRandom(seed)
  for (let nth = 1 + Math.floor(random() * stride), tried = 0; ; nth += stride, tried++)
    if (!(await work({ call, nth, how, times, path: ofTurns }))) return tried
}

describe('a disk that fails once', () => {
  test.each(calls)('at any %s: what was said is there, and everything goes on', async (call) => {
    let tried = 0
    for (const how of call === 'write' ? ['ENOSPC', 'short', 'EIO'] : ['EIO'])
      tried += await everyCall(
        call,
        async (fault) => {
          const directory = storeDirectory()
          const faulty = faultyDisk(nodeDisk, fault)
          faulty.mend()
          const machine = await turnsOn(directory, { ...systemHost(), disk: { ...nodeDisk, ...faulty.disk } })
          faulty.arm()
          const told: Told = { appended: [], left: [], completed: [] }
          await morning(machine, told)
          faulty.mend()
          const label = `${call} ${fault.nth} ${how}, seed ${seed}`
          // The same handle goes on, too: nothing of it is held by nobody.
          const sinceMs = performance.now()
          await machine.run('k', {}, () => {})
          expect(performance.now() - sinceMs, label).toBeLessThan(1_500)
          await machine.turns.close(1_000)
          const whole = await opened(directory, { durability: 'process' })
          await assertSound(whole, directory, told, label)
          await machine.backend.close()
          await whole.close()
          return faulty.fired()
        },
        how,
        1,
      )
    console.log(`${call}: ${tried} failures`)
  })
})

/** As if it had been killed: from one call on nothing of it reaches the disk, and its pid is nobody's. */
function dyingHost(disk: Disk): Host {
  const host = systemHost()
  const pid = spawnSync('true').pid!
  return {
    ...host,
    disk,
    identity: { ...host.identity, pid },
    probe: (other) => (other === pid ? { exists: true, startTime: host.identity.startTime, zombie: false } : host.probe(other)),
  }
}

describe('a process that dies', () => {
  test.each(calls)(
    'at any %s: what it was told is there, the next turn begins at once, and what it has left can be swept up',
    async (call) => {
      const tried = await everyCall(
        call,
        async (fault) => {
          const directory = storeDirectory()
          const faulty = faultyDisk(nodeDisk, fault)
          faulty.mend()
          let dead = false
          const disk = dying(nodeDisk, faulty, () => dead)
          const machine = await turnsOn(directory, dyingHost(disk))
          faulty.arm()
          const told: Told = { appended: [], left: [], completed: [] }
          const life = morning(machine, told)
          await Promise.race([life, died(faulty)])
          dead = true
          const before = structuredClone(told)
          const whole = await opened(directory, { durability: 'process' })
          const label = `${call} ${fault.nth}, seed ${seed}`
          await assertSound(whole, directory, before, label)
          await whole.close()
          const swept = await opened(directory, { durability: 'process' })
          expect(leftBehind(directory), label).toEqual([])
          await swept.close()
          expect(leftBehind(directory, 'anything'), label).toEqual([])
          await life
          await machine.turns.close(100).catch(() => {})
          return faulty.fired()
        },
        call === 'write' ? 'torn' : 'EIO',
        Number.POSITIVE_INFINITY,
      )
      console.log(`${call}: ${tried} deaths`)
    },
  )
})

/** All calls fail, of whatever kind, once the fault has come about. */
function dying(whole: Disk, faulty: ReturnType<typeof faultyDisk>, dead: () => boolean): Disk {
  const gone = () => Object.assign(new Error('EIO: the process is dead'), { code: 'EIO' })
  const guarded = Object.entries({ ...whole, ...faulty.disk }).map(([name, call]) => [
    name,
    (...of: unknown[]) => {
      if (name !== 'close' && (dead() || (faulty.fired() && name !== 'write'))) throw gone()
      return (call as (...of: unknown[]) => unknown)(...of)
    },
  ])
  return Object.fromEntries(guarded) as unknown as Disk
}

async function died(faulty: ReturnType<typeof faultyDisk>): Promise<void> {
  while (!faulty.fired()) await new Promise((resolve) => setImmediate(resolve))
}

test('the little of everything is a morning in which all goes well', async () => {
  const { directory, store } = await freshStore()
  const machine = await turnsOn(directory, systemHost())
  onTestFinished(() => machine.backend.close())
  const told: Told = { appended: [], left: [], completed: [] }
  await morning(machine, told)
  expect(told).toEqual({
    appended: expect.arrayContaining(['out-1', 'out-2', 'out-3', 'out-4']),
    left: ['left-1'],
    completed: ['r-1', 'r-3'],
  })
  await machine.turns.close(1_000)
  await assertSound(store, directory, told, 'whole')
})

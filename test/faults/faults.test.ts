/** A call to the system fails, every one in turn, in every way it may (P1, P2, P5; F4, F17, F24): whoever is told that something was
 *  written finds it, whoever is told that nothing was does not, everybody else goes on, and no error is without a type. */
import { describe, expect, test, vi } from 'vitest'
import { isStoreError } from '../../src/errors.js'
import { careOf } from '../backend/care.js'
import { acting, longScenario, morning } from '../crash/scenarios.js'
import { census } from '../simulation/census.js'
import { assertBorneOut, deedsOf } from '../simulation/ledger.js'
import { powerCuts } from '../simulation/power-cut.js'
import { processDisk } from '../simulation/process-disk.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { SimulatedDisk } from '../simulation/simulated-disk.js'
import { simulatedHost } from '../simulation/simulated-host.js'
import type { Fact } from '../simulation/state.js'
import { encoded, increment, openStore } from '../simulation/store-on-disk.js'
import { type Call, type Fault, faultyDisk } from './faulty-disk.js'

const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0
if (soak) vi.setConfig({ testTimeout: 3_600_000 })

/** What each call may fail with; the first of each is tried at every call, the others at every third. */
const ways: readonly [call: Call, hows: readonly string[]][] = [
  ['open', ['EMFILE', 'EIO', 'ENOSPC', 'EROFS']],
  ['write', ['ENOSPC', 'short', 'torn', 'EIO', 'EDQUOT', 'EROFS']],
  ['read', ['EIO']],
  ['fstat', ['EIO']],
  ['stat', ['EIO']],
  ['rename', ['EIO', 'ENOSPC', 'EROFS', 'EDQUOT']],
  ['link', ['EIO', 'EPERM']],
  ['mkdir', ['ENOSPC', 'EROFS']],
  ['readdir', ['EMFILE', 'EIO']],
  ['close', ['EIO']],
]
const syncWays: readonly [call: Call, hows: readonly string[]][] = [
  ['sync', ['EIO', 'ENOSPC']],
  ['syncDirectory', ['EIO']],
]

interface Outcome {
  readonly disk: SimulatedDisk
  readonly facts: Fact[]
  readonly fired: boolean
  readonly counts: Map<Call, number>
}

/** @param lasting  the store is opened first, then the trouble begins, and ends only after everything has been tried. */
async function suffered(fault: Fault | undefined, lasting = false): Promise<Outcome> {
  const disk = new SimulatedDisk({ syncing: () => new Promise((resolve) => setImmediate(resolve)) })
  disk.mkdir(1, '/data')
  disk.settle()
  const facts: Fact[] = []
  const note = (fact: string) => void facts.push({ process: 0, fact })
  const faulty = faultyDisk(processDisk(disk, 1), fault, (fd) => disk.failSync(1, fd))
  if (lasting) faulty.mend()
  const act = await acting(simulatedHost(faulty.disk, { pid: 1 }), { note }, {})
  if (lasting) faulty.arm()
  await (lasting ? morning(act) : longScenario.during(act))
  faulty.mend()
  // Whatever it was, it is over: the same handle goes on, unless a sync has failed.
  await act.append('other', 'later')
  const last = facts.at(-1)!.fact
  if (!last.startsWith('did ') && !last.includes('STORE_POISONED')) throw new Error(`the handle does not go on: ${last}`)
  return { disk, facts, fired: faulty.fired(), counts: faulty.counts }
}

/** As the next process of the same boot finds it; and once more after a power cut. */
async function assertSound({ disk, facts }: Outcome): Promise<void> {
  const deeds = deedsOf(facts)
  disk.exit(1)
  const found = await census(simulatedHost(processDisk(disk, 2), { pid: 2 }), true)
  assertBorneOut(deeds, found)
  disk.exit(2)
  // What the going on added is acknowledged too.
  const since = [...found.entries.keys(), 'afterwards'].map((key) => ({ what: `count ${key}`, outcome: 'did' }) as const)
  for (const left of powerCuts(disk, { most: 2, random: seededRandom(7) }).disks) {
    const afterwards = await census(simulatedHost(processDisk(left, 3), { pid: 3, boot: 'b0000002' }), false)
    const records = afterwards.records.filter(({ name }) => name !== 'afterwards')
    assertBorneOut([...deeds, ...since], { ...afterwards, records }, { powerCut: true })
  }
}

async function everyCall(call: Call, hows: readonly string[], lasting = false): Promise<string> {
  let tried = 0
  for (const [at, how] of hows.entries()) {
    const stride = at === 0 || soak ? 1 : 3
    for (let nth = 1; ; nth += stride) {
      const fault = { call, nth, how, times: lasting ? Number.POSITIVE_INFINITY : 1 }
      try {
        const outcome = await suffered(fault, lasting)
        if (!outcome.fired) break
        await assertSound(outcome)
      } catch (error) {
        throw new Error(`${how} at ${call} ${nth}: ${(error as Error).message}`, { cause: error })
      }
      tried++
    }
  }
  return `${call}: ${tried} faults (${hows.join(', ')})`
}

describe('one failing call', () => {
  test('none: the scenario itself is sound', async () => {
    const outcome = await suffered(undefined)
    expect(outcome.facts.filter(({ fact }) => /^(not|unsure) /.test(fact))).toEqual([])
    await assertSound(outcome)
  })

  test.each(ways)('%s: typed, honest, and everybody else goes on', async (call, hows) => {
    console.log(await everyCall(call, hows))
  })

  test.each(syncWays)('%s: what was acknowledged is on the disk all the same', async (call, hows) => {
    console.log(await everyCall(call, hows))
  })
})

describe('calls that fail from some moment on, until the trouble is over', () => {
  test.each<[call: Call, how: string]>([
    ['write', 'ENOSPC'],
    ['write', 'short'],
    ['open', 'EMFILE'],
    ['rename', 'EROFS'],
    ['mkdir', 'EDQUOT'],
  ])('%s with %s: nothing acknowledged is lost, and the same handle goes on', async (call, how) => {
    console.log(await everyCall(call, [how], true))
  })
})

describe('one file that cannot be read or written', () => {
  test.each<[call: Call, how: string]>([
    ['write', 'EIO'],
    ['read', 'EIO'],
    ['open', 'EACCES'],
    ['fstat', 'EIO'],
  ])('%s with %s for ever: its session is refused with a type, all others go on', async (call, how) => {
    const disk = new SimulatedDisk()
    disk.mkdir(1, '/data')
    const first = await openStore(simulatedHost(processDisk(disk, 1)))
    const { sessionId } = await first.append('one', encoded('a'), {})
    await first.append('two', encoded('b'), {})
    await first.close()
    const path = (path: string) => path.endsWith(`${sessionId}.jsonl`)
    const faulty = faultyDisk(processDisk(disk, 2), { call, nth: 1, how, times: Number.POSITIVE_INFINITY, path })
    const store = await openStore(simulatedHost(faulty.disk, { pid: 2 }))
    const calls = await Promise.allSettled([
      store.append('one', encoded('c'), {}),
      store.append('two', encoded('d'), {}),
      store.append('three', encoded('e'), {}),
      increment(store, 'one'),
    ])
    expect(calls.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled', 'fulfilled'])
    const { reason } = calls[0] as PromiseRejectedResult
    expect(isStoreError(reason, 'IO_FAILED') && reason.effect, String(reason)).toBe('none')
    faulty.mend()
    await store.append('one', encoded('f'), {})
    expect((await store.tail('one', 9)).map(({ record }) => record.name)).toEqual(['a', 'f'])
    expect((await careOf(store).verify({})).damage).toEqual([])
  })
})

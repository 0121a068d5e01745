/** A repair that is cut short at any operation, by the death of its process or of the machine, leaves the store as it was or as it should be:
 *  the same command again brings it to its end, and no byte that was removed is gone (P1, P5, F22, F24). */
import { describe, expect, test } from 'vitest'
import type { Backend } from '../../../src/backend.js'
import { openFileBackend } from '../../../src/file/backend.js'
import type { Disk } from '../../../src/file/durable.js'
import type { Host } from '../../../src/file/host.js'
import type { RepairReport } from '../../../src/repair-plan.js'
import { careOf } from '../../backend/care.js'
import { recording } from '../../crash/recording.js'
import { faultyDisk } from '../../faults/faulty-disk.js'
import { powerCuts } from '../../simulation/power-cut.js'
import { processDisk } from '../../simulation/process-disk.js'
import { seededRandom } from '../../simulation/seeded-random.js'
import { SimulatedDisk } from '../../simulation/simulated-disk.js'
import { simulatedHost } from '../../simulation/simulated-host.js'
import { encoded, increment, storeDirectory, storeOptions } from '../../simulation/store-on-disk.js'

const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9)
const boot = 'b0000001'
const nextBoot = 'b0000002'

const open = (host: Host): Promise<Backend> => openFileBackend(storeDirectory, { ...storeOptions, repair: true }, host)
const names = ['a', 'b', 'c', 'd', 'e']

interface Scenario {
  readonly name: string
  /** Path, and what becomes of the bytes; undefined: the file goes. */
  readonly damage: (files: Map<string, Buffer>) => Map<string, Buffer | undefined>
  readonly found: readonly string[]
  /** Bytes that are to be removed, as they stand in the damaged file. */
  readonly removed: string
}

const transcriptIn = (files: ReadonlyMap<string, Buffer>) =>
  [...files].find(([path, bytes]) => path.includes('/transcripts/') && bytes.includes('"name":"a"'))!
const half = (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1)
const snapshot = `${storeDirectory}/sessions.json`
const journal = `${storeDirectory}/sessions.journal.jsonl`

const scenarios: readonly Scenario[] = [
  {
    name: 'a transcript with a broken line',
    damage(files) {
      const [path, bytes] = transcriptIn(files)
      return new Map([[path, Buffer.from(bytes.toString().replace('"name":"c"', '"name":"X"'))]])
    },
    found: ['a', 'b', 'd', 'e'],
    removed: '"name":"X"',
  },
  {
    name: 'a sessions.json cut in half, with the generation before',
    damage: (files) => new Map([[snapshot, half(files.get(snapshot)!)]]),
    found: names,
    removed: '"one"',
  },
  {
    name: 'a journal with a broken line',
    damage: (files) => new Map([[journal, Buffer.from(files.get(journal)!.toString().replace('"count":3', '"count":9'))]]),
    found: names,
    removed: '"count":9',
  },
  {
    name: 'no sessions.json and no journal',
    damage: () =>
      new Map([
        [snapshot, undefined],
        [journal, undefined],
      ]),
    found: names,
    removed: '',
  },
]

/** A store of two generations, damaged, all of it on the disk. */
async function damagedDisk({ damage }: Scenario): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk({ syncing: () => new Promise((resolve) => setImmediate(resolve)) })
  disk.mkdir(1, '/data')
  const store = await openFileBackend(storeDirectory, storeOptions, simulatedHost(processDisk(disk, 1), { pid: 1, boot }))
  for (const name of names) await store.append('one', encoded(name), {})
  await store.append('two', encoded('other'), {})
  for (let n = 0; n < 2; n++) {
    await increment(store, 'one')
    await store.checkpoint()
  }
  await increment(store, 'one')
  await increment(store, 'two')
  disk.exit(1)
  const view = processDisk(disk, 2)
  const files = filesIn(disk)
  for (const [path, bytes] of damage(files)) {
    view.unlink(path)
    if (bytes) put(view, path, bytes)
  }
  disk.exit(2)
  disk.settle()
  return disk
}

function put(disk: Disk, path: string, bytes: Buffer): void {
  const fd = disk.open(path, 'create')
  disk.write(fd, bytes)
  disk.close(fd)
}

function filesIn(disk: SimulatedDisk): Map<string, Buffer> {
  const view = processDisk(disk, 99)
  const files = new Map<string, Buffer>()
  for (const [path, node] of disk.listing()) {
    if (node.kind !== 'file') continue
    const fd = view.open(path, 'read')
    const bytes = Buffer.alloc(view.fstat(fd).size)
    view.read(fd, bytes, 0, bytes.length, 0)
    view.close(fd)
    files.set(path, bytes)
  }
  return files
}

async function repaired(host: Host): Promise<RepairReport> {
  const store = await open(host)
  const care = careOf(store)
  return care.repair(await care.planRepair({}), {})
}

/** Somebody else repairs it, and finds everything that can be found. */
async function assertHealable(disk: SimulatedDisk, { found, removed }: Scenario, pid: number, after: string, now = boot): Promise<void> {
  try {
    const host = simulatedHost(processDisk(disk, pid), { pid, boot: now })
    const store = await open(host)
    const care = careOf(store)
    const report = await care.repair(await care.planRepair({}), {})
    expect(report.actions.filter(({ outcome }) => outcome !== 'done')).toEqual([])
    expect((await care.verify({})).damage).toEqual([])
    expect((await care.planRepair({})).actions).toEqual([])
    const records = await store.tail('one', 100)
    expect(records.map(({ record }) => record.name)).toEqual(found)
    expect(records.map(({ seq }) => seq)).toEqual(found.map((name) => names.indexOf(name) + 1))
    expect(await store.tail('two', 10)).toHaveLength(1)
    await store.append('one', encoded('more'), {})
    const kept = [...filesIn(disk)].filter(([path]) => path.includes('/quarantine/'))
    if (removed !== '') expect(kept.some(([, bytes]) => bytes.includes(removed))).toBe(true)
    disk.exit(pid)
  } catch (error) {
    const files = [...disk.listing()].map(([path, node]) => `  ${path}${node.kind === 'file' ? ` ${node.bytes.length}` : ''}`).join('\n')
    throw new Error(`after ${after}: ${(error as Error).message}\n${files}`, { cause: error })
  }
}

const soak = process.env.HOLDFAST_SOAK !== undefined
let shift = seed

/** Every one of them takes its time: by turns, unless there is time for all. */
function someOf<T>(cuts: readonly T[]): readonly T[] {
  if (soak) return cuts
  shift++
  return cuts.filter((_, at) => (at + shift) % 3 === 0)
}

async function cutsOf(scenario: Scenario) {
  const disk = await damagedDisk(scenario)
  const recorded = recording(disk, 3)
  const report = await repaired(simulatedHost(recorded.disk, { pid: 3, boot }))
  expect(report.ok).toBe(true)
  return recorded.cuts()
}

describe.each(scenarios)('$name', (scenario) => {
  test('repaired, with the process killed after any operation: the next repair ends it', async () => {
    const cuts = await cutsOf(scenario)
    for (const cut of someOf(cuts)) {
      const left = cut.disk.clone()
      left.exit(3)
      await assertHealable(left, scenario, 4, cut.after)
    }
  })

  test('repaired, with the power cut after any operation: the next repair ends it', async () => {
    const random = seededRandom(seed)
    const cuts = await cutsOf(scenario)
    let tried = 0
    for (const cut of someOf(cuts)) {
      const { disks } = powerCuts(cut.disk, { most: soak ? 20 : 2, random, dull: (path) => path.includes('/locks') })
      for (const disk of disks) {
        await assertHealable(disk, scenario, 5, cut.after, nextBoot)
        tried++
      }
    }
    console.log(`seed ${seed}: ${scenario.name}: ${cuts.length} cuts, ${tried} disks`)
  })

  test('on a disk that is full from any write on: nothing has changed, and it says so', async () => {
    const damaged = await damagedDisk(scenario)
    const before = filesIn(damaged)
    let failed = 0
    for (let nth = 1; nth < 60; nth++) {
      const disk = damaged.clone()
      const faulty = faultyDisk(processDisk(disk, 3), { call: 'write', nth, how: 'ENOSPC', times: 1_000 })
      const host = simulatedHost(faulty.disk, { pid: 3, boot })
      const report = await repaired(host)
      if (!faulty.fired()) break
      failed++
      expect(report.actions).toMatchObject([{ outcome: 'failed', error: { code: 'DISK_FULL', effect: 'none' } }])
      const after = filesIn(disk)
      for (const [path, bytes] of before) if (!path.includes('/locks/')) expect(after.get(path)?.equals(bytes)).toBe(true)
      expect([...after.keys()].filter((path) => path.includes('/quarantine/'))).toEqual([])
      disk.exit(3)
      await assertHealable(disk, scenario, 4, `a full disk at write ${nth}`)
    }
    expect(failed).toBeGreaterThan(0)
  })
})

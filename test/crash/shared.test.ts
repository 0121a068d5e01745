/** Two processes and a power cut (P1, F27): what one has acknowledged may rest on what another wrote, and has not synced, and never will.
 *  Every order of their calls, each of them killed anywhere, and then the power goes. */
import { expect, test, vi } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { type End, explore } from '../simulation/explorer.js'
import { attempt, deedsOf } from '../simulation/ledger.js'
import type { Program, SimulatedProcess } from '../simulation/machine.js'
import { powerCuts } from '../simulation/power-cut.js'
import { processDisk } from '../simulation/process-disk.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { SimulatedDisk } from '../simulation/simulated-disk.js'
import { simulatedHost } from '../simulation/simulated-host.js'
import { encoded, increment, openStore, writeMarks } from '../simulation/store-on-disk.js'
import { assertSurvived, nextBoot } from './after-a-cut.js'

const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0
if (soak) vi.setConfig({ testTimeout: 3_600_000 })
const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9)

type Part = (store: Backend, process: SimulatedProcess) => Promise<unknown>
const append =
  (name: string): Part =>
  (store, process) =>
    attempt(process, `append shared ${name}`, () => store.append('shared', encoded(name), {}))
const count: Part = (store, process) => attempt(process, 'count shared', () => increment(store, 'shared'))
const checkpoint: Part = (store, process) => attempt(process, 'checkpoint', () => store.checkpoint())
const marks: Part = (store, process) => attempt(process, 'marks', () => writeMarks(store))
const rotate: Part = (store, process) => attempt(process, 'rotate shared', () => store.rotate('shared', 'reset', {}))
const remove: Part = (store, process) => attempt(process, 'delete shared', () => store.delete('shared', {}))

function program(...parts: Part[]): Program {
  return async (process) => {
    const store = await openStore(process.host)
    process.mark('open')
    for (const part of parts) await part(store, process)
  }
}

async function made(key?: string): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk()
  disk.mkdir(1, '/data')
  const store = await openStore(simulatedHost(processDisk(disk, 1)))
  if (key) await store.append(key, encoded('before'), {})
  await store.close()
  disk.exit(1)
  disk.settle()
  return disk
}

test.each<[name: string, key: string | undefined, programs: Program[]]>([
  ['two first appends to one key', undefined, [program(append('a')), program(append('b'))]],
  ['two appends to one session', 'shared', [program(append('a')), program(append('b'))]],
  ['an update and an append', 'shared', [program(count, append('a')), program(append('b'), count)]],
  ['an update and a checkpoint', 'shared', [program(checkpoint), program(count)]],
  ['marks and an append', 'shared', [program(append('a'), marks), program(append('b'), marks)]],
  ['a rotation and an append', 'shared', [program(rotate), program(append('a'))]],
  ['a deletion and an append', 'shared', [program(remove), program(append('a'))]],
])('%s, then a power cut: what was acknowledged is there', async (name, key, programs) => {
  const random = seededRandom(seed)
  const tried = new Set<string>()
  const check = async ({ disk, facts }: End) => {
    const before = key ? [{ process: -1, fact: `try append ${key} before` }] : []
    const cut = { after: 'the end', disk, facts: [...before, ...facts] }
    const left = powerCuts(disk, { most: soak ? 12 : 2, random, dull: (path) => path.includes('/locks') })
    for (const found of left.disks) {
      const key = `${found.key()} ${JSON.stringify(deedsOf(cut.facts))}`
      if (tried.has(key)) continue
      tried.add(key)
      await assertSurvived(cut, found, { boot: nextBoot })
    }
  }
  const bounds = { preemptions: 1, kills: 2, falseVerdicts: 1, runsMax: soak ? 20_000 : 90 }
  const coverage = await explore({ disk: await made(key), programs, prepared: true, durability: true, bounds, check })
  console.log(`seed ${seed}: ${name}: ${tried.size} disks, ${JSON.stringify(coverage)}`)
  expect(coverage.preemptionsCovered).toBeGreaterThanOrEqual(0)
})

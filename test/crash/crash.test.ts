/** Crashes at every operation (P1, P2, P4, P5; F20, F21, F23, F24, F27, F28): of the process, which leaves the page cache, and of the
 *  machine, after which what was not synced is there, gone, cut anywhere or full of holes, each name old or new. */
import { describe, expect, test, vi } from 'vitest'
import type { FileBackendOptions } from '../../src/file/backend.js'
import { powerCuts } from '../simulation/power-cut.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { SimulatedDisk } from '../simulation/simulated-disk.js'
import { simulatedHost } from '../simulation/simulated-host.js'
import { assertSurvived, nextBoot } from './after-a-cut.js'
import { type Cut, recording } from './recording.js'
import { acting, longScenario, type Scenario, shortScenarios } from './scenarios.js'

const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9)
const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0
if (soak) vi.setConfig({ testTimeout: 3_600_000 })
/** With every commit folded, much is as without: each run takes a third of the scenarios, another one as the seed has it. */
const scenariosWith = (checkpoint: 'auto' | 'always') =>
  checkpoint === 'auto' || soak ? shortScenarios : shortScenarios.filter((_, at) => at % 3 === seed % 3)
const pid = 1
const boot = 'b0000001'

/** Every point of the scenario at which it can be cut. */
async function cutsOf(scenario: Scenario, options: Partial<FileBackendOptions>): Promise<Cut[]> {
  const disk = new SimulatedDisk({ syncing: () => new Promise((resolve) => setImmediate(resolve)) })
  disk.mkdir(pid, '/data')
  disk.beginDirectorySync('/')()
  const recorded = recording(disk, pid)
  const host = simulatedHost(recorded.disk, { pid, boot })
  let from = 0
  const act = async () => acting(host, recorded, options)
  if (scenario.opened) {
    const opened = await act()
    await scenario.before?.(opened)
    disk.settle()
    await opened.count('one') // So that there is something that no sync has settled.
    from = recorded.cuts().length - 1
    await scenario.during(opened)
  } else await scenario.during(await act())
  const cuts = recorded.cuts().slice(from)
  expect(cuts.at(-1)?.facts.filter(({ fact }) => /^(not|unsure) /.test(fact))).toEqual([])
  return cuts
}

async function cutThePower(cuts: readonly Cut[], most: number, forgetful: boolean): Promise<string> {
  const random = seededRandom(seed)
  let tried = 0
  let complete = 0
  for (const cut of cuts) {
    const { all, disks } = powerCuts(cut.disk, { most, random, dull: (path) => path.includes('/locks') })
    if (all) complete++
    for (const disk of disks) await assertSurvived(cut, disk, { boot: nextBoot, forgetful })
    tried += disks.length
  }
  return `${cuts.length} cuts, ${tried} disks; at ${complete} cuts every outcome but for locks`
}

async function killTheProcess(cuts: readonly Cut[]): Promise<void> {
  for (const cut of cuts) {
    const left = cut.disk.clone()
    left.exit(pid)
    await assertSurvived(cut, left, { boot })
  }
}

describe.each(['auto', 'always'] as const)('cut short after any operation, with checkpoint %s,', (checkpoint) => {
  test.each(scenariosWith(checkpoint))('$name survives a power cut whole', async (scenario) => {
    const cuts = await cutsOf(scenario, { durability: 'power', checkpoint })
    const said = await cutThePower(cuts, soak ? 300 : checkpoint === 'auto' ? 4 : 3, false)
    console.log(`seed ${seed}: ${scenario.name}, ${checkpoint}: ${said}`)
  })

  test.each(scenariosWith(checkpoint))('$name survives the death of its process, with either durability', async (scenario) => {
    await killTheProcess(await cutsOf(scenario, { durability: 'power', checkpoint }))
    await killTheProcess(await cutsOf(scenario, { durability: 'process', checkpoint }))
  })

  test.each(scenariosWith(checkpoint))('$name with durability process leaves a sound store after a power cut', async (scenario) => {
    const cuts = await cutsOf(scenario, { durability: 'process', checkpoint })
    await cutThePower(cuts, soak ? 60 : 2, true)
  })

  test(`${longScenario.name} survive a power cut at any moment`, async () => {
    const cuts = await cutsOf(longScenario, { durability: 'power', checkpoint })
    const said = await cutThePower(cuts, soak ? 40 : 2, false)
    console.log(`seed ${seed}: ${longScenario.name}, ${checkpoint}: ${said}`)
  })

  test(`${longScenario.name} survive the death of the process at any moment`, async () => {
    await killTheProcess(await cutsOf(longScenario, { durability: 'process', checkpoint }))
  })
})

describe('a crash of those who clean up after a crash', () => {
  /** Of the scenario's cuts a few, and of what each may leave one; the recovery from it is cut after every operation in its turn. */
  test.each(shortScenarios)('$name, cut short, and the recovery cut short too: nothing is lost', async (scenario) => {
    const random = seededRandom(seed)
    const cuts = await cutsOf(scenario, { durability: 'power', checkpoint: 'auto' })
    let tried = 0
    for (let sample = 0; sample < (soak ? 40 : 1); sample++) {
      const cut = cuts[Math.floor(random() * cuts.length)]!
      const [left] = powerCuts(cut.disk, { most: 3, random }).disks.slice(-1)
      for (const again of await recoveryFrom(cut, left!)) {
        const { disks } = powerCuts(again.disk, { most: 3, random })
        await assertSurvived(again, disks[Math.floor(random() * disks.length)]!, { boot: 'b0000003' })
        tried++
      }
    }
    console.log(`seed ${seed}: ${scenario.name}: ${tried} recoveries cut short`)
  })

  async function recoveryFrom(cut: Cut, left: SimulatedDisk): Promise<Cut[]> {
    const recorded = recording(left, 2)
    for (const { fact } of cut.facts) recorded.note(fact)
    const act = await acting(simulatedHost(recorded.disk, { pid: 2, boot: nextBoot }), recorded, {})
    await act.append('one', 'r')
    await Promise.all([act.count('one'), act.append('two', 's,t')])
    await act.checkpoint()
    return recorded.cuts().map((again) => ({ ...again, after: `${cut.after}, then ${again.after}` }))
  }
})

describe('what a dead process had staged in a lock', () => {
  test.each(['a checkpoint and an update', 'making a store'])(
    '%s: is gone once somebody else has replaced a file there (F50)',
    async (name) => {
      const scenario = shortScenarios.find((short) => short.name === name)!
      for (const cut of await cutsOf(scenario, { durability: 'power', checkpoint: 'auto' })) {
        const left = cut.disk.clone()
        left.exit(pid)
        await assertSurvived(cut, left, { boot })
        const staged = [...left.listing().keys()].filter((path) => /\/locks\/metadata\/(free|held)\.[^/]*\/./.test(path))
        expect(staged, `killed after ${cut.after}`).toEqual([])
      }
    },
  )
})

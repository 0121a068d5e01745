/** A failed sync is final for the handle that saw it (P1; Rebello et al., "Can Applications Recover from fsync Failures?", USENIX
 *  ATC 2020): the kernel drops the pages and calls them written. Nobody may build on them, and nothing acknowledged may go with them. */
import { describe, expect, test } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { isStoreError } from '../../src/errors.js'
import { census } from '../simulation/census.js'
import { assertBorneOut, attempt, deedsOf } from '../simulation/ledger.js'
import { powerCuts } from '../simulation/power-cut.js'
import { processDisk } from '../simulation/process-disk.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { SimulatedDisk } from '../simulation/simulated-disk.js'
import { simulatedHost } from '../simulation/simulated-host.js'
import type { Fact } from '../simulation/state.js'
import { encoded, increment, openStore } from '../simulation/store-on-disk.js'
import { type Fault, faultyDisk } from './faulty-disk.js'

class Machine {
  readonly disk = new SimulatedDisk({ syncing: () => new Promise((resolve) => setImmediate(resolve)) })
  readonly facts: Fact[] = []

  constructor() {
    this.disk.mkdir(1, '/data')
    this.disk.settle()
  }

  open(pid: number, fault?: Fault): Promise<Backend> {
    const { disk } = faultyDisk(processDisk(this.disk, pid), fault, (fd) => this.disk.failSync(pid, fd))
    return openStore(simulatedHost(disk, { pid, alive: () => true }))
  }

  append(store: Backend, key: string, name: string) {
    return attempt(this, `append ${key} ${name}`, () => store.append(key, encoded(name), {}))
  }

  count(store: Backend, key: string) {
    return attempt(this, `count ${key}`, () => increment(store, key))
  }

  note(fact: string): void {
    this.facts.push({ process: 0, fact })
  }

  async assertNothingLost(): Promise<void> {
    const deeds = deedsOf(this.facts)
    for (const left of powerCuts(this.disk, { most: 8, random: seededRandom(7) }).disks) {
      const host = simulatedHost(processDisk(left, 9), { pid: 9, boot: 'b0000002' })
      assertBorneOut(deeds, await census(host, true), { powerCut: true })
    }
  }
}

const journal = (path: string) => path.includes('journal')
const transcript = (path: string) => path.includes('/transcripts/')

describe.each([
  ['the journal', journal],
  ['a transcript', transcript],
])('after a failed sync of %s', (_, path) => {
  async function poisoned(): Promise<{ machine: Machine; store: Backend; bystander: Backend }> {
    const machine = new Machine()
    const first = await machine.open(1)
    await machine.append(first, 'one', 'a')
    await machine.count(first, 'one')
    const bystander = await machine.open(2)
    await machine.append(bystander, 'one', 'b')
    await machine.count(bystander, 'one')
    const store = await machine.open(3, { call: 'sync', nth: 1, how: 'EIO', path })
    await Promise.all([machine.append(store, 'one', 'c'), machine.count(store, 'one')])
    expect(machine.facts.some(({ fact }) => fact.startsWith('unsure '))).toBe(true)
    return { machine, store, bystander }
  }

  test('the handle writes no more, and says so; it still reads', async () => {
    const { machine, store } = await poisoned()
    const refused = await store.append('one', encoded('d'), {}).catch((error: unknown) => error)
    expect(isStoreError(refused, 'STORE_POISONED') && refused.effect).toBe('none')
    await expect(increment(store, 'two')).rejects.toMatchObject({ code: 'STORE_POISONED', effect: 'none' })
    expect((await store.tail('one', 9)).slice(0, 2).map(({ record }) => record.name)).toEqual(['a', 'b'])
    expect(Number((await store.get('one'))?.count)).toBeGreaterThanOrEqual(2)
    await store.close()
    await machine.assertNothingLost()
  })

  test('a new handle goes on without loss, also over a power cut', async () => {
    const { machine, store } = await poisoned()
    await store.close()
    const next = await machine.open(4)
    await machine.append(next, 'one', 'd')
    await machine.count(next, 'one')
    await machine.append(next, 'two', 'e')
    expect(machine.facts.slice(-6).filter(({ fact }) => fact.startsWith('did '))).toHaveLength(3)
    await machine.assertNothingLost()
  })

  test('another process that had the file open goes on, or is told; what it acknowledges survives a power cut', async () => {
    const { machine, store, bystander } = await poisoned()
    await machine.append(bystander, 'one', 'd')
    await machine.count(bystander, 'one')
    await machine.assertNothingLost()
    await store.close()
    await machine.assertNothingLost()
  })
})

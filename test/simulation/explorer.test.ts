/** Negative controls of the explorer (F1, F2, F13): it must find the schedule that breaks a store which can be broken, and say so. */
import { describe, expect, test } from 'vitest'
import { type Bounds, type Coverage, type End, explore } from './explorer.js'
import { processDisk } from './process-disk.js'
import { SimulatedDisk } from './simulated-disk.js'
import { type Counter, emptyCounter, fencedCounter, nakedCounter, unfencedCounter } from './toy-counters.js'

function counting(counter: Counter, processes: number, bounds: Bounds): Promise<Coverage> {
  const disk = new SimulatedDisk()
  emptyCounter(processDisk(disk, 1))
  const program = async (process: Parameters<Counter>[0]) => {
    process.note('counts')
    process.note(`counted ${await counter(process)}`)
  }
  return explore({ disk, programs: Array.from({ length: processes }, () => program), bounds, check })
}

function check({ disk, facts, killed }: End): void {
  const node = disk.listing().get('/store/counter')
  const count = node?.kind === 'file' ? Number(node.bytes.toBuffer()) : Number.NaN
  const acknowledged = facts.filter(({ fact }) => fact.startsWith('counted')).length
  const most = acknowledged + killed.filter((dead, i) => dead && facts.some((f) => f.process === i)).length
  if (!(count >= acknowledged && count <= most)) throw new Error(`lost: ${count} in the file, ${acknowledged} acknowledged`)
}

describe('the explorer', () => {
  test('finds the update that two processes lose without a lock', async () => {
    await expect(counting(nakedCounter, 2, { preemptions: 0 })).resolves.toMatchObject({ complete: true })
    await expect(counting(nakedCounter, 2, { preemptions: 1 })).rejects.toThrow(/lost: 1 in the file, 2 acknowledged/)
  })

  test('finds the update that a lock without fencing loses after a takeover', async () => {
    await expect(counting(unfencedCounter, 2, { preemptions: 3, kills: 1 })).resolves.toMatchObject({ complete: true })
    await expect(counting(unfencedCounter, 2, { preemptions: 1, falseVerdicts: 1 })).rejects.toThrow(/lost: 1 in the file, 2 acknowledged/)
  })

  test('tells the schedule that broke it', async () => {
    const error = await counting(nakedCounter, 2, { preemptions: 1 }).catch((error: Error) => error)
    expect((error as Error).message).toMatch(/0: read .*\n(.*\n)*.*1: read .*\n(.*\n)*.*0: rename/)
  })

  test('finds nothing in a lock whose stage is carried off by a takeover, with three preemptions of two processes', async () => {
    const coverage = await counting(fencedCounter, 2, { preemptions: 3, kills: 1, falseVerdicts: 2 })
    console.log(coverage)
    expect(coverage.complete).toBe(true)
  })

  test('nor with one preemption of three', async () => {
    const coverage = await counting(fencedCounter, 3, { preemptions: 1, kills: 1, falseVerdicts: 1 })
    console.log(coverage)
    expect(coverage.complete).toBe(true)
  })
})

// Eight and more processes on one store, struck in every way that the field has seen. Whatever was acknowledged is there, once, in order,
// and whoever read has read the truth: each recorded history is judged twice, by the chain that the updates form and as a linearizable one.
// F1 past the limit, still writing · F2 contenders at a stale lock · F4 checkpoints among writers · F7 two containers, one pid ·
// F11 two tasks of one process · F13, F14 lost updates · F20 torn lines · F31 one key, one session
import { expect, test } from 'vitest'
import { readLedgers } from '../../src/cli/stress/ledger.js'
import { collectOperations } from '../../src/cli/stress/operations.js'
import { historiesOf, whereNotLinearizable } from './linearizability.js'
import { namespacedTrial, namespacesPermitted } from './namespaces.js'
import { fleetOptions, freshDirectory, freshSeed, jumpingClock, kept, promisesKept, type TrialOptions, trial } from './trials.js'

const timeout = 120_000

async function survives(name: string, options: TrialOptions) {
  const fleet = fleetOptions(freshDirectory(), options)
  const report = await trial(name, fleet)
  expect(promisesKept(report)).toEqual(kept)
  const histories = historiesOf(collectOperations(readLedgers([fleet.ledgerDir])))
  expect(histories.size).toBe(fleet.counters)
  for (const history of histories.values()) expect(whereNotLinearizable(history)).toBeUndefined()
  return report
}

test('writers that are killed at any moment lose nothing that was acknowledged', { timeout }, async () => {
  const { struck, counters } = await survives('SIGKILL, power', { kinds: ['kill'], durability: 'power', writers: 10, gapMs: 120 })
  expect(struck.kills).toBeGreaterThan(3)
  expect(counters.takeoversDead).toBeGreaterThan(0)
})

test('writers that are frozen past their hold and wake among others lose nothing and overwrite nothing', { timeout }, async () => {
  const { struck, counters } = await survives('SIGSTOP, process', { kinds: ['freeze'] })
  expect(struck.freezes).toBeGreaterThan(3)
  expect(counters.takeoversExpired).toBeGreaterThan(0)
})

test('writers whose event loop stalls inside a mutator lose nothing and overwrite nothing', { timeout }, async () => {
  const { struck, counters } = await survives('stalls, power', { kinds: ['stall'], durability: 'power', gapMs: 250 })
  expect(struck.stalls).toBeGreaterThan(3)
  expect(counters.takeoversExpired).toBeGreaterThan(0)
})

test('kills, freezes and stalls at once, with a checkpoint on every commit', { timeout }, async () => {
  await survives('all faults, checkpoint always, process', { kinds: ['kill', 'freeze', 'stall'], checkpoint: 'always' })
})

test('kills, freezes and stalls at once, with power-safe commits', { timeout }, async () => {
  await survives('all faults, power', { kinds: ['kill', 'freeze', 'stall'], durability: 'power' })
})

test('a lock directory removed by hand under running writers costs nobody anything', { timeout }, async () => {
  const slots = Array.from({ length: 64 }, (_, n) => `locks/transcripts/${String(n).padStart(2, '0')}`)
  const lockPaths = [...Array<string>(32).fill('locks/metadata'), ...slots]
  const { struck } = await survives('rm -rf of locks', { kinds: ['unlock', 'freeze'], gapMs: 40, lockPaths, sessions: 8 })
  expect(struck.unlocks).toBeGreaterThan(10)
})

test('worker threads beside processes, and two handles in each of them, are writers like any other', { timeout }, async () => {
  await survives('threads and handles', { kinds: ['kill', 'freeze', 'stall'], writers: 3, thread: true, handles: 2, durability: 'power' })
})

test('wall clocks that jump by hours, each on its own, neither expire nor lose anything', { timeout }, async () => {
  const { counters } = await survives('jumping clocks', { ...jumpingClock, maxHoldMs: 5_000, kinds: [] })
  // Nobody's hold was cut short: that would have made others' changes, or theirs, run again.
  expect(counters).toMatchObject({ takeoversDead: 0, reruns: 0 })
})

test.skipIf(!namespacesPermitted)('two pid namespaces on one store, with the same pids in both, lose nothing', { timeout }, async () => {
  const options = { kinds: ['kill', 'freeze', 'stall'] as const, seed: freshSeed(), gapMs: 250 }
  const report = await namespacedTrial('two pid namespaces', freshDirectory(), options)
  expect(promisesKept(report)).toEqual(kept)
  expect(report.struck.kills).toBeGreaterThan(0)
})

// A harness that has never caught anybody proves nothing. These are the usual ways to lock a session file, each done with care; the harness
// that finds nothing wrong with Holdfast must catch every one of them losing acknowledged updates, with the fault that kills it.
// F1 holders past their limit · F2 contenders that remove each other's fresh lock · F7 two containers, one pid · F14 lost updates
import { describe, expect, test } from 'vitest'
import { readLedgers } from '../../src/cli/stress/ledger.js'
import { collectOperations } from '../../src/cli/stress/operations.js'
import type { FaultKind } from '../../src/cli/stress/schedule.js'
import { historiesOf, whereNotLinearizable } from './linearizability.js'
import { namespacedTrial, namespacesPermitted } from './namespaces.js'
import { fleetOptions, freshDirectory, freshSeed, jumpingClock, soaking, type TrialOptions, trial } from './trials.js'

const triesMax = 8

interface Case {
  readonly rival: string
  readonly fault: FaultKind
  /** Found seldom, so only looked for when there is time. */
  readonly seldom?: boolean
}

const cases: Case[] = [
  { rival: 'unlink-when-stale', fault: 'kill' },
  { rival: 'unlink-when-stale', fault: 'stall', seldom: true },
  { rival: 'unlink-when-stale', fault: 'freeze', seldom: true },
  { rival: 'compare-before-unlink', fault: 'stall' },
  { rival: 'compare-before-unlink', fault: 'freeze', seldom: true },
  { rival: 'tombstone', fault: 'stall', seldom: true },
  { rival: 'tombstone', fault: 'freeze' },
  { rival: 'unfenced-baton', fault: 'stall' },
  { rival: 'unfenced-baton', fault: 'freeze', seldom: true },
  { rival: 'proper-lockfile', fault: 'stall', seldom: true },
  { rival: 'proper-lockfile', fault: 'freeze' },
]

/** Updates only: that is where they lose. */
function rivalOptions(rival: string, fault?: FaultKind): TrialOptions {
  const slow = rival === 'proper-lockfile'
  return {
    subject: `test/processes/rivals/${rival}.js`,
    mix: { update: 9, append: 0, get: 1 },
    kinds: fault ? [fault] : [],
    seconds: slow ? 5 : 2,
    // proper-lockfile allows no staleness below 2 s. Where only the dead are to be taken over, nobody else may be.
    maxHoldMs: slow ? 2_000 : fault === 'kill' ? 5_000 : 100,
    gapMs: slow ? 400 : 80,
    waitMs: slow ? 6_000 : 2_000,
  }
}

describe.each(cases.filter(({ seldom }) => soaking || !seldom))('$rival', ({ rival, fault }) => {
  test(`is caught losing acknowledged updates under ${fault}`, { timeout: 120_000 }, async () => {
    let lost = 0
    for (let n = 0; n < triesMax && lost === 0; n++) {
      const options = fleetOptions(freshDirectory(), { ...rivalOptions(rival, fault), seed: `${freshSeed()}.${n}` })
      const { analysis } = await trial(`${rival} under ${fault}`, options)
      lost = analysis?.violations.counts.lost ?? 0
      if (lost > 0) expect(notLinearizable(options.ledgerDir)).toBe(true)
    }
    expect(lost).toBeGreaterThan(0)
  })
})

/** The second judge must see it too: what an acknowledged update put and the next one did not find. */
function notLinearizable(ledgerDir: string): boolean {
  const histories = historiesOf(collectOperations(readLedgers([ledgerDir])))
  return [...histories.values()].some((history) => whereNotLinearizable(history) !== undefined)
}

test.skipIf(!namespacesPermitted)('a lock file with a pid is caught in two pid namespaces, without any fault', async () => {
  const options = { ...rivalOptions('unlink-when-stale'), seed: freshSeed() }
  const report = await namespacedTrial('unlink-when-stale in two pid namespaces', freshDirectory(), options)
  expect(report.analysis?.violations.counts.lost).toBeGreaterThan(0)
})

test('a lock file with a time of day is caught when the clock jumps, without any other fault', async () => {
  const options = fleetOptions(freshDirectory(), { ...rivalOptions('unlink-when-stale'), ...jumpingClock })
  const report = await trial('unlink-when-stale with a jumping clock', options)
  expect(report.analysis?.violations.counts.lost).toBeGreaterThan(0)
})

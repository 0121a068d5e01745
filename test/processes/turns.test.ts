/** Conversations that eight processes hold at once, killed and frozen at any moment: never two turns of one key whose records interleave,
 *  nothing acknowledged that is not there, nothing answered twice, nobody stranded. */
import { expect, test } from 'vitest'
import { longer } from './trials.js'
import { turnsTrial } from './turns-trial.js'

const seconds = 2 * longer

test('without faults: every request is served, in every way of being busy', async () => {
  // P6, F34, F35
  const report = await turnsTrial('no faults', { seconds, turns: 1_000 * longer, keys: 3, maxTurnMs: 60_000 })
  expect(report.violations).toEqual([])
  expect(report.coalesced).toBeGreaterThan(20)
  expect(report.late).toBeGreaterThan(0)
})

test('with SIGKILL at any moment: the turns of the dead are interrupted, what they were asked is served when it is asked again', async () => {
  // F6, F35, F34
  const report = await turnsTrial('killed', { seconds, turns: 600 * longer, keys: 2, maxTurnMs: 60_000, kill: true, gapMs: 250 })
  expect(report.violations).toEqual([])
  expect(report.kills).toBeGreaterThan(5)
})

test('with SIGSTOP beyond the time of a turn, and SIGKILL: who wakes too late adds nothing', async () => {
  // F1, F33
  const report = await turnsTrial('stopped and killed', {
    seconds,
    turns: 400 * longer,
    keys: 2,
    maxTurnMs: 150,
    kill: true,
    stopMs: 400,
    gapMs: 60,
  })
  expect(report.violations).toEqual([])
  expect(report.stops).toBeGreaterThan(10)
  expect(report.late).toBeGreaterThan(0)
})

test('with durability power, too', async () => {
  const report = await turnsTrial('power', {
    seconds: seconds / 2,
    turns: 100 * longer,
    keys: 2,
    maxTurnMs: 60_000,
    kill: true,
    durability: 'power',
  })
  expect(report.violations).toEqual([])
})

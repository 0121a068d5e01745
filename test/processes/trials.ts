/** The trials of `holdfast stress`, smaller and harsher: what the process tests share. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Fleet, type FleetOptions, type FleetOutcome } from '../../src/cli/stress/fleet.js'
import { type FaultKind, planFaults } from '../../src/cli/stress/schedule.js'
import { judge, type Report, readBack } from '../../src/cli/stress/trial.js'

/** Compiled by `npm test` before the tests run. */
export const compiled = new URL('../../.build/', import.meta.url)
export const holdfast = 'src/cli/stress/holdfast.js'

/** HOLDFAST_SOAK=1: the same tests, longer. */
export const soaking = process.env.HOLDFAST_SOAK === '1'
export const longer = soaking ? 10 : 1

export interface TrialOptions extends Partial<Omit<FleetOptions, 'faults' | 'subject'>> {
  /** Compiled module, from `compiled`. */
  readonly subject?: string
  readonly kinds?: readonly FaultKind[]
  /** Mean time between faults. */
  readonly gapMs?: number
}

export function freshDirectory(): string {
  const dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-processes-'))
  onTestFinished(() => fs.rmSync(dir, { recursive: true, force: true, maxRetries: 3 }))
  return dir
}

/** For trials in which the wall clock of each process jumps on its own. */
export const jumpingClock = { execArgv: ['--import', new URL('test/processes/jumping-clock.js', compiled).href] }

/** Another run, other faults: what is found once in many runs is found in the end. */
export function freshSeed(): string {
  return process.env.HOLDFAST_SEED ?? Math.floor(Math.random() * 2 ** 32).toString(16)
}

export function fleetOptions(dir: string, { subject = holdfast, kinds = [], gapMs = 150, ...options }: TrialOptions): FleetOptions {
  const base = {
    seed: freshSeed(),
    writers: 8,
    seconds: 2 * longer,
    durability: 'process' as const,
    checkpoint: 'auto' as const,
    maxHoldMs: 200,
    waitMs: 10_000,
    counters: 3,
    sessions: 3,
    loops: 3,
    handles: 1,
    mix: { update: 5, append: 4, get: 2 },
    thread: false,
    firstWriter: 0,
    programs: new URL('src/cli/stress/', compiled),
    execArgv: [],
    lockPaths: [],
    dir: join(dir, 'store'),
    ledgerDir: join(dir, 'ledgers'),
    ...options,
  }
  return { ...base, subject: new URL(subject, compiled).href, faults: planFaults({ ...base, kinds, gapMs }) }
}

/** Runs fleets side by side on one store, and says in one line what came of it. */
export async function trial(name: string, ...fleets: FleetOptions[]): Promise<Report> {
  for (const { ledgerDir } of fleets) fs.mkdirSync(ledgerDir, { recursive: true })
  return concluded(name, fleets, await Promise.all(fleets.map((options) => new Fleet(options).run())))
}

export async function concluded(name: string, fleets: readonly FleetOptions[], outcomes: readonly FleetOutcome[]): Promise<Report> {
  const [options] = fleets
  if (!options) throw new Error('no fleet')
  const ledgerDirs = fleets.map(({ ledgerDir }) => ledgerDir)
  const report = judge(options, outcomes, await readBack(options, ledgerDirs))
  console.log(summary(name, report))
  return report
}

function summary(name: string, { seed, analysis, struck, counters, commitsPerSecond, troubles }: Report): string {
  const { acknowledged, violations, errors, voidLines } = analysis ?? {}
  const broken = Object.entries(violations?.counts ?? {}).filter(([, n]) => n > 0)
  return [
    `${name}: seed ${seed}`,
    `${(acknowledged?.updates ?? 0) + (acknowledged?.appends ?? 0)} acknowledged`,
    broken.map(([kind, n]) => `${n} ${kind}`).join(' ') || 'none lost',
    `${struck.kills}/${struck.freezes}/${struck.stalls}/${struck.unlocks} kills/freezes/stalls/unlocks`,
    `${counters.takeoversDead}/${counters.takeoversExpired} takeovers dead/expired`,
    `${counters.reruns} re-runs`,
    `${voidLines} void`,
    `${Math.round(commitsPerSecond)} commits/s`,
    JSON.stringify(errors ?? {}),
    ...troubles,
  ].join(' · ')
}

/** What must be said of a store that kept its promises; compared as one value, so that a failure shows all of it. */
export function promisesKept(report: Report): unknown {
  const { analysis, troubles } = report
  return {
    violations: Object.entries(analysis?.violations.counts ?? { unread: 1 }).filter(([, n]) => n > 0),
    examples: analysis?.violations.examples,
    damage: analysis?.damage,
    alarms: analysis?.alarms,
    troubles,
  }
}

export const kept = { violations: [], examples: [], damage: [], alarms: [], troubles: [] }

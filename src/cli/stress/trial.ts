/** One whole trial: writers under load and faults, then the store read back and held against what they were told. */
import { fork } from 'node:child_process'
import fs from 'node:fs'
import type { Findings } from './analysis.js'
import type { Analysis, AnalystArgument, FromAnalyst } from './analyst.js'
import { Fleet, type FleetOptions, type FleetOutcome, type Struck } from './fleet.js'
import type { Counters } from './subject.js'

export interface Report {
  /** Nothing lost, doubled, out of order or damaged, and nothing that kept the trial from saying so. */
  readonly ok: boolean
  readonly seed: string
  readonly dir: string
  readonly writers: number
  readonly durability: string
  readonly seconds: number
  readonly struck: Struck
  readonly counters: Counters
  readonly commitsPerSecond: number
  /** Undefined when the store could not be read back; `troubles` says why. */
  readonly analysis: Analysis | undefined
  readonly troubles: readonly string[]
}

/** Runs the trial and judges it. Bounded in time, whatever the disk does. */
export async function runTrial(options: FleetOptions): Promise<Report> {
  fs.mkdirSync(options.ledgerDir, { recursive: true })
  const outcome = await new Fleet(options).run()
  return judge(options, [outcome], await readBack(options, [options.ledgerDir]))
}

export function judge(options: FleetOptions, outcomes: readonly FleetOutcome[], result: Analysis | string): Report {
  const analysis = typeof result === 'string' ? undefined : result
  const troubles = [...outcomes.flatMap((outcome) => outcome.troubles), ...(typeof result === 'string' ? [result] : [])]
  const sum = (of: (outcome: FleetOutcome) => number) => outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const { acknowledged } = analysis ?? {}
  if (acknowledged && acknowledged.updates + acknowledged.appends === 0) troubles.push('nothing at all was acknowledged')
  const seconds = Math.max(...outcomes.map(({ ranMs }) => ranMs)) / 1_000
  const commits = sum(({ counters }) => counters.commits)
  return {
    ok: analysis !== undefined && troubles.length === 0 && isSound(analysis) && analysis.damage.length === 0,
    seed: options.seed,
    dir: options.dir,
    writers: options.writers * outcomes.length,
    durability: options.durability,
    seconds,
    struck: {
      kills: sum(({ struck }) => struck.kills),
      freezes: sum(({ struck }) => struck.freezes),
      stalls: sum(({ struck }) => struck.stalls),
      unlocks: sum(({ struck }) => struck.unlocks),
    },
    counters: {
      commits,
      reruns: sum(({ counters }) => counters.reruns),
      takeoversDead: sum(({ counters }) => counters.takeoversDead),
      takeoversExpired: sum(({ counters }) => counters.takeoversExpired),
    },
    commitsPerSecond: commits / seconds,
    analysis,
    troubles,
  }
}

function isSound({ violations, alarms }: Findings): boolean {
  return alarms.length === 0 && Object.values(violations.counts).every((count) => count === 0)
}

/** @returns a sentence when it could not be done in time */
export function readBack(options: FleetOptions, ledgerDirs: readonly string[]): Promise<Analysis | string> {
  const { subject, dir, durability, checkpoint, maxHoldMs, waitMs, programs, execArgv } = options
  const argument: AnalystArgument = { subject, dir, ledgerDirs, durability, checkpoint, maxHoldMs, waitMs }
  const readMsMax = 60_000 + 4_000 * options.seconds
  return new Promise((resolve) => {
    const child = fork(new URL('analyst.js', programs), [JSON.stringify(argument)], {
      execArgv: [...execArgv],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    const timer = setTimeout(() => finish(`the store could not be read back within ${readMsMax / 1_000} s`), readMsMax)
    const finish = (result: Analysis | string) => {
      clearTimeout(timer)
      child.kill('SIGKILL')
      child.unref()
      resolve(result)
    }
    child.on('message', (message: FromAnalyst) =>
      finish(message.is === 'analysis' ? message.analysis : `the store could not be read back: ${message.message}`),
    )
    child.on('error', (error) => finish(`the store could not be read back: ${error.message}`))
    child.on('exit', (code, signal) =>
      finish(`the store could not be read back: the reading process ended by ${signal ?? `exit code ${code}`}`),
    )
  })
}

/** Two containers on one volume: two pid namespaces, in each a fleet of its own, whose processes have the same small pids. */
import { execFile, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { FleetOptions, FleetOutcome } from '../../src/cli/stress/fleet.js'
import type { Report } from '../../src/cli/stress/trial.js'
import { compiled, concluded, fleetOptions, type TrialOptions } from './trials.js'

const unshare = ['--pid', '--fork', '--mount-proc', '--kill-child']

export const namespacesPermitted = process.platform === 'linux' && spawnSync('unshare', [...unshare, 'true']).status === 0

export async function namespacedTrial(name: string, dir: string, options: TrialOptions): Promise<Report> {
  const half = { writers: 4, ...options }
  const fleets = [0, 1].map((n) =>
    fleetOptions(dir, { ...half, firstWriter: n * half.writers, ledgerDir: join(dir, `ledgers-${n}`), seed: `${options.seed}.${n}` }),
  )
  return concluded(name, fleets, await Promise.all(fleets.map(runInNamespace)))
}

async function runInNamespace(options: FleetOptions): Promise<FleetOutcome> {
  const program = fileURLToPath(new URL('test/processes/fleet-program.js', compiled))
  const timeout = (options.seconds + 60) * 1_000
  const { stdout } = await promisify(execFile)('unshare', [...unshare, process.execPath, program, JSON.stringify(options)], { timeout })
  return JSON.parse(stdout) as FleetOutcome
}

/** `npm run bench`: every workload, one after another, against its floor and its peers in the same run.
 *  A missed requirement is said, not thrown: the exit code is 0 unless a workload breaks, or `--strict` is given. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { compareDir } from './compare/peer.js'
import { peers } from './compare/peers.js'
import { describeMachine } from './harness/machine.js'
import { othersText, watchOthers } from './harness/others.js'
import { machineText, resultText, stateOf, verdictText } from './harness/report.js'
import type { Bench, Result, Workload } from './harness/workload.js'
import { workloads } from './workloads.js'

const usage = `npm run bench -- [--only NAME[,NAME]] [--quick] [--json] [--strict] [--peers] [--dir DIR]

  --only NAME   these workloads: ${workloads.map(({ name }) => name).join(', ')}
  --quick       fewer and shorter rounds; for a look, not for a quotation
  --json        the results as one JSON document on stdout
  --strict      exit 1 when a requirement is missed
  --peers       install the peers first (npm ci --prefix bench/compare)
  --dir DIR     where the stores are made (default: the system's temporary directory; a tmpfs makes syncs free, and the numbers worthless)`

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    strict: { type: 'boolean', default: false },
    peers: { type: 'boolean', default: false },
    dir: { type: 'string', default: tmpdir() },
    help: { type: 'boolean', default: false },
  },
})

function say(text: string): void {
  if (!options.json) process.stdout.write(`${text}\n`)
}

function chosen(): Workload[] {
  if (options.only === undefined) return [...workloads]
  return options.only.split(',').map((name) => {
    const found = workloads.find((workload) => workload.name === name)
    if (!found) throw new Error(`no workload is called ${name}; there are ${workloads.map((one) => one.name).join(', ')}`)
    return found
  })
}

function benchFor(root: string, workload: Workload): Bench {
  const dir = join(root, workload.name)
  mkdirSync(dir)
  const present = peers.filter((peer) => peer.missing() === undefined)
  return {
    dir,
    quick: options.quick,
    rounds: options.quick ? 3 : 9,
    sliceMs: options.quick ? 60 : 200,
    peers: present,
    named: (...names) => names.flatMap((name) => present.filter((peer) => peer.name === name)),
    note: say,
  }
}

async function main(): Promise<number> {
  if (options.help) {
    process.stdout.write(`${usage}\n`)
    return 0
  }
  if (options.peers) execFileSync('npm', ['ci', '--prefix', compareDir], { stdio: ['ignore', 'inherit', 'inherit'] })
  setFlagsFromString('--expose-gc')
  globalThis.gc = runInNewContext('gc') as NodeJS.GCFunction

  const list = chosen()
  const root = mkdtempSync(join(options.dir, 'holdfast-bench-'))
  const machine = describeMachine(root)
  say(machineText(machine))
  for (const reason of new Set(peers.map((peer) => peer.missing()).filter((why) => why !== undefined))) say(`left out     ${reason}`)
  const results: { workload: Workload; result: Result; seconds: number; others: number | undefined }[] = []
  try {
    for (const workload of list) {
      const startedMs = performance.now()
      const bench = benchFor(root, workload)
      const othersShare = watchOthers()
      const result = await workload.run(bench)
      const others = othersShare()
      rmSync(bench.dir, { recursive: true, force: true })
      const seconds = (performance.now() - startedMs) / 1000
      results.push({ workload, result, seconds, others })
      say(`${resultText(workload, result)}\n  (${seconds.toFixed(1)} s${othersText(others)})`)
    }
  } finally {
    rmSync(root, { recursive: true, force: true })
  }

  const missed = results.flatMap(({ workload, result }) =>
    result.verdicts.filter((one) => !one.ok && !one.optional).map((verdict) => ({ workload, verdict })),
  )
  const asked = results.flatMap(({ result }) => result.verdicts.filter((one) => !one.optional)).length
  say(`\n${asked - missed.length} of ${asked} requirements reached.`)
  for (const { workload, verdict } of missed) say(verdictText(workload.name, verdict))
  if (options.json) {
    const document = results.map(({ workload, result, seconds, others }) => ({
      workload: workload.name,
      title: workload.title,
      seconds,
      othersShare: others,
      rows: result.rows,
      verdicts: result.verdicts.map((verdict) => ({ ...verdict, state: stateOf(verdict).trim() })),
    }))
    process.stdout.write(`${JSON.stringify({ machine, results: document, missed: missed.length }, undefined, 2)}\n`)
  }
  return options.strict && missed.length > 0 ? 1 : 0
}

process.exitCode = await main()

/** `holdfast stress`: is this store safe on this disk? To a session store what fio is to a disk. */
import fs from 'node:fs'
import os from 'node:os'
import { join, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { Durability } from '../../types.js'
import { onCtrlC } from '../ctrl-c.js'
import { CommandError, exitCodes } from '../exit.js'
import { wholeNumber } from '../options.js'
import { count, printJson, remark } from '../output.js'
import type { FleetOptions } from './fleet.js'
import { readTranscript } from './records.js'
import { printReport, progressLine } from './report.js'
import { planFaults } from './schedule.js'
import { type Report, runTrial } from './trial.js'

interface StressOptions {
  readonly dir: string
  readonly writers: number
  readonly seconds: number
  readonly seed: string
  readonly input?: string
  readonly durability: Durability
  readonly chaos: boolean
  readonly maxHoldMs: number
  readonly json: boolean
}

/** A disk that does not answer a directory's creation or removal in this time does not answer. */
const diskMsMax = 10_000
const faultGapMs = 300

export function stressCommand(): Command {
  return new Command('stress')
    .description('Put a new store under load and faults, then count what was lost; changes nothing but what it makes')
    .option('--dir <dir>', 'where to make the store: the disk on trial', '.')
    .option('--writers <n>', 'writing processes', wholeNumber(1, 256), 8)
    .option('--seconds <n>', 'how long', wholeNumber(1, 86_400), 15)
    .addOption(new Option('--seed <text>', 'of an earlier run: the same faults again').argParser(seedText).default(freshSeed(), 'fresh'))
    .option('--input <file>', 'a JSONL transcript whose lines are the records to append; made ones without')
    .addOption(new Option('--durability <kind>', 'what an acknowledgement promises').choices(['power', 'process']).default('power'))
    .option('--no-chaos', 'load only: nobody is killed, frozen or stalled')
    .option('--max-hold-ms <n>', "the store's lock.maxHoldMs; freezes and stalls go past it", wholeNumber(10, 60_000), 400)
    .option('--json', 'the report as one JSON value', false)
    .addHelpText('after', help)
    .action(stress)
}

const help = `
Makes a new store in a directory of its own below DIR. Writers update shared entries and append to shared and own sessions; meanwhile they
are killed (SIGKILL), frozen (SIGSTOP) and stalled inside a mutator, both for longer than a lock may be held. What each was told is written
to $TMPDIR, and is held against the store in the end. Both are removed when all is well, kept and named when not.

Examples:
  $ holdfast stress
  $ holdfast stress --dir /mnt/nfs/sessions --seconds 60
  $ holdfast stress --input session.jsonl --durability process --json | jq .analysis.violations.counts
  $ holdfast stress --seed 1f3a --writers 16

Exit codes: 0 nothing lost, doubled, out of order or damaged · 1 something was, or the trial could not tell · 2 wrong use · 130 interrupted
`

function freshSeed(): string {
  return Math.floor(Math.random() * 2 ** 32).toString(16)
}

function seedText(text: string): string {
  if (!/^[\w.-]{1,64}$/.test(text)) throw new InvalidArgumentError('It must be 1 to 64 letters, digits, dots or dashes.')
  return text
}

async function stress(options: StressOptions): Promise<void> {
  const input = options.input === undefined ? undefined : checkedInput(options.input)
  const place = await makePlace(options.dir)
  const interrupt = onCtrlC()
  const line = progressLine(options.seconds)
  let report: Report
  try {
    report = await runTrial({ ...fleetOptions(options, place, input), signal: interrupt.signal, onProgress: line.at })
  } finally {
    line.stop()
    interrupt.release()
  }
  const interrupted = interrupt.signal.aborted
  process.exitCode = interrupted ? exitCodes.interrupted : report.ok ? exitCodes.ok : exitCodes.found
  const removed = report.ok && (await removePlace(place))
  await (options.json ? printJson({ ...report, interrupted, kept: removed ? [] : Object.values(place) }) : printReport(report))
  if (!removed) remark(`Kept: the store in ${report.dir}, what the writers were told in ${place.ledgerDir}`)
}

function fleetOptions(options: StressOptions, place: Place, input: string | undefined): FleetOptions {
  const { seed, seconds, writers, durability, maxHoldMs } = options
  return {
    seed,
    seconds,
    writers,
    durability,
    maxHoldMs,
    input,
    checkpoint: 'auto',
    // Nobody may give up only because the others are frozen one after another.
    waitMs: Math.max(10_000, 25 * maxHoldMs),
    faults: options.chaos ? planFaults({ seed, seconds, writers, maxHoldMs, kinds: ['kill', 'freeze', 'stall'], gapMs: faultGapMs }) : [],
    subject: new URL('holdfast.js', import.meta.url).href,
    dir: join(place.root, 'store'),
    ledgerDir: place.ledgerDir,
    counters: 4,
    sessions: 3,
    loops: 3,
    handles: 1,
    mix: { update: 5, append: 5, get: 1 },
    thread: false,
    firstWriter: 0,
    programs: new URL('.', import.meta.url),
    execArgv: [],
    lockPaths: [],
  }
}

function checkedInput(file: string): string {
  const path = resolve(file)
  try {
    const { leftOut } = readTranscript(path)
    if (leftOut > 0) remark(`${count(leftOut, 'line')} of ${path} left out: longer than 1 MiB`)
    return path
  } catch (error) {
    throw new CommandError(
      exitCodes.usage,
      `${path} cannot be used as --input: ${(error as Error).message}.`,
      'It must be a file of JSON objects, one a line.',
    )
  }
}

interface Place {
  readonly root: string
  readonly ledgerDir: string
}

async function makePlace(dir: string): Promise<Place> {
  const parent = resolve(dir)
  try {
    const made = fs.promises.mkdir(parent, { recursive: true }).then(() => fs.promises.mkdtemp(join(parent, 'holdfast-stress-')))
    const root = await within(made, 'did not answer')
    return { root, ledgerDir: fs.mkdtempSync(join(os.tmpdir(), 'holdfast-stress-ledgers-')) }
  } catch (error) {
    throw new CommandError(
      exitCodes.usage,
      `No store can be made in ${parent}: ${(error as Error).message}.`,
      'Name a writable directory with --dir.',
    )
  }
}

async function removePlace({ root, ledgerDir }: Place): Promise<boolean> {
  try {
    await within(Promise.all([root, ledgerDir].map((path) => fs.promises.rm(path, { recursive: true, force: true }))), 'did not answer')
    return true
  } catch (error) {
    remark(`holdfast: ${root} could not be removed: ${(error as Error).message}`)
    return false
  }
}

/** A call into a disk that hangs cannot be taken back; we can only stop waiting for it, and must then not wait for it at the exit either. */
async function within<T>(work: Promise<T>, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      setTimeout(() => process.exit(), 1_000).unref()
      reject(new Error(`the disk ${otherwise} within ${diskMsMax / 1_000} s`))
    }, diskMsMax)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

/** `holdfast repair`: what is to be done about damage, shown; with `--apply`, done. Works on stores that cannot be opened. */
import fs from 'node:fs'
import type { Command } from 'commander'
import type { ActionReport, RepairAction, RepairPlan, RepairReport } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { CommandError, exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, withStoreToRepair } from './options.js'
import { bytesText, count, paint, plain, print, printJson } from './output.js'
import { progressBar } from './progress.js'

interface Options extends CommonOptions {
  readonly apply?: boolean
  readonly only?: readonly string[]
  readonly plan?: string
}

export function repairCommand(): Command {
  return storeCommand('repair', 'Show what would be done about damage; with --apply, do it', [
    'holdfast repair',
    'holdfast repair --apply',
    'holdfast repair --json > plan.json',
    'holdfast repair --apply --plan plan.json --only rewrite-log',
  ])
    .option('--apply', 'do what the plan lists; without it nothing is changed')
    .option('--only <what...>', 'leave out every action but those of these files or kinds, such as rewrite-log')
    .option('--plan <file>', 'a plan that was made before (--json), instead of one made now')
    .addHelpText(
      'after',
      `
Every byte that is removed goes to quarantine/ first. What has changed since the plan was made is left alone, and said.
Exit code 0 says that there is nothing to do, or that all was done; 1 that there is something to do, that an action was refused or
has failed, or that nothing can be done about some damage.`,
    )
    .action(repair)
}

async function repair({ store: dir, json, apply, only, plan: file }: Options): Promise<void> {
  const interrupt = onCtrlC()
  const bar = progressBar('repair')
  const working = { signal: interrupt.signal, onProgress: (done: number, total: number) => bar.at(done, total) }
  try {
    await withStoreToRepair(dir, { readOnly: apply !== true }, async (store) => {
      const whole = file === undefined ? await store.planRepair(working) : readPlan(file)
      const plan = only ? { ...whole, actions: whole.actions.filter((action) => isOf(action, whole, only)) } : whole
      if (!apply) {
        bar.stop()
        process.exitCode = isInOrder(plan) ? exitCodes.ok : exitCodes.found
        return json ? printJson(plan) : printPlan(plan)
      }
      const report = await store.repair(plan, working)
      bar.stop()
      process.exitCode = report.ok && beyondRepair(plan).length === 0 ? exitCodes.ok : exitCodes.found
      return json ? printJson({ ...report, plan }) : printReport(plan, report)
    })
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}

function readPlan(file: string): RepairPlan {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as RepairPlan
  } catch (error) {
    throw new CommandError(
      exitCodes.usage,
      `${file} cannot be read as a plan: ${(error as Error).message}.`,
      '`holdfast repair --json > FILE` makes one.',
    )
  }
}

/** By file, by what is done, or by what was found there. */
function isOf({ file, kind }: RepairAction, { findings }: RepairPlan, only: readonly string[]): boolean {
  return only.some((what) => what === file || what === kind || findings.some((it) => it.file === file && it.kind === what))
}

/** Damage that no action answers. */
function beyondRepair({ findings }: RepairPlan): RepairPlan['findings'] {
  return findings.filter(({ severity, repairable }) => severity === 'damage' && !repairable)
}

function isInOrder(plan: RepairPlan): boolean {
  return plan.actions.length === 0 && beyondRepair(plan).length === 0
}

async function printPlan(plan: RepairPlan): Promise<void> {
  for (const action of plan.actions) await printAction(action)
  await printBeyond(plan)
  if (isInOrder(plan)) return print(`${paint('green', 'ok')}\tnothing to repair`)
  if (plan.actions.length > 0)
    await print(`${paint('yellow', 'plan')}\t${count(plan.actions.length, 'action')}; nothing has been changed. --apply does it.`)
}

async function printAction({ id, kind, file, key, does, recovers, loses, quarantines }: RepairAction): Promise<void> {
  await print(`${id}\t${paint('bold', kind)}\t${plain(file)}${key === undefined ? '' : `\t${plain(key)}`}`)
  await print(`\t${plain(does)}`)
  for (const note of recovers.notes) await print(`\t${plain(note)}`)
  const seqs = loses.seqs.map(({ from, to }) => (from === to ? String(from) : `${from}-${to}`))
  const records = loses.seqs.reduce((sum, { from, to }) => sum + to - from + 1, 0)
  if (records > 0) await print(`\t${paint('red', 'lost')}\t${count(records, 'record')}: seq ${seqs.join(', ')}`)
  for (const lost of loses.keys) await print(`\t${paint('red', 'lost')}\tthe entry of ${plain(lost)}`)
  for (const note of loses.notes) await print(`\t${paint('red', 'lost')}\t${plain(note)}`)
  for (const { file: from, bytes } of quarantines) await print(`\tto quarantine\t${bytesText(bytes)} of ${plain(from)}`)
}

async function printBeyond(plan: RepairPlan): Promise<void> {
  for (const { file, meaning } of beyondRepair(plan)) await print(`${paint('red', 'beyond repair')}\t${plain(file)}\t${plain(meaning)}`)
}

async function printReport(plan: RepairPlan, report: RepairReport): Promise<void> {
  for (const done of report.actions) {
    const action = plan.actions.find(({ id }) => id === done.id)
    if (done.outcome === 'done' && action) await printAction(action)
    await print(outcomeLine(done))
  }
  await printBeyond(plan)
  const done = report.actions.filter(({ outcome }) => outcome === 'done').length
  const summary = report.actions.length === 0 ? 'nothing to repair' : `${done} of ${count(report.actions.length, 'action')} done`
  await print(`${report.ok ? paint('green', 'ok') : paint('red', 'not all')}\t${summary}`)
}

function outcomeLine({ id, outcome, file, quarantine, error }: ActionReport): string {
  if (outcome === 'done')
    return `${id}\t${paint('green', 'done')}\t${plain(file)}${quarantine ? `\tremoved bytes: ${plain(quarantine)}` : ''}`
  return `${id}\t${paint('red', outcome)}\t${plain(file)}\t${plain(error?.message ?? '')}`
}

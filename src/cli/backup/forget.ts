/** `holdfast backup forget` and `prune`. */
import type { Command } from 'commander'
import type { ForgetReport, PruneReport } from '../../backup/index.js'
import { onCtrlC } from '../ctrl-c.js'
import { wholeNumber } from '../options.js'
import { bytesText, count, durationText, moment, paint, plain, print, printJson } from '../output.js'
import { duration, type TargetOptions, targetCommand, withRepository } from './target.js'

export interface PolicyOptions {
  readonly keepLast?: number
  readonly keepDaily?: number
  readonly keepWeekly?: number
  readonly keepMonthly?: number
  readonly keepDamaged?: number
}

interface ForgetOptions extends TargetOptions, PolicyOptions {
  readonly dryRun?: boolean
  readonly storeId?: string
}

/** What `forget` and `watch` share. */
export function policyOptions(command: Command): Command {
  const keep = wholeNumber(0, 100_000)
  return command
    .option('--keep-last <n>', 'the newest so many; 30 when no rule is named', keep)
    .option('--keep-daily <n>', 'the newest one of each of the last so many days', keep)
    .option('--keep-weekly <n>', 'the same for weeks', keep)
    .option('--keep-monthly <n>', 'the same for months', keep)
    .option('--keep-damaged <n>', 'snapshots of damaged data, which are counted apart; default 30', keep)
}

export function policyOf({ keepLast, keepDaily, keepWeekly, keepMonthly, keepDamaged }: PolicyOptions) {
  return { keepLast, keepDaily, keepWeekly, keepMonthly, keepDamaged }
}

export function forgetCommand(): Command {
  return policyOptions(
    targetCommand('forget', 'Let go of old snapshots; what only they needed goes with the next prune', [
      'holdfast backup forget --to /mnt/backup/agent --keep-last 48 --keep-daily 30 --keep-monthly 12',
      'holdfast backup forget --to /mnt/backup/agent --keep-last 30 --dry-run',
    ]),
  )
    .option('--store-id <id>', 'only snapshots of this store')
    .option('--dry-run', 'say what would be done; do nothing')
    .action(forget)
}

async function forget(options: ForgetOptions): Promise<void> {
  const policy = { ...policyOf(options), storeId: options.storeId }
  const report = await withRepository(options, undefined, (repository) => repository.forget(policy, { dryRun: options.dryRun }))
  await (options.json ? printJson(report) : printForgotten(report))
}

async function printForgotten({ dryRun, kept, removed }: ForgetReport): Promise<void> {
  for (const { snapshot, because } of kept)
    await print(`keep\t${plain(snapshot.id)}\t${moment(snapshot.time)}\t${plain(because.join(', '))}`)
  for (const { id, time } of removed) await print(`${dryRun ? 'would forget' : 'forgotten'}\t${plain(id)}\t${moment(time)}`)
  await print(
    `${paint('green', 'ok')}\t${count(kept.length, 'snapshot')} kept, ${removed.length} ${dryRun ? 'would be forgotten' : 'forgotten'}`,
  )
}

interface PruneOptions extends TargetOptions {
  readonly dryRun?: boolean
  readonly stale?: number
}

export function pruneCommand(): Command {
  return targetCommand('prune', 'Remove what no snapshot names, and nothing that a running backup may be about to name', [
    'holdfast backup prune --to /mnt/backup/agent',
    'holdfast backup prune --to /mnt/backup/agent --dry-run',
  ])
    .option('--stale <time>', 'a backup that has not been heard of for so long has died; default 24h', duration)
    .option('--dry-run', 'say what would be done; do nothing')
    .action(prune)
}

async function prune(options: PruneOptions): Promise<void> {
  const interrupt = onCtrlC()
  try {
    const { dryRun, stale: staleMs } = options
    const report = await withRepository(options, interrupt.signal, (repository) =>
      repository.prune({ dryRun, staleMs, signal: interrupt.signal }),
    )
    await (options.json ? printJson(report) : printPruned(report, staleMs))
  } finally {
    interrupt.release()
  }
}

async function printPruned(report: PruneReport, staleMs: number | undefined): Promise<void> {
  const { dryRun, packsRemoved, packsRepacked, bytesRemoved, packsWaiting, running, givenUp, bytesStored } = report
  for (const id of running) await print(`running\t${plain(id)}`)
  for (const id of givenUp) await print(`given up\t${plain(id)}\tnot heard of for ${durationText(staleMs ?? 86_400_000)}`)
  if (packsWaiting > 0) await print(`waiting\t${count(packsWaiting, 'pack')}: a running backup may still name them`)
  const would = dryRun ? 'would be ' : ''
  await print(
    `${paint('green', 'ok')}\t${count(packsRemoved, 'pack')} ${would}removed, ${packsRepacked} ${would}written anew: ${bytesText(bytesRemoved)} free, ${bytesText(bytesStored)} stored`,
  )
}

/** `holdfast backup watch` and `status`. */
import { type Command, Option } from 'commander'
import type { BackupReport, StatusVerdict, WatchStatus } from '../../backup/index.js'
import { isStoreError } from '../../errors.js'
import { onCtrlC } from '../ctrl-c.js'
import { CommandError, exitCodes } from '../exit.js'
import { durationText, moment, paint, plain, print, printJson, remark } from '../output.js'
import { backupOptions, type CreateOptions, printReport, sourceOptions } from './create.js'
import { creation } from './creation.js'
import { type PolicyOptions, policyOf, policyOptions } from './forget.js'
import { backups, duration, encryptionOf, locationOf, stepBack, type TargetOptions, targetCommand, withRepository } from './target.js'

interface WatchOptions extends CreateOptions, PolicyOptions {
  readonly every: number
  readonly status?: string
  readonly init?: boolean
}

export function watchCommand(): Command {
  return policyOptions(
    sourceOptions(
      targetCommand('watch', 'Take a snapshot every so often, for as long as it runs', [
        'holdfast backup watch --every 1h --to /mnt/backup/agent --status /var/lib/holdfast/backup.json',
        'holdfast backup watch --every 15m --to s3://bucket/agent --key-file /etc/holdfast/backup.key --keep-last 96 --keep-daily 30',
      ]),
    ),
  )
    .addOption(new Option('--every <time>', 'how often, such as 15m, 1h or 1d').argParser(duration).default(3_600_000, '1h'))
    .option('--status <file>', 'where to keep the status that `holdfast backup status` reads')
    .option('--init', 'make the repository where nothing is; without it, a disk that is not mounted is an error')
    .addHelpText(
      'after',
      `
A target that does not answer costs a backup, not the watch: it is tried again after 5 s, 10 s, 20 s…, at most --every. With a --keep-…
option, old snapshots are forgotten and pruned after each backup. The first Ctrl-C waits for nothing but the backup under way to let go.`,
    )
    .action(watch)
}

async function watch(options: WatchOptions): Promise<void> {
  stepBack()
  const { openOrCreateRepository, openRepository, watchBackups } = await backups()
  const interrupt = onCtrlC()
  const location = locationOf(options.to)
  const { encryption, onCreated } = options.init ? creation(options) : { encryption: encryptionOf(options), onCreated: undefined }
  // Once: later on, a place that is empty is one that has lost its disk.
  let mayCreate = options.init === true
  const policy = policyOf(options)
  const keeps = Object.values(policy).some((n) => n !== undefined)
  try {
    await watchBackups({
      ...backupOptions(options),
      open: async (signal) => {
        const repository = await (mayCreate ? openOrCreateRepository : openRepository)(location, { encryption, onCreated, signal })
        mayCreate = false
        return repository
      },
      target: options.to,
      everyMs: options.every,
      status: options.status,
      signal: interrupt.signal,
      onBackup: (outcome) => void tell(outcome, options.json),
      afterwards: keeps
        ? async (repository) => {
            await repository.forget(policy, { signal: interrupt.signal })
            await repository.prune({ signal: interrupt.signal })
          }
        : undefined,
    })
    process.exitCode = exitCodes.interrupted
  } finally {
    interrupt.release()
  }
}

async function tell(outcome: BackupReport | Error, json: boolean | undefined): Promise<void> {
  if (!(outcome instanceof Error)) return json ? printJson(outcome) : printReport(outcome)
  const code = isStoreError(outcome) ? outcome.code : outcome.name
  return json ? printJson({ error: { code, message: outcome.message } }) : remark(`holdfast: no backup: ${plain(outcome.message)}`)
}

interface StatusOptions extends Partial<TargetOptions> {
  readonly every: number | undefined
  readonly status?: string
  readonly storeId?: string
}

export function statusCommand(): Command {
  const command = targetCommand('status', 'Whether there is a good snapshot that is young enough; exit code 1 when not', [
    'holdfast backup status --status /var/lib/holdfast/backup.json || notify-send "backup of the agent is overdue or damaged"',
    'holdfast backup status --to /mnt/backup/agent --every 1h',
  ])
  for (const option of command.options) if (option.long === '--to') option.makeOptionMandatory(false)
  return command
    .option('--status <file>', 'what a watch has written; without it the target is asked')
    .option('--every <time>', 'how often a snapshot is wanted; default what the watch was told, else 1h', duration)
    .option('--store-id <id>', 'only snapshots of this store; default the one backed up last')
    .action(status)
}

async function status(options: StatusOptions): Promise<void> {
  const { seen, verdict } = options.status === undefined ? await askTarget(options) : await readFile(options.status, options.every)
  process.exitCode = verdict.ok ? exitCodes.ok : exitCodes.found
  if (options.json) return printJson({ ...verdict, status: seen ?? null })
  for (const reason of verdict.reasons) await print(`${paint('red', verdict.damaged ? 'damage' : 'overdue')}\t${plain(reason)}`)
  if (seen?.failure)
    await print(`${paint('yellow', 'failure')}\t${moment(seen.failure.at)}, ${seen.failure.times} times: ${plain(seen.failure.message)}`)
  const age = verdict.ageMs === undefined ? 'there is no good snapshot' : `the last good snapshot is ${durationText(verdict.ageMs)} old`
  await print(`${verdict.ok ? paint('green', 'ok') : paint('red', 'look')}\t${age}`)
}

interface Seen {
  readonly seen: WatchStatus | undefined
  readonly verdict: StatusVerdict
}

async function readFile(file: string, every: number | undefined): Promise<Seen> {
  const { judgeStatus, readStatus } = await backups()
  const seen = readStatus(file)
  return { seen, verdict: judgeStatus({ last: seen.last, lastGoodAt: seen.lastGood?.at }, every ?? seen.everyMs, Date.now()) }
}

async function askTarget(options: StatusOptions): Promise<Seen> {
  const { to, every = 3_600_000, storeId } = options
  if (to === undefined) throw new CommandError(exitCodes.usage, 'Neither --status nor --to says where to look.', 'Name one of them.')
  const { judgeSnapshots } = await backups()
  const snapshots = await withRepository({ ...options, to }, undefined, (repository) => repository.snapshots())
  const wanted = storeId ?? snapshots[0]?.storeId
  return {
    seen: undefined,
    verdict: judgeSnapshots(
      snapshots.filter((info) => info.storeId === wanted),
      every,
      Date.now(),
    ),
  }
}

/** `holdfast backup init` and `create`. */
import { type Command, Option } from 'commander'
import type { BackupReport } from '../../backup/index.js'
import { writeWholeFile } from '../../file/durable.js'
import { onCtrlC } from '../ctrl-c.js'
import { CommandError, exitCodes } from '../exit.js'
import { wholeNumber } from '../options.js'
import { bytesText, count, durationText, paint, plain, print, printJson, remark } from '../output.js'
import { progressBar } from '../progress.js'
import { creation } from './creation.js'
import { printFindings } from './findings.js'
import { backups, collect, directoriesOf, encryptionOf, locationOf, stepBack, type TargetOptions, targetCommand } from './target.js'

interface InitOptions extends TargetOptions {
  readonly recipient?: readonly string[]
  readonly encryption: boolean
}

export function initCommand(): Command {
  return targetCommand('init', 'Make a repository where there is none', [
    'holdfast backup init --to /mnt/backup/agent --recipient age1… --key-file /etc/holdfast/backup.key',
    'holdfast backup init --to s3://bucket/agent?endpoint=https://ACCOUNT.r2.cloudflarestorage.com --passphrase-file ~/.backup-passphrase',
    'holdfast backup init --to /mnt/backup/agent --no-encryption',
  ])
    .option('--recipient <key>', 'an age public key (age1…) that may read; may be repeated', collect)
    .option('--no-encryption', 'contents and names are readable by whoever can read the target')
    .addHelpText(
      'after',
      `
With --recipient or a passphrase, --key-file names the file that the key for adding is written to (mode 0600): the machine that backs up needs
no other, and cannot read what it has backed up. Keep the secret key or the passphrase elsewhere: without it nothing can be restored.`,
    )
    .action(init)
}

async function init(options: InitOptions): Promise<void> {
  const { keyFile, recipient: recipients = [], ...rest } = options
  const keys = { ...encryptionOf(rest), ...(recipients.length > 0 && { recipients }) }
  const encrypted = Object.keys(keys).length > 0
  if (!encrypted && options.encryption)
    throw new CommandError(
      exitCodes.usage,
      'Nothing says how the repository is to be encrypted.',
      'Name --recipient KEY or --passphrase-file FILE; or say --no-encryption.',
    )
  const { createRepository } = await backups()
  const { repository, key } = await createRepository(locationOf(options.to), encrypted ? { encryption: keys } : {})
  await repository.close()
  if (key !== undefined && keyFile !== undefined) await writeWholeFile(keyFile, Buffer.from(key))
  else if (key !== undefined) remark('No --key-file was named: machines that back up need the passphrase or an identity.')
  await (options.json
    ? printJson({ repository: repository.id, encrypted, keyFile: key === undefined ? null : (keyFile ?? null) })
    : print(`${paint('green', 'ok')}\trepository ${repository.id}${encrypted ? ', encrypted' : ', not encrypted'}`))
}

export interface CreateOptions extends TargetOptions {
  readonly recipient?: readonly string[]
  readonly store: string
  readonly include?: readonly string[]
  readonly full?: boolean
  readonly rereadIn: number
  readonly accept?: boolean
  readonly host?: string
}

/** What `create` and `watch` share. */
export function sourceOptions(command: Command): Command {
  return command
    .addOption(new Option('--store <dir>', 'the store').env('HOLDFAST_STORE').default('./sessions'))
    .option('--include <dir>', 'another directory, as plain files; may be repeated', collect)
    .option('--full', 'read every byte, also of files that look unchanged')
    .option('--reread-in <n>', 'in how many snapshots every byte is read at least once', wholeNumber(1, 1_000), 30)
    .option('--recipient <key>', 'an age public key (age1…) that may read, for a repository that is to be made; may be repeated', collect)
    .option('--host <name>', 'what this machine is called in the repository; default its host name')
}

export function createCommand(): Command {
  return sourceOptions(
    targetCommand('create', 'Take a snapshot of a store in use, and of other directories', [
      'holdfast backup create --store ./sessions --to /mnt/backup/agent',
      'holdfast backup create --to s3://bucket/agent --key-file /etc/holdfast/backup.key --include ~/agent/workspace',
      'holdfast backup create --to /mnt/backup/agent --json | jq .findings',
    ]),
  )
    .addHelpText(
      'after',
      '\nWhere TARGET is empty or not there yet, the repository is made: encrypted with --recipient or a passphrase, else not.',
    )
    .option('--accept', 'what differs from the last good snapshot is as it should be: measure the next ones by this one')
    .action(create)
}

async function create(options: CreateOptions): Promise<void> {
  stepBack()
  const { createBackup } = await backups()
  const interrupt = onCtrlC()
  const bar = progressBar('backup')
  try {
    const report = await createBackup({
      ...backupOptions(options),
      ...creation(options),
      to: locationOf(options.to),
      accept: options.accept,
      signal: interrupt.signal,
      onProgress: (done, total) => bar.at(done, total),
    })
    bar.stop()
    process.exitCode = report.ok ? exitCodes.ok : exitCodes.found
    await (options.json ? printJson(report) : printReport(report))
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}

export function backupOptions({ store, include, full, rereadIn, host, to }: CreateOptions) {
  return { store, include, full, rereadIn, host, except: directoriesOf(to) }
}

export async function printReport(report: BackupReport): Promise<void> {
  await printFindings(report.findings)
  await print(summary(report))
}

export function summary({ snapshot, findings, files, sessions, bytes, bytesRead, bytesNew, tookMs }: BackupReport): string {
  const marked = snapshot.damaged
    ? paint('red', 'damaged')
    : findings.some(({ level }) => level !== 'notice')
      ? paint('yellow', 'look')
      : paint('green', 'ok')
  const what = `${count(sessions, 'session')}, ${count(files, 'file')}, ${bytesText(bytes)}`
  return `${marked}\tsnapshot ${plain(snapshot.id)}: ${what}; ${bytesText(bytesRead)} read, ${bytesText(bytesNew)} new, ${durationText(tookMs)}`
}

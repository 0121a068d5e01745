/** Which repository, and with which keys: what every backup command is told in the same way. */
import fs from 'node:fs'
import os from 'node:os'
import { resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { EncryptionOptions, Repository, TargetLocation } from '../../backup/index.js'
import { CommandError, exitCodes } from '../exit.js'

/** Loaded by what a command does, not by its description: every start of `holdfast` reads that, and age and S3 take their time. */
export const backups = () => import('../../backup/index.js')

export interface TargetOptions {
  readonly to: string
  readonly identity?: readonly string[]
  readonly passphraseFile?: string
  readonly keyFile?: string
  readonly json?: boolean
}

export const backupExitCodes = `
Exit codes: 0 done, all in order · 1 damage, shrinkage, an overdue backup or something that could not be read · 2 wrong use ·
3 the store, the target or the disk refused · 130 interrupted`

/** A command with `--to`, the keys, `--json`, examples and exit codes in its help. */
export function targetCommand(name: string, description: string, examples: readonly string[]): Command {
  return new Command(name)
    .description(description)
    .addOption(
      new Option('--to <target>', 'the repository: a directory, or s3://bucket/prefix?endpoint=URL&region=NAME')
        .env('HOLDFAST_BACKUP')
        .makeOptionMandatory(),
    )
    .option('--identity <file>', 'a file of age secret keys (AGE-SECRET-KEY-1…), one a line; may be repeated', collect)
    .option('--passphrase-file <file>', 'the passphrase, on its first line; else HOLDFAST_BACKUP_PASSPHRASE')
    .option('--key-file <file>', 'the key that only adds: backs up, lists, forgets and prunes, and cannot read')
    .option('--json', 'machine-readable output, one JSON value a line')
    .addHelpText('after', `\nExamples:\n${examples.map((example) => `  $ ${example}`).join('\n')}\n${backupExitCodes}`)
}

export function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}

/** `s3://bucket/prefix?endpoint=…&region=…`, or a directory. */
export function locationOf(to: string): TargetLocation {
  if (!to.startsWith('s3://')) return { directory: resolve(to) }
  const url = new URL(to)
  for (const name of url.searchParams.keys())
    if (name !== 'endpoint' && name !== 'region')
      throw new CommandError(exitCodes.usage, `--to has ?${name}=, which is not known.`, 'Known are ?endpoint=URL and &region=NAME.')
  const endpoint = url.searchParams.get('endpoint') ?? undefined
  const region = url.searchParams.get('region') ?? undefined
  return { url: `s3://${url.host}${url.pathname}`, endpoint, region }
}

/** What is no part of an included directory. */
export function directoriesOf(to: string): string[] {
  return to.startsWith('s3://') ? [] : [resolve(to)]
}

export function encryptionOf({ identity = [], passphraseFile, keyFile }: TargetOptions): EncryptionOptions | undefined {
  const identities = identity.flatMap((file) => lines(file, '--identity').filter((line) => line.startsWith('AGE-SECRET-KEY-')))
  const passphrase =
    passphraseFile === undefined ? process.env.HOLDFAST_BACKUP_PASSPHRASE || undefined : lines(passphraseFile, '--passphrase-file')[0]
  const key = keyFile === undefined ? undefined : read(keyFile, '--key-file')
  if (identity.length > 0 && identities.length === 0)
    throw new CommandError(exitCodes.usage, 'The --identity file holds no AGE-SECRET-KEY-1… line.', '`age-keygen -o FILE` makes one.')
  if (identities.length === 0 && passphrase === undefined && key === undefined) return undefined
  return {
    ...(identities.length > 0 && { identities }),
    ...(passphrase !== undefined && { passphrase }),
    ...(key !== undefined && { key }),
  }
}

function lines(file: string, option: string): string[] {
  return read(file, option)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}

function read(file: string, option: string): string {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch (error) {
    throw new CommandError(exitCodes.usage, `${option} ${file} cannot be read: ${(error as Error).message}.`, 'Check the path.')
  }
}

/** Writers go first: a backup has time. To be called before any work, since threads that are there already keep their priority. */
export function stepBack(): void {
  try {
    os.setPriority(os.constants.priority.PRIORITY_BELOW_NORMAL)
  } catch {
    // Not allowed here; then it competes like any other.
  }
}

export async function withRepository<R>(
  options: TargetOptions,
  signal: AbortSignal | undefined,
  work: (repository: Repository) => Promise<R>,
): Promise<R> {
  const { openRepository } = await backups()
  const repository = await openRepository(locationOf(options.to), { encryption: encryptionOf(options), signal })
  try {
    return await work(repository)
  } finally {
    await repository.close()
  }
}

const units: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** For commander: `90s`, `15m`, `1h`, `2d`; ms. */
export function duration(text: string): number {
  const found = /^(\d{1,6})([smhd])$/.exec(text)
  const ms = found ? Number(found[1]) * units[found[2]!]! : Number.NaN
  if (!(ms >= 1_000 && ms <= 30 * 86_400_000)) throw new InvalidArgumentError('It must be such as 90s, 15m, 1h or 2d, from 1s to 30d.')
  return ms
}

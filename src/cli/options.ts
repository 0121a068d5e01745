/** The options that every command has, and how a command comes by its store. */
import fs from 'node:fs'
import { join, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { SessionStore, type StoreOptions } from '../index.js'
import { isPostgresAddress, shownAddress } from '../postgres/address.js'
import type { PostgresOptions } from '../postgres.js'
import { CommandError, exitCodes, exitCodesHelp } from './exit.js'

export interface CommonOptions {
  readonly store: string
  readonly json?: boolean
}

/** A command with `--store`, `--json`, examples and exit codes in its help. */
export function storeCommand(name: string, description: string, examples: readonly string[]): Command {
  return new Command(name)
    .description(description)
    .addOption(new Option('--store <dir>', 'the store: a directory, or postgres://…?schema=…').env('HOLDFAST_STORE').default('./sessions'))
    .option('--json', 'machine-readable output, one JSON value a line')
    .addHelpText('after', `\nExamples:\n${examples.map((example) => `  $ ${example}`).join('\n')}\n${exitCodesHelp}`)
}

/** For commander: a whole number between bounds. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const n = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (!(n >= min && n <= max)) throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
    return n
  }
}

/** A store has at least one of these; a directory without any is something else. */
const marks = ['holdfast.json', 'sessions.json', 'sessions.journal.jsonl', 'transcripts']

/** Runs `work` on a store opened to read only: takes no lock, creates nothing. A directory that is not there is an error, never an empty store. */
export async function withStoreToRead<R>(dir: string, work: (store: SessionStore<Record<string, unknown>>) => Promise<R>): Promise<R> {
  requireStore(dir)
  return closing(await openStore(dir, { readOnly: true }), work)
}

/** Runs `work` on a store opened to write; makes one where there is none. */
export async function withStoreToWrite<R>(dir: string, work: (store: SessionStore<Record<string, unknown>>) => Promise<R>): Promise<R> {
  return closing(await openStore(dir), work)
}

/** Runs `work` on a store opened to write, that is there already. */
export async function withStoreThere<R>(dir: string, work: (store: SessionStore<Record<string, unknown>>) => Promise<R>): Promise<R> {
  requireStore(dir)
  if (isPostgresAddress(dir)) return closing(await openDatabase(dir, { migrate: false }), work)
  return withStoreToWrite(dir, work)
}

/** Runs `work` on a store that may be too damaged to be opened otherwise. */
export async function withStoreToRepair<R>(
  dir: string,
  { readOnly }: { readOnly: boolean },
  work: (store: SessionStore<Record<string, unknown>>) => Promise<R>,
): Promise<R> {
  requireStore(dir)
  // A database mends itself, or is restored: there is no other way in, and it says so.
  if (isPostgresAddress(dir)) return closing(await openDatabase(dir, { migrate: false }), work)
  return closing(await SessionStore.open(dir, { readOnly, repair: true }), work)
}

/** Of files or in a database. Of the latter nothing is made by a command that only reads. */
export async function openStore(
  place: string,
  { readOnly = false, maintenance }: Pick<StoreOptions, 'readOnly' | 'maintenance'> = {},
): Promise<SessionStore<Record<string, unknown>>> {
  const options = { readOnly, ...(maintenance && { maintenance }) }
  return isPostgresAddress(place) ? openDatabase(place, options) : SessionStore.open(place, options)
}

/** Loaded when it is asked for: most stores are directories. */
async function openDatabase(place: string, options: PostgresOptions): Promise<SessionStore<Record<string, unknown>>> {
  const { openPostgres } = await import('../postgres.js')
  return openPostgres(place, options)
}

/** As it may be shown. */
export function placeText(place: string): string {
  return isPostgresAddress(place) ? shownAddress(place) : resolve(place)
}

async function closing<S extends { close(): Promise<void> }, R>(store: S, work: (store: S) => Promise<R>): Promise<R> {
  try {
    return await work(store)
  } finally {
    await store.close()
  }
}

/** Of a directory; a database says so itself. */
function requireStore(dir: string): void {
  if (isPostgresAddress(dir)) return
  const where = resolve(dir)
  const next = 'Name it with --store DIR or the environment variable HOLDFAST_STORE; `holdfast import PATH` makes a new one.'
  const stat = fs.statSync(where, { throwIfNoEntry: false })
  if (!stat) throw new CommandError(exitCodes.failed, `There is no store at ${where}.`, next)
  if (!stat.isDirectory()) throw new CommandError(exitCodes.failed, `${where} is not a directory, so it is not a store.`, next)
  if (!marks.some((mark) => fs.existsSync(join(where, mark))))
    throw new CommandError(exitCodes.failed, `${where} holds no store: none of ${marks.join(', ')} is in it.`, next)
}

export function unknownKey(key: string, dir: string): CommandError {
  return new CommandError(
    exitCodes.usage,
    `There is no session "${key}" in ${placeText(dir)}.`,
    'See `holdfast list`; keys are compared exactly.',
  )
}

/** The options that every command has, and how a command comes by its store. */
import fs from 'node:fs'
import { join, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { SessionStore } from '../index.js'
import { CommandError, exitCodes, exitCodesHelp } from './exit.js'

export interface CommonOptions {
  readonly store: string
  readonly json?: boolean
}

/** A command with `--store`, `--json`, examples and exit codes in its help. */
export function storeCommand(name: string, description: string, examples: readonly string[]): Command {
  return new Command(name)
    .description(description)
    .addOption(new Option('--store <dir>', 'the store').env('HOLDFAST_STORE').default('./sessions'))
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
  return closing(await SessionStore.open(dir, { readOnly: true }), work)
}

/** Runs `work` on a store opened to write; makes one where there is none. */
export async function withStoreToWrite<R>(dir: string, work: (store: SessionStore<Record<string, unknown>>) => Promise<R>): Promise<R> {
  return closing(await SessionStore.open(dir), work)
}

/** Runs `work` on a store opened to write, that is there already. */
export async function withStoreThere<R>(dir: string, work: (store: SessionStore<Record<string, unknown>>) => Promise<R>): Promise<R> {
  requireStore(dir)
  return withStoreToWrite(dir, work)
}

/** Runs `work` on a store that may be too damaged to be opened otherwise. */
export async function withStoreToRepair<R>(
  dir: string,
  { readOnly }: { readOnly: boolean },
  work: (store: SessionStore<Record<string, unknown>>) => Promise<R>,
): Promise<R> {
  requireStore(dir)
  return closing(await SessionStore.open(dir, { readOnly, repair: true }), work)
}

async function closing<S extends { close(): Promise<void> }, R>(store: S, work: (store: S) => Promise<R>): Promise<R> {
  try {
    return await work(store)
  } finally {
    await store.close()
  }
}

function requireStore(dir: string): void {
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
    `There is no session "${key}" in ${resolve(dir)}.`,
    'See `holdfast list`; keys are compared exactly.',
  )
}

/** `holdfast import PATH`: brings conversations in from pi and OpenClaw. Running it again adds only what is new. */
import { resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { onCtrlC } from '../ctrl-c.js'
import { CommandError, exitCodes, failureOf, printFailure } from '../exit.js'
import { type CommonOptions, placeText, storeCommand, withStoreToWrite } from '../options.js'
import { count, paint, plain, print, printJson, printTable, remark } from '../output.js'
import { progressBar } from '../progress.js'
import { findSources } from './find.js'
import { importBare, importTranscript } from './run.js'
import type { Found, LeftOut } from './source.js'
import { Tally } from './tally.js'

interface ImportCommandOptions extends CommonOptions {
  readonly key?: string
  readonly merge?: boolean
  readonly unreferenced?: boolean
}

export function importCommand(): Command {
  return storeCommand('import', 'Import sessions of pi or OpenClaw; again and again, without doubling', [
    'holdfast import ~/.pi/agent/sessions',
    'holdfast import session.jsonl --key agent:main:main',
    'holdfast import ~/.openclaw/agents/main/sessions --store ./sessions',
    'holdfast import ~/.openclaw/agents/main/sessions/sessions.json --json',
  ])
    .argument('<path>', 'a pi session file (version 1 to 3), a sessions.json, or a directory of either')
    .option('--key <key>', 'session key; only with a single session file', keyArgument)
    .option('--merge', 'append also to a session that has other records')
    .option('--unreferenced', 'OpenClaw: also transcripts that no session key names any more')
    .addHelpText(
      'after',
      `
Lines that cannot be taken are reported with their number and the reason; the rest is imported and the exit code is 1.
Ctrl-C keeps what is in; the same command goes on from there.`,
    )
    .action(importPath)
}

function keyArgument(key: string): string {
  if (key === '') throw new InvalidArgumentError('It must not be empty.')
  return key
}

async function importPath(path: string, options: ImportCommandOptions): Promise<void> {
  const found = withKey(findSources(path, options.unreferenced === true), options.key)
  const tally = new Tally()
  for (const item of found.leftOut) tally.leaveOut(item)
  tally.notes.push(...found.notes)
  const interrupt = onCtrlC()
  let failure: { readonly error: unknown } | undefined
  try {
    await withStoreToWrite(options.store, (store) => importAll(store, found, tally, options, interrupt.signal))
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) failure = { error }
  } finally {
    interrupt.release()
  }
  const cut = failure ? 'failed' : interrupt.signal.aborted ? 'interrupted' : undefined
  process.exitCode = cut ? exitCodes[cut] : tally.leftOutTotal > 0 ? exitCodes.found : exitCodes.ok
  await (options.json ? printJson(reportOf(path, options, tally, cut)) : printText(tally, cut))
  if (!failure) return
  const said = failureOf(failure.error)
  process.exitCode = said.exitCode
  printFailure(said, options.json === true)
}

function withKey(found: Found, key: string | undefined): Found {
  const [only, ...others] = found.transcripts
  if (key === undefined) return found
  if (!only || others.length > 0 || found.bare.length > 0)
    throw new CommandError(
      exitCodes.usage,
      '--key names one session, and PATH holds several.',
      'Import a single session file, or leave --key out.',
    )
  return { ...found, transcripts: [{ ...only, key }] }
}

type Store = Parameters<typeof importTranscript>[0]

async function importAll(
  store: Store,
  found: Found,
  tally: Tally,
  { merge = false }: ImportCommandOptions,
  signal: AbortSignal,
): Promise<void> {
  const total = found.transcripts.reduce((sum, { bytes }) => sum + bytes, 0)
  const bar = progressBar('import')
  let done = 0
  try {
    for (const source of found.transcripts) {
      if (signal.aborted) return
      await importTranscript(store, source, tally, { merge, signal, onOffset: (offset) => bar.at(done + offset, total) })
      done += source.bytes
    }
    for (const source of found.bare) {
      if (signal.aborted) return
      await importBare(store, source, tally)
    }
  } finally {
    bar.stop()
  }
}

type Cut = 'failed' | 'interrupted' | undefined

function reportOf(path: string, { store }: ImportCommandOptions, tally: Tally, cut: Cut): object {
  return {
    store: placeText(store),
    path: resolve(path),
    finished: cut === undefined,
    added: tally.sum('added'),
    present: tally.sum('present'),
    leftOut: tally.leftOutTotal,
    sessions: tally.sessions,
    problems: tally.leftOut,
    notes: tally.notes,
  }
}

/** Problems shown to a person; the rest is counted, and in the JSON. */
const problemsShown = 50

async function printText(tally: Tally, cut: Cut): Promise<void> {
  await printTable(
    ['KEY', 'ADDED', 'THERE BEFORE', 'LEFT OUT', 'FROM'],
    tally.sessions.map(({ key, added, present, leftOut, file }) => [
      plain(key),
      String(added),
      String(present),
      String(leftOut),
      plain(file),
    ]),
  )
  for (const problem of tally.leftOut.slice(0, problemsShown)) await print(`${paint('yellow', 'left out')}\t${problemText(problem)}`)
  const more = tally.leftOutTotal - Math.min(problemsShown, tally.leftOut.length)
  if (more > 0) await print(`${paint('yellow', 'left out')}\t… and ${more} more; --json lists them`)
  for (const note of tally.notes) remark(`holdfast: ${plain(note)}`)
  const head = cut ? paint('red', cut) : tally.leftOutTotal > 0 ? paint('yellow', 'done, with something left out') : paint('green', 'done')
  const sums = `${count(tally.sum('added'), 'record')} added, ${tally.sum('present')} there before, ${tally.leftOutTotal} left out; ${count(tally.sessions.length, 'session')}`
  await print(`${head}\t${sums}`)
  if (cut) remark('holdfast: what was added is in the store. Run the same command again: it goes on from there and doubles nothing.')
}

function problemText({ path, line, key, why }: LeftOut): string {
  return `${plain(path)}${line === null ? '' : `:${line}`}${key === null ? '' : ` ("${plain(key)}")`}: ${plain(why)}`
}

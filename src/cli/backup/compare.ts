/** `holdfast backup compare`: what has become of everything that a snapshot has. */
import { statSync } from 'node:fs'
import { type Command, Option } from 'commander'
import type { CompareReport, SessionChange } from '../../backup/index.js'
import { onCtrlC } from '../ctrl-c.js'
import { exitCodes } from '../exit.js'
import { count, paint, plain, print, printJson } from '../output.js'
import { printFindings } from './findings.js'
import { snapshotId } from './list.js'
import { backups, type TargetOptions, targetCommand, withRepository } from './target.js'

interface CompareOptions extends TargetOptions {
  readonly store: string
}

export function compareCommand(): Command {
  return targetCommand('compare', 'What has become of every session of a snapshot: in a later one, or in a store as it is now', [
    'holdfast backup compare good --to /mnt/backup/agent',
    'holdfast backup compare 20260102T030405 latest --to /mnt/backup/agent',
    'holdfast backup compare good ./sessions.restored --to /mnt/backup/agent',
  ])
    .argument('<snapshot>', 'what was: an id, the first characters of one, latest, or good (the latest without damage)')
    .argument('[now]', 'what is: another snapshot, or the directory of a store; default --store')
    .addOption(new Option('--store <dir>', 'the store').env('HOLDFAST_STORE').default('./sessions'))
    .addHelpText(
      'after',
      `
In order: added, extended, closed (archived by a rotation or a deletion), remade (by a compaction or a repair, as its header says), removed
(from the archive). Not in order, exit code 1: gone, unnamed, shrunk, rewritten, damaged.`,
    )
    .action(compare)
}

async function compare(snapshot: string, now: string | undefined, options: CompareOptions): Promise<void> {
  const { compareBackups } = await backups()
  const interrupt = onCtrlC()
  try {
    const report = await withRepository(options, interrupt.signal, async (repository) => {
      const isDirectory = now === undefined || statSync(now, { throwIfNoEntry: false })?.isDirectory() === true
      const from = await snapshotId(repository, snapshot)
      const to = isDirectory ? { store: now ?? options.store } : { snapshot: await snapshotId(repository, now) }
      return compareBackups({ repository, from, to, signal: interrupt.signal })
    })
    process.exitCode = report.ok ? exitCodes.ok : exitCodes.found
    await (options.json ? printJson(report) : printComparison(report))
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    interrupt.release()
  }
}

async function printComparison({ from, to, ok, same, sessions, files, findings }: CompareReport): Promise<void> {
  await printFindings(findings)
  for (const change of sessions) {
    await print(sessionLine(change))
    const { firstDifference: first } = change
    if (!first) continue
    await print(`\tseq ${first.seq} was\t${plain(first.before ?? '(none)')}`)
    await print(`\tseq ${first.seq} is\t${plain(first.now ?? '(none)')}`)
  }
  for (const { path, what, alarming } of files) await print(`${paint(alarming ? 'red' : 'dim', what)}\t${plain(path)}`)
  const changes = sessions.length === 0 ? 'nothing else' : count(sessions.length, 'change')
  await print(
    `${ok ? paint('green', 'ok') : paint('red', 'alarm')}\t${plain(from)} to ${plain(to)}: ${count(same, 'session')} the same, ${changes}`,
  )
}

function sessionLine({ what, alarming, key, sessionId, message }: SessionChange): string {
  return `${paint(alarming ? 'red' : 'green', what)}\t${plain(key ?? sessionId)}: ${plain(message)}`
}

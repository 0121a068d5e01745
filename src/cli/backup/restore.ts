/** `holdfast backup restore`: a snapshot into a new directory, and what to do next. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { RestoreReport } from '../../backup/index.js'
import { onCtrlC } from '../ctrl-c.js'
import { exitCodes } from '../exit.js'
import { bytesText, count, moment, paint, plain, print, printJson } from '../output.js'
import { progressBar } from '../progress.js'
import { snapshotId } from './list.js'
import { backups, type TargetOptions, targetCommand, withRepository } from './target.js'

interface RestoreOptions extends TargetOptions {
  readonly into: string
  readonly session?: string
  readonly included?: string
}

export function restoreCommand(): Command {
  return targetCommand('restore', 'Bring a snapshot back into a new directory, proved record by record', [
    'holdfast backup restore good --to /mnt/backup/agent --into ./sessions.restored',
    'holdfast backup restore 20260102T030405 --to /mnt/backup/agent --into ./one --session agent:main:main',
    'holdfast backup restore latest --to s3://bucket/agent --identity key.txt --into ./workspace --included workspace',
  ])
    .argument('<snapshot>', 'an id, the first characters of one, latest, or good (the latest without damage)')
    .requiredOption('--into <dir>', 'a directory that is empty or not there yet; nothing is ever overwritten')
    .option('--session <key>', 'only this conversation, as a small store of its own')
    .option('--included <name>', 'instead of the store, an included directory')
    .action(restore)
}

async function restore(snapshot: string, options: RestoreOptions): Promise<void> {
  const { into, session, included, json } = options
  const { restoreBackup } = await backups()
  const interrupt = onCtrlC()
  const bar = progressBar('restore')
  try {
    const report = await withRepository(options, interrupt.signal, async (repository) =>
      restoreBackup({
        repository,
        snapshot: await snapshotId(repository, snapshot),
        into,
        session,
        included,
        signal: interrupt.signal,
        onProgress: (done, total) => bar.at(done, total),
      }),
    )
    bar.stop()
    process.exitCode = report.damage.length === 0 && !report.snapshot.damaged ? exitCodes.ok : exitCodes.found
    await (json ? printJson(report) : printRestored(report, options))
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}

async function printRestored(
  { snapshot, into, files, bytes, sessions, damage, included }: RestoreReport,
  options: RestoreOptions,
): Promise<void> {
  for (const text of damage) await print(`${paint('red', 'damage')}\t${plain(text)}`)
  if (damage.length === 0 && snapshot.damaged)
    for (const text of snapshot.findings) await print(`${paint('red', 'marked')}\t${plain(text)}`)
  const what = options.included === undefined ? `${count(sessions, 'session')}, ` : ''
  await print(
    `${paint(damage.length === 0 ? 'green' : 'red', damage.length === 0 ? 'ok' : 'damaged')}\t${plain(into)}: ${what}${count(files, 'file')}, ${bytesText(bytes)}, as of ${moment(snapshot.time)}; every byte read back and proved`,
  )
  for (const line of nextSteps(options, into, included)) await print(`next\t${plain(line)}`)
}

/** Nothing is switched over by itself: a person decides when the writers stop. */
function nextSteps({ included, session, to }: RestoreOptions, into: string, others: readonly string[]): string[] {
  if (included !== undefined) return [`look at ${into}, then move what you want to where it belongs`]
  const rest = others.map((name) => `holdfast backup restore … --to ${to} --into ${into}.${name} --included ${name}`)
  if (session !== undefined) return [`holdfast tail ${JSON.stringify(session)} --store ${into}`, ...rest]
  return [
    `holdfast verify --store ${into}`,
    `stop every writer; mv ${resolve('sessions')} ${resolve('sessions')}.damaged; mv ${into} ${resolve('sessions')}; start the writers (or point them at ${into})`,
    'holdfast backup create … --accept, once: the store is older now than the last good snapshot, and that is as it should be',
    ...rest,
  ]
}

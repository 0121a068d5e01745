/** `holdfast retain`: which sessions rules would archive; with `--apply`, archives them. */
import type { Command } from 'commander'
import type { ArchivedSession, RetentionReport } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { CommandError, exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, withStoreThere, withStoreToRead } from './options.js'
import { bytesText, count, moment, paint, plain, print, printJson } from './output.js'
import { progressBar } from './progress.js'
import { type RuleOptions, rulesOf, withRules } from './retention-options.js'

interface Options extends CommonOptions, RuleOptions {
  readonly apply?: boolean
}

export function retainCommand(): Command {
  return withRules(
    storeCommand('retain', 'Show which sessions rules would archive; with --apply, archive them', [
      'holdfast retain --max-age 30d',
      'holdfast retain --max-age 30d --max-bytes 2GiB --apply',
      "holdfast retain --prefix 'cron::max-age=7d' --prefix 'agent:main::max-age=none' --max-age 30d",
      'holdfast retain --rules rules.json --json | jq -r .archived[].key',
    ]).option('--apply', 'do it; without it nothing is changed'),
  )
    .addHelpText(
      'after',
      `
What goes is archived, not unlinked. Sessions with an active turn or an unanswered input, pinned entries ("pinned": true) and damaged
transcripts stay. Exit code 1 says that a cap cannot be kept without them.`,
    )
    .action(retain)
}

async function retain(options: Options): Promise<void> {
  const { store: dir, json, apply = false } = options
  const rules = rulesOf(options)
  if (!rules)
    throw new CommandError(exitCodes.usage, 'There are no rules.', 'Name one, such as --max-age 30d; see `holdfast retain --help`.')
  const interrupt = onCtrlC()
  const bar = progressBar('retain')
  try {
    const onProgress = (done: number, total: number) => bar.at(done, total)
    const work = async (store: Parameters<Parameters<typeof withStoreToRead>[1]>[0]) =>
      store.retain({ rules, dryRun: !apply, onProgress, signal: interrupt.signal })
    const report = await (apply ? withStoreThere(dir, work) : withStoreToRead(dir, work))
    bar.stop()
    process.exitCode = report.unsatisfied.length === 0 ? exitCodes.ok : exitCodes.found
    await (json ? printJson(report) : printReport(report))
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}

async function printReport(report: RetentionReport): Promise<void> {
  const { dryRun, archived, removed, unsatisfied, sessions, kept } = report
  for (const session of archived) await print(archivedLine(session, dryRun))
  for (const { key, why } of report.protected) await print(`${paint('yellow', 'stays')}\t${plain(key)}\t${why}`)
  for (const { file, key, bytes, rule } of removed)
    await print(
      `${paint('red', dryRun ? 'would be unlinked' : 'unlinked')}\t${plain(file)}\t${plain(key ?? '-')}\t${bytesText(bytes)}\t${rule}`,
    )
  for (const { rule, prefix, limit, least } of unsatisfied)
    await print(
      `${paint('red', 'cannot be kept')}\t${rule}${prefix ? ` of ${plain(prefix)}` : ''}\tat most ${limit}, but ${least} may not go`,
    )
  const next = dryRun && archived.length + removed.length > 0 ? '; nothing has been changed. --apply does it.' : ''
  await print(`${count(sessions, 'session')}, ${kept} ${dryRun ? 'would stay' : 'left'}${next}`)
}

function archivedLine({ key, sessionId, bytes, changedAt, rule, prefix }: ArchivedSession, dryRun: boolean): string {
  const what = paint('cyan', dryRun ? 'would be archived' : 'archived')
  return [what, plain(key), sessionId, moment(changedAt), bytesText(bytes), prefix ? `${rule} of ${plain(prefix)}` : rule].join('\t')
}

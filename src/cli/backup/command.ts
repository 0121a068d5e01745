/** `holdfast backup`: snapshots of a store in use, kept elsewhere, looked after, compared and brought back. */
import { Command } from 'commander'
import { checkCommand } from './check.js'
import { compareCommand } from './compare.js'
import { createCommand, initCommand } from './create.js'
import { forgetCommand, pruneCommand } from './forget.js'
import { listCommand } from './list.js'
import { restoreCommand } from './restore.js'
import { backupExitCodes } from './target.js'
import { statusCommand, watchCommand } from './watch.js'

/** @param above  whose settings it inherits, before its own commands inherit them from it. */
export function backupCommand(above: Command): Command {
  const backup = new Command('backup').copyInheritedSettings(above)
  backup.description('Snapshots of a store in use: take, look after, compare and restore them').addHelpText(
    'after',
    `
Every one of them takes --to TARGET (else HOLDFAST_BACKUP): a directory, or s3://bucket/prefix?endpoint=URL. A snapshot is named by its id, the
first characters of it, latest, or good: the latest that was not damaged. docs/backup.md has the schedule and the drill.
${backupExitCodes}`,
  )
  const commands = [
    initCommand(),
    createCommand(),
    listCommand(),
    checkCommand(),
    compareCommand(),
    restoreCommand(),
    forgetCommand(),
    pruneCommand(),
    watchCommand(),
    statusCommand(),
  ]
  for (const command of commands) backup.addCommand(command.copyInheritedSettings(backup))
  return backup
}

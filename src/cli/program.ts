/** All commands, and what becomes of their failures. Each command has its own file; what the exit codes mean is in exit.ts. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { isPostgresAddress } from '../postgres/address.js'
import { archivesCommand, restoreArchiveCommand } from './archives.js'
import { backupCommand } from './backup/command.js'
import { compactCommand } from './compact.js'
import { CommandError, exitCodes, exitCodesHelp, failureOf, printFailure } from './exit.js'
import { importCommand } from './import/command.js'
import { interruptCommand } from './interrupt.js'
import { listCommand } from './list.js'
import { locksCommand } from './locks.js'
import { maintainCommand } from './maintain.js'
import { repairCommand } from './repair.js'
import { retainCommand } from './retain.js'
import { rotateCommand } from './rotate.js'
import { showCommand } from './show.js'
import { statsCommand } from './stats.js'
import { stressCommand } from './stress/command.js'
import { tailCommand } from './tail.js'
import { turnsCommand } from './turns.js'
import { verifyCommand } from './verify.js'

function program(): Command {
  const root = new Command('holdfast')
    .description('A session store for agent runtimes and chat gateways: look at it, check it, fill it.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .addHelpText(
      'after',
      `
Every command takes --store DIR or an address, postgres://… (else HOLDFAST_STORE, else ./sessions; stress makes its own), --json, and --help with examples.
${exitCodesHelp}`,
    )
    .showHelpAfterError('See --help.')
    .exitOverride()
  const commands = [
    listCommand(),
    showCommand(),
    tailCommand(),
    turnsCommand(),
    interruptCommand(),
    locksCommand(),
    statsCommand(),
    verifyCommand(),
    repairCommand(),
    compactCommand(),
    rotateCommand(),
    archivesCommand(),
    restoreArchiveCommand(),
    retainCommand(),
    maintainCommand(),
    importCommand(),
    stressCommand(),
  ]
  for (const command of commands) root.addCommand(command.copyInheritedSettings(root))
  root.addCommand(backupCommand(root))
  root.hook('preAction', (_, action) => refuseDatabase(action))
  return root
}

/** A backup reads files. */
function refuseDatabase(action: Command): void {
  const { store } = action.opts<{ store?: string }>()
  if (store === undefined || !isPostgresAddress(store)) return
  for (let at: Command | null = action; at; at = at.parent)
    if (at.name() === 'backup')
      throw new CommandError(
        exitCodes.usage,
        'A store in PostgreSQL is not backed up by holdfast.',
        'Use pg_dump, or a base backup of the server.',
      )
}

/** From the nearest package.json above: the same from `dist` and from a build for tests. */
function packageVersion(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'))
      if (name === 'holdfast' && typeof version === 'string') return version
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  return 'unknown'
}

/** Does what the arguments say, and sets `process.exitCode`. */
export async function run(argv: readonly string[]): Promise<void> {
  try {
    await program().parseAsync(argv)
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
      return
    }
    const failure = failureOf(error)
    process.exitCode = failure.exitCode
    printFailure(failure, argv.includes('--json'))
  }
}

/** `holdfast stress` as a program of its own: its part of the command line, and nothing else of it. */
import { CommanderError } from 'commander'
import { exitCodes, failureOf, printFailure } from '../../src/cli/exit.js'
import { stressCommand } from '../../src/cli/stress/command.js'

try {
  await stressCommand().exitOverride().parseAsync(process.argv)
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  else {
    const failure = failureOf(error)
    process.exitCode = failure.exitCode
    printFailure(failure, false)
  }
}

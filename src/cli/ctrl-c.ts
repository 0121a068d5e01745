/** Ctrl-C: the first one asks the command to come to an end, the second one ends the process. */
import { exitCodes } from './exit.js'

export interface Interrupt {
  readonly signal: AbortSignal
  /** Gives the signals back to Node. */
  release(): void
}

export function onCtrlC(): Interrupt {
  const controller = new AbortController()
  const asked = () => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted)
    controller.abort()
  }
  process.on('SIGINT', asked)
  process.on('SIGTERM', asked)
  return {
    signal: controller.signal,
    release() {
      process.off('SIGINT', asked)
      process.off('SIGTERM', asked)
    },
  }
}

/** The strings to a process that runs turns (turns-program.ts). */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { TurnOptions } from '../../src/types.js'
import type { FromTurns, ToTurns } from './turns-program.js'

export interface Runtime {
  readonly pid: number
  /** Asks for a turn, and does not wait for it. */
  ask(key: string, options: TurnOptions & { requestId: string }, short?: boolean): void
  begun(request: string): Promise<void>
  /** Lets its function return. */
  end(request: string): void
  /** How its call ended. */
  over(request: string): Promise<string>
  signal(name: NodeJS.Signals): void
}

const program = fileURLToPath(new URL('../../.build/test/cli/turns-program.js', import.meta.url))

const running = new Set<ChildProcess>()

/** Ends them all; to be done before their store is removed. */
export async function endRuntimes(): Promise<void> {
  for (const child of running) {
    const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined
    child.kill('SIGKILL')
    await ended
  }
  running.clear()
}

export async function startRuntime(store: string): Promise<Runtime> {
  const child = fork(program, [store], { execArgv: [] })
  const heard: FromTurns[] = []
  let told = () => {}
  child.on('message', (message: FromTurns) => {
    heard.push(message)
    told()
  })
  running.add(child)
  const until = async (wanted: (message: FromTurns) => boolean) => {
    for (;;) {
      const found = heard.find(wanted)
      if (found) return found
      await new Promise<void>((resolve) => {
        told = resolve
      })
    }
  }
  const tell = (message: ToTurns) => child.send(message)
  await until(({ is }) => is === 'ready')
  return {
    pid: child.pid!,
    ask: (key, options, short = false) => tell({ begin: { key, options, short } }),
    begun: async (request) => void (await until((message) => message.is === 'begun' && message.request === request)),
    end: (request) => tell({ end: request }),
    over: async (request) => {
      const message = await until((one) => one.is === 'over' && one.request === request)
      return 'outcome' in message ? (message.outcome ?? '') : ''
    },
    signal: (name) => void child.kill(name),
  }
}

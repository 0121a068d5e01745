/** The strings to a puppet: a process with a store that does what a test tells it. */
import { type ChildProcess, type ForkOptions, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import type { StoreOptions } from '../../src/types.js'
import { compiled } from './trials.js'

export type Inside = 'die' | 'stop' | { readonly stallMs: number }

export interface ToPuppet {
  readonly id: number
  readonly key: string
  /** What happens to it in the mutator, the first time that runs. */
  readonly inside?: Inside
}

export type Result =
  | { readonly is: 'done'; readonly id: number; readonly runs: number; readonly n: number; readonly locksLost: number }
  | {
      readonly is: 'failed'
      readonly id: number
      readonly runs: number
      readonly code: string
      readonly effect: string
      readonly message: string
    }

export type FromPuppet = Result | { readonly is: 'ready' | 'inside'; readonly pid: number }

export interface Puppet {
  readonly pid: number
  /** Adds one to `n` of the entry. Resolves at the end of the call, whatever that is. */
  update(key: string): Promise<Result>
  /** Begins an update. Resolves when it is in the mutator, under the lock, and is about to undergo this. */
  hold(key: string, inside: Inside): Promise<{ readonly outcome: Promise<Result> }>
  signal(name: NodeJS.Signals): void
  /** Resolves when the process that was started has ended. */
  readonly ended: Promise<unknown>
}

export interface PuppetOptions extends StoreOptions {
  /** What it calls itself. */
  readonly title?: string
}

/** @param how  for a process that is not to be started by Node directly */
export async function startPuppet(dir: string, options: PuppetOptions = {}, how: ForkOptions = {}): Promise<Puppet> {
  const program = fileURLToPath(new URL('test/processes/puppet-program.js', compiled))
  const child = fork(program, [JSON.stringify({ dir, durability: 'process', ...options })], { execArgv: [], ...how })
  onTestFinished(() => kill(child.pid))
  const ended = once(child, 'exit')
  const { pid } = await heard(child, (message) => message.is === 'ready' && message)
  onTestFinished(() => kill(pid))
  let updates = 0
  const tell = (key: string, inside?: Inside): Promise<Result> => {
    const id = ++updates
    child.send({ id, key, ...(inside && { inside }) } satisfies ToPuppet)
    return heard(child, (message) => (message.is === 'done' || message.is === 'failed') && message.id === id && message)
  }
  return {
    pid,
    ended,
    signal: (name) => void process.kill(pid, name),
    update: (key) => tell(key),
    async hold(key, inside) {
      const reached = heard(child, (message) => message.is === 'inside' && message)
      const outcome = tell(key, inside)
      await reached
      return { outcome }
    },
  }
}

function heard<M extends FromPuppet>(child: ChildProcess, pick: (message: FromPuppet) => M | false): Promise<M> {
  return new Promise((resolve) => {
    const listener = (message: FromPuppet) => {
      const picked = pick(message)
      if (!picked) return
      child.off('message', listener)
      resolve(picked)
    }
    child.on('message', listener)
  })
}

function kill(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended already.
  }
}

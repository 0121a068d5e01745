/** The strings to a process that asks for turns as a test tells it. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import type { StoreOptions, TurnOptions, TurnResult } from '../../src/types.js'
import { compiled } from './trials.js'

export type ToTurnPuppet =
  | { readonly id: number; readonly do: 'run'; readonly key: string; readonly options: TurnOptions; readonly stays: boolean }
  | { readonly id: number; readonly do: 'go'; readonly of: number }
  | { readonly id: number; readonly do: 'pending'; readonly of: number }
  | { readonly id: number; readonly do: 'append'; readonly of: number; readonly text: string }

export type FromTurnPuppet =
  | { readonly is: 'ready' }
  | { readonly is: 'inside'; readonly id: number; readonly turn: number; readonly attempt: number; readonly inputs: readonly string[] }
  | { readonly is: 'done'; readonly id: number; readonly result: unknown }
  | { readonly is: 'failed'; readonly id: number; readonly code: string; readonly effect: string }

export interface Inside {
  readonly turn: number
  readonly attempt: number
  readonly inputs: readonly string[]
  go(): void
  pending(): Promise<readonly string[]>
  append(text: string): Promise<{ seq: number }>
  readonly result: Promise<TurnResult<string>>
}

export interface TurnPuppet {
  readonly pid: number
  /** A turn that appends one answer. */
  run(key: string, options?: TurnOptions): Promise<TurnResult<string>>
  /** A turn that stays; resolves when it is inside. */
  stay(key: string, options?: TurnOptions): Promise<Inside>
  signal(name: NodeJS.Signals): void
  killed(): Promise<unknown>
}

export async function startTurnPuppet(dir: string, options: StoreOptions = {}): Promise<TurnPuppet> {
  const program = fileURLToPath(new URL('test/processes/turns-puppet-program.js', compiled))
  const child = fork(program, [JSON.stringify({ dir, durability: 'process', ...options })], { execArgv: [] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let ids = 0
  const waiting = new Map<string, (message: FromTurnPuppet) => void>()
  child.on('message', (message: FromTurnPuppet) => {
    const id = 'id' in message ? message.id : 0
    for (const name of [`${message.is} ${id}`, message.is === 'failed' ? `done ${id}` : '']) waiting.get(name)?.(message)
  })
  const heard = <M extends FromTurnPuppet>(is: M['is'], id: number) =>
    new Promise<M>((resolve, reject) => {
      waiting.set(`${is} ${id}`, (message) => {
        if (message.is === 'failed') reject(Object.assign(new Error(message.code), { code: message.code, effect: message.effect }))
        else resolve(message as M)
      })
    })
  type Done = Extract<FromTurnPuppet, { is: 'done' }>
  const answer = async <R>(message: ToTurnPuppet): Promise<R> => {
    const done = heard<Done>('done', message.id)
    child.send(message)
    return (await done).result as R
  }
  const ready = heard('ready', 0)
  await ready
  return {
    pid: child.pid!,
    run: (key, options = {}) => answer({ id: ++ids, do: 'run', key, options, stays: false }),
    async stay(key, options = {}) {
      const id = ++ids
      const inside = heard<Extract<FromTurnPuppet, { is: 'inside' }>>('inside', id)
      const result = answer<TurnResult<string>>({ id, do: 'run', key, options, stays: true })
      result.catch(() => {})
      const { turn, attempt, inputs } = await Promise.race([inside, result.then(() => inside)])
      return {
        turn,
        attempt,
        inputs,
        result,
        go: () => void child.send({ id: ++ids, do: 'go', of: id } satisfies ToTurnPuppet),
        pending: () => answer({ id: ++ids, do: 'pending', of: id }),
        append: (text) => answer({ id: ++ids, do: 'append', of: id, text }),
      }
    },
    signal: (name) => void child.kill(name),
    async killed() {
      const exit = once(child, 'exit')
      child.kill('SIGKILL')
      await exit
    },
  }
}

/** What a writer undergoes inside a mutator, at the worst moment: it has read, and has not written yet. */
import { spawn } from 'node:child_process'

export type Order = { readonly kind: 'kill' } | { readonly kind: 'freeze' | 'stall'; readonly forMs: number }

const cell = new Int32Array(new SharedArrayBuffer(4))

export class Ordeal {
  #order: Order | undefined

  /** @param struck  called just before it happens */
  constructor(readonly struck: (order: Order) => void) {}

  /** The next mutator that runs will undergo this. */
  expect(order: Order): void {
    this.#order = order
  }

  undergo(): void {
    const order = this.#order
    if (!order) return
    this.#order = undefined
    if (order.kind === 'freeze' && !wakeLater(process.pid, order.forMs)) return
    this.struck(order)
    if (order.kind === 'stall') Atomics.wait(cell, 0, 0, order.forMs)
    else process.kill(process.pid, order.kind === 'kill' ? 'SIGKILL' : 'SIGSTOP')
  }
}

/** Stops a process now and wakes it later; by a process of its own, so that it wakes even when we are gone. */
export function freeze(pid: number, forMs: number): boolean {
  return shell(`kill -STOP ${pid} && sleep ${forMs / 1_000} && kill -CONT ${pid}`)
}

/** For a process about to stop itself. Wakes it more than once: somebody else's SIGCONT may have come between. */
function wakeLater(pid: number, forMs: number): boolean {
  return shell(`for i in 1 2 3; do sleep ${forMs / 1_000}; kill -CONT ${pid} || exit; done`)
}

/** False where there is no shell; then nobody is frozen, since nobody would wake them. */
function shell(script: string): boolean {
  if (process.platform === 'win32') return false
  const child = spawn('sh', ['-c', script], { stdio: 'ignore', detached: true })
  child.on('error', () => {})
  child.unref()
  return child.pid !== undefined
}

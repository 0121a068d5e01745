/** A process with a store that does what it is told, one update after another; says when it is inside the mutator, and undergoes there what
 *  it should. Ends with its channel. */
import { isStoreError, SessionStore } from '../../src/index.js'
import type { FromPuppet, Inside, PuppetOptions, ToPuppet } from './puppet.js'

process.on('disconnect', () => process.exit())
const { dir, title, ...options } = JSON.parse(process.argv[2] ?? '{}') as PuppetOptions & { readonly dir: string }
if (title !== undefined) process.title = title
const store = await SessionStore.open(dir, options)
const cell = new Int32Array(new SharedArrayBuffer(4))
const say = (message: FromPuppet) => process.send?.(message)

function undergo(inside: Inside): void {
  say({ is: 'inside', pid: process.pid })
  if (inside === 'die') process.kill(process.pid, 'SIGKILL')
  else if (inside === 'stop') process.kill(process.pid, 'SIGSTOP')
  else Atomics.wait(cell, 0, 0, inside.stallMs)
}

async function update({ id, key, inside }: ToPuppet): Promise<void> {
  let runs = 0
  try {
    const { n } = await store.update(key, (entry) => {
      if (++runs === 1 && inside !== undefined) undergo(inside)
      return { n: Number(entry?.n ?? 0) + 1 }
    })
    say({ is: 'done', id, runs, n: Number(n), locksLost: store.stats().locksLost })
  } catch (error) {
    const { code, effect } = isStoreError(error) ? error : { code: 'UNKNOWN', effect: 'unknown' as const }
    say({ is: 'failed', id, runs, code, effect, message: error instanceof Error ? error.message : String(error) })
  }
}

process.on('message', (message: ToPuppet) => void update(message))
say({ is: 'ready', pid: process.pid })

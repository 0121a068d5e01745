/** The highest token of any lock that was removed from a directory of locks. A lock that is made anew begins above it, so the tokens of one
 *  name grow although nothing is left of the old lock: the clock alone would not do, it jumps, and many removals fit into its millisecond.
 *
 *  It is itself a directory with one entry, `free.<n>`, that is renamed and only grows. Raise it before a removal; read it after a lock has
 *  been taken: every removal before that has raised it by then. */
import { StoreError } from '../../errors.js'
import type { Host } from '../host.js'
import { LockDirectory } from './directory.js'
import { freeName } from './holder.js'

/** Each try in vain means that somebody else has raised it meanwhile. */
const triesMax = 1_000

export class Floor {
  #directory: LockDirectory

  constructor(host: Host, path: string, label: string) {
    this.#directory = new LockDirectory(host, path, label)
  }

  get(): number {
    for (let tries = 0; tries < triesMax; tries++) {
      const entry = this.#directory.look()
      if (entry === 'absent') return 0
      if (entry) return entry.n
    }
    throw this.#unsteady()
  }

  raise(n: number): void {
    for (let tries = 0; tries < triesMax; tries++) {
      const entry = this.#directory.look()
      if (entry === 'absent') this.#directory.create()
      else if (entry && (entry.n >= n || this.#directory.change(entry.name, freeName(n)))) return
    }
    throw this.#unsteady()
  }

  #unsteady(): StoreError {
    return new StoreError('IO_FAILED', `${this.#directory.path} changed ${triesMax} times while it was looked at.`, {
      details: { path: this.#directory.path },
      hint: 'Nothing was written. Try again.',
    })
  }
}

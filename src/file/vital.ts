/** Whether a handle may still write, and where its background work reports to. */
import { StoreError } from '../errors.js'
import { channels } from './stats.js'

export class Vital {
  #poison: { where: string; error: unknown } | undefined
  #readOnly: boolean
  #background = new Set<Promise<unknown>>()
  /** Why the store could not have been opened, but for somebody who is there to mend it. */
  damage: StoreError | undefined

  constructor(readOnly: boolean) {
    this.#readOnly = readOnly
  }

  get poisoned(): boolean {
    return this.#poison !== undefined
  }

  /** @throws STORE_POISONED after a failed sync · INVALID_OPTION on a read-only handle · what the store was found damaged with. Effect none. */
  assertWritable(): void {
    this.assertMendable()
    if (this.damage) throw this.damage
  }

  /** The same of whoever has come to mend the damage. */
  assertMendable(): void {
    if (this.#readOnly)
      throw new StoreError('INVALID_OPTION', 'this handle was opened with readOnly: true.', {
        hint: 'Nothing was written. Open the store without it to write.',
      })
    if (!this.#poison) return
    throw new StoreError('STORE_POISONED', `a sync of ${this.#poison.where} has failed earlier; this handle writes no more.`, {
      cause: this.#poison.error,
      details: { file: this.#poison.where },
      hint: 'Nothing was written by this call. Look at the disk, then open the store anew: reading goes on, and what was acknowledged is intact.',
    })
  }

  /** No second try: a failed sync may already have dropped the pages (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
   *  True the first time. */
  poison(where: string, error: unknown): boolean {
    if (this.#poison) return false
    this.#poison = { where, error }
    this.report('poisoned', error, { file: where })
    return true
  }

  /** Tells who listens what has failed in the background. */
  report(event: string, error: unknown, more?: object): void {
    if (channels.maintenance.hasSubscribers) channels.maintenance.publish({ event, error, ...more })
  }

  /** Work that nobody waits for but `close`. Its failure is reported, not thrown. */
  track(work: Promise<unknown>): void {
    const guarded = work
      .catch((error: unknown) => this.report('background-failed', error))
      .finally(() => {
        this.#background.delete(guarded)
      })
    this.#background.add(guarded)
  }

  async settled(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background)
  }
}

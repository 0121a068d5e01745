/** A sign in `running/` that a backup is under way. A prune that sees it removes nothing that this backup may be about to name. It is
 *  renewed, so that those of dead backups can be told; a wrong verdict costs the backup its commit, never a snapshot its chunks. */
import { hostname } from 'node:os'
import { StoreError } from '../../errors.js'
import type { Target } from '../targets/target.js'
import { runningName } from './vault.js'

const renewEveryMs = 5 * 60_000

export class Hold {
  readonly id: string
  readonly #target: Target
  readonly #sign: Buffer
  readonly #timer: NodeJS.Timeout
  #renewing: Promise<unknown> | undefined

  private constructor(target: Target, id: string, sign: Buffer) {
    this.id = id
    this.#target = target
    this.#sign = sign
    this.#timer = setInterval(() => void this.#renew(), renewEveryMs)
    this.#timer.unref()
  }

  static async take(target: Target, freshId: () => string, signal?: AbortSignal): Promise<Hold> {
    for (;;) {
      const id = freshId()
      const sign = Buffer.from(`${JSON.stringify({ host: hostname(), pid: process.pid, time: new Date().toISOString() })}\n`)
      if (await target.put(runningName(id), sign, { ifAbsent: true, signal })) return new Hold(target, id, sign)
    }
  }

  async stands(signal?: AbortSignal): Promise<boolean> {
    return (await this.#target.get(runningName(this.id), { signal })) !== undefined
  }

  async assertStands(signal?: AbortSignal): Promise<void> {
    if (!(await this.stands(signal))) throw this.lost()
  }

  lost(): StoreError {
    return new StoreError('LOCK_LOST', `The backup ${this.id} to ${this.#target.place} stood still for so long that a prune gave it up.`, {
      details: { snapshot: this.id, place: this.#target.place },
      hint: 'No snapshot was made. Begin again: what was stored and is still there is not sent a second time.',
    })
  }

  /** Says nothing when it fails: whoever commits has done all that matters, and a sign that stays grows stale. */
  async release(): Promise<void> {
    clearInterval(this.#timer)
    await this.#renewing
    await this.#target.delete(runningName(this.id)).catch(() => {})
  }

  async #renew(): Promise<void> {
    if (this.#renewing) return
    // Not put again where it has been removed: that would only keep prunes waiting for a backup that cannot commit any more.
    this.#renewing = this.stands()
      .then((stands) => (stands ? this.#target.put(runningName(this.id), this.#sign) : undefined))
      .catch(() => {})
      .finally(() => {
        this.#renewing = undefined
      })
    await this.#renewing
  }
}

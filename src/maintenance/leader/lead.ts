/** Who does the maintenance: one of the processes that want to, by a lease of its own. It is a matter of economy. Every step is safe while others do
 *  the same, so a lead that is lost without anybody's noticing costs work that is done twice, and nothing else. */
import type { Lease, Leases } from '../../file/lock/lease.js'

export const leadName = 'maintenance'

export interface LeadEvents {
  /** Somebody has taken it over, or removed it. */
  lost(why: string): void
}

export class Lead {
  #leases: Leases
  #leaseMs: number
  #events: LeadEvents
  #lease: Lease | undefined

  constructor(leases: Leases, leaseMs: number, events: LeadEvents) {
    this.#leases = leases
    this.#leaseMs = leaseMs
    this.#events = events
  }

  /** Takes it if that can be done at once. Else, who has it; undefined when that changes just now. */
  async take(): Promise<{ readonly taken: boolean; readonly by: string | undefined }> {
    // Which of them was lost: the next one may have been taken by then.
    const mine: { lease?: Lease | undefined; lost?: boolean } = {}
    const acquired = await this.#leases.tryAcquire(leadName, {
      maxHoldMs: this.#leaseMs,
      does: 'maintain',
      about: { lead: leadName },
      onLost: (reason) => {
        mine.lost = true
        if (this.#lease === mine.lease) this.#lease = undefined
        this.#events.lost(reason.message)
      },
    })
    if (!acquired.lease) {
      const { blocker } = acquired
      return { taken: false, by: blocker && `pid ${blocker.pid} on ${blocker.host} (${blocker.verdict})` }
    }
    mine.lease = acquired.lease
    if (!mine.lost) this.#lease = acquired.lease
    return { taken: true, by: undefined }
  }

  /** One look at the disk. */
  stands(): boolean {
    return this.#lease?.stands() ?? false
  }

  /** A sign of life. */
  progress(): void {
    this.#lease?.progress()
  }

  /** How often there has to be one. */
  get progressEveryMs(): number {
    return this.#leaseMs / 4
  }

  async release(): Promise<boolean> {
    const lease = this.#lease
    this.#lease = undefined
    await lease?.release()
    return lease !== undefined
  }
}

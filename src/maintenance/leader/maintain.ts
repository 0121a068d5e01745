/** Maintenance of a store: one round on request, or one now and then for as long as it is open. */
import type { CheckedMaintenance } from '../../backend.js'
import type { Inside } from '../../file/backend.js'
import { channels } from '../../file/stats.js'
import type { MaintenanceEvent, MaintenanceReport, StepReport } from '../../upkeep.js'
import { Pace } from '../pace.js'
import { Background, rest } from './background.js'
import { Lead } from './lead.js'
import { runRound, type Step } from './round.js'

export class Maintainer {
  #inside: Inside
  #options: CheckedMaintenance
  #steps: readonly Step[]
  #damage = new Set<string>()

  /** @param steps  those that there are; what they remember between rounds is theirs */
  constructor(inside: Inside, options: CheckedMaintenance, steps: readonly Step[]) {
    this.#inside = inside
    this.#options = options
    this.#steps = steps
  }

  /** One round, now. */
  async once(signal: AbortSignal | undefined): Promise<MaintenanceReport> {
    this.#inside.vital.assertWritable()
    const lead = this.#lead()
    const { taken, by } = await lead.take()
    if (!taken) {
      this.#tell({ event: 'leader', outcome: 'busy', text: by })
      return { led: false, leader: by, steps: [], stopped: false }
    }
    try {
      const steps = await this.#round(lead, signal, undefined)
      const stopped = signal?.aborted === true || steps.some(({ outcome }) => outcome === 'stopped') || !lead.stands()
      return { led: true, leader: undefined, steps, stopped }
    } finally {
      await lead.release()
    }
  }

  background(): Background {
    this.#inside.vital.assertWritable()
    const { host, vital } = this.#inside
    const lead = this.#lead()
    return new Background(
      {
        host,
        lead,
        round: async (signal) => void (await this.#round(lead, signal, (ms, aborted) => rest(host, ms, aborted))),
        tell: (event) => this.#tell(event),
        over: () => vital.poisoned,
      },
      this.#options,
    )
  }

  #lead(): Lead {
    const lost = (text: string) => this.#tell({ event: 'leader', outcome: 'lost', text })
    return new Lead(this.#inside.leads, this.#options.leaseMs, { lost })
  }

  async #round(
    lead: Lead,
    signal: AbortSignal | undefined,
    waits: ((ms: number, signal: AbortSignal | undefined) => Promise<void>) | undefined,
  ) {
    const { host, counters, vital } = this.#inside
    const { budgetMs, pauseMs } = this.#options
    const pace = new Pace(host.clock, { budgetMs, pauseMs, signal, rest: waits, onBreath: () => lead.progress() })
    const goesOn = () => signal?.aborted !== true && !vital.poisoned && lead.stands()
    const reports: StepReport[] = await runRound(this.#steps, { clock: host.clock, pace, goesOn, tell: (event) => this.#tell(event) })
    counters.maintenanceRounds++
    counters.maintenanceFailures += reports.filter(({ outcome }) => outcome === 'failed').length
    return reports
  }

  #tell(event: MaintenanceEvent): void {
    if (event.event === 'damage') this.#countDamage(event)
    if (channels.maintenance.hasSubscribers) channels.maintenance.publish(event)
    try {
      this.#options.onEvent?.(event)
    } catch (error) {
      this.#inside.vital.report('listener-failed', error)
    }
  }

  /** The same place is come across again in each round. */
  #countDamage({ file, outcome, text }: MaintenanceEvent): void {
    const place = JSON.stringify([file, outcome, text])
    if (this.#damage.has(place)) return
    this.#damage.add(place)
    this.#inside.counters.damageFound++
  }
}

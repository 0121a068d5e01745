/** Rounds of maintenance of a store in a database: what is asked for, and a little forgetting. There is no leader: every step takes a few rows at a
 *  time, and is safe, and soon done, while others do the same. */
import type { CheckedMaintenance, Running } from '../../backend.js'
import type { PostgresInside } from '../../postgres/backend.js'
import type { MaintenanceEvent, MaintenanceReport, StepReport } from '../../upkeep.js'
import { retainSessions } from './retain.js'

const commitsPerStatement = 10_000
const asking = { doing: 'maintenance' }

interface Step {
  readonly name: string
  /** @returns how many units. */
  run(signal: AbortSignal | undefined): Promise<number>
}

export class Rounds {
  readonly #inside: PostgresInside
  readonly #options: CheckedMaintenance

  constructor(inside: PostgresInside, options: CheckedMaintenance) {
    this.#inside = inside
    this.#options = options
  }

  async once(signal: AbortSignal | undefined): Promise<MaintenanceReport> {
    const { counters } = this.#inside
    const steps: StepReport[] = []
    for (const step of this.#steps()) {
      if (signal?.aborted) break
      steps.push(await this.#run(step, signal))
    }
    counters.maintenanceRounds++
    counters.maintenanceFailures += steps.filter(({ outcome }) => outcome === 'failed').length
    return { led: true, leader: undefined, steps, stopped: signal?.aborted === true }
  }

  /** Round after round; keeps no process alive. */
  background(): Running {
    const stop = new AbortController()
    const { everyMs, jitter } = this.#options
    let timer: NodeJS.Timeout | undefined
    let running: Promise<unknown> = Promise.resolve()
    const later = () => {
      timer = setTimeout(
        () => {
          running = this.once(stop.signal).then(() => stop.signal.aborted || later())
        },
        everyMs * (1 + jitter * (Math.random() - 0.5)),
      )
      timer.unref()
    }
    later()
    return {
      stop: async () => {
        stop.abort()
        clearTimeout(timer)
        await running
      },
    }
  }

  #steps(): Step[] {
    const { database, schema } = this.#inside
    const { retention, protect } = this.#options
    const forget: Step = {
      name: 'forget-commits',
      run: async (signal) => {
        for (let units = 0; ; ) {
          const [row] = await database.write(`select ${schema}.forget_commits($1) as gone`, [commitsPerStatement], asking)
          const gone = Number(row!.gone)
          units += gone
          if (gone < commitsPerStatement || signal?.aborted) return units
        }
      },
    }
    const sweep: Step = {
      name: 'sweep',
      run: async () => {
        await database.write(`select ${schema}.sweep_line()`, [], asking)
        return 0
      },
    }
    if (!retention) return [sweep, forget]
    const retain: Step = {
      name: 'retain',
      run: async (signal) => (await retainSessions(this.#inside, { rules: retention, protect, signal })).archived.length,
    }
    return [sweep, forget, retain]
  }

  async #run({ name, run }: Step, signal: AbortSignal | undefined): Promise<StepReport> {
    const beganMs = performance.now()
    try {
      const units = await run(signal)
      const tookMs = performance.now() - beganMs
      this.#tell({ event: 'step', step: name, outcome: 'done', tookMs })
      return { step: name, outcome: 'done', units, tookMs }
    } catch (error) {
      const tookMs = performance.now() - beganMs
      const outcome = signal?.aborted ? 'stopped' : 'failed'
      this.#tell({ event: 'step', step: name, outcome, tookMs, error })
      return { step: name, outcome, units: 0, tookMs, ...(outcome === 'failed' && { error }) }
    }
  }

  #tell(event: MaintenanceEvent): void {
    try {
      this.#options.onEvent?.(event)
    } catch {
      // A listener's failure is its own.
    }
  }
}

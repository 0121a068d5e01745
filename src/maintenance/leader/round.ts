/** One round of maintenance: step after step, each in small units with room for others between them. No unit leaves a lock behind, and none
 *  needs another's: so it can be stopped between any two, and a step that fails hinders no other. */

import type { Clock } from '../../clock.js'
import { ioError } from '../../errors.js'
import type { MaintenanceEvent, StepReport } from '../../upkeep.js'
import type { Pace } from '../pace.js'

/** What a step tells of one unit: whose, and what became of it. */
export interface Unit {
  readonly outcome: string
  readonly key?: string | undefined
  readonly sessionId?: string | undefined
  readonly file?: string | undefined
  readonly bytes?: number | undefined
  readonly text?: string | undefined
  readonly error?: unknown
  /** It is not done work but damage that was come across. */
  readonly damage?: boolean
}

export interface Step {
  readonly name: string
  /** Whether there is any sense in it, with the options as they are. */
  readonly wanted: boolean
  run(pace: Pace): AsyncIterable<Unit>
}

export interface RoundTools {
  readonly clock: Clock
  readonly pace: Pace
  /** Asked before each unit: false ends the round. */
  goesOn(): boolean
  tell(event: MaintenanceEvent): void
}

export async function runRound(steps: readonly Step[], tools: RoundTools): Promise<StepReport[]> {
  const reports: StepReport[] = []
  for (const step of steps) {
    if (!step.wanted) continue
    if (!tools.goesOn()) break
    reports.push(await runStep(step, tools))
  }
  return reports
}

async function runStep({ name, run }: Step, { clock, pace, goesOn, tell }: RoundTools): Promise<StepReport> {
  const beganMs = clock.monotonicMs()
  let sinceMs = beganMs
  let units = 0
  let outcome: StepReport['outcome'] = 'done'
  let error: unknown
  try {
    for await (const unit of run(pace)) {
      const nowMs = clock.monotonicMs()
      const { damage, ...facts } = unit
      tell({ event: damage ? 'damage' : 'step', step: name, tookMs: nowMs - sinceMs, ...facts })
      units++
      if (!goesOn()) {
        outcome = 'stopped'
        break
      }
      await pace.breathe()
      sinceMs = clock.monotonicMs()
    }
  } catch (thrown) {
    outcome = pace.stopped ? 'stopped' : 'failed'
    if (outcome === 'failed') error = ioError(thrown, `maintenance, ${name}`, 'unknown')
  }
  const tookMs = clock.monotonicMs() - beganMs
  const failure = error === undefined ? {} : { error, text: (error as Error).message }
  tell({ event: 'step', step: name, outcome, tookMs, ...failure })
  return { step: name, outcome, units, tookMs, ...(error !== undefined && { error }) }
}

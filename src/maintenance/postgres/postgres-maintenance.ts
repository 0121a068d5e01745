/** Care of a store in a database. What a database does for itself is left to it. */
import type { CheckedMaintenance, MaintenancePort, Running } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { PostgresInside } from '../../postgres/backend.js'
import type { RepairPlan, RepairReport } from '../../repair-plan.js'
import type { VerifyOptions, VerifyReport } from '../../types.js'
import type { MaintenanceReport, RetainOptions, RetentionReport } from '../../upkeep.js'
import { retainSessions } from './retain.js'
import { Rounds } from './rounds.js'
import { verifyTables } from './verify.js'

export class PostgresMaintenance implements MaintenancePort {
  readonly #inside: PostgresInside

  constructor(inside: PostgresInside) {
    this.#inside = inside
  }

  verify(options: VerifyOptions): Promise<VerifyReport> {
    return verifyTables(this.#inside, options)
  }

  retain(options: RetainOptions): Promise<RetentionReport> {
    return retainSessions(this.#inside, options)
  }

  maintain(options: CheckedMaintenance, signal: AbortSignal | undefined): Promise<MaintenanceReport> {
    return new Rounds(this.#inside, options).once(signal)
  }

  background(options: CheckedMaintenance): Running {
    return new Rounds(this.#inside, options).background()
  }

  async planRepair(): Promise<RepairPlan> {
    throw notOurs()
  }

  async repair(): Promise<RepairReport> {
    throw notOurs()
  }
}

function notOurs(): StoreError {
  return new StoreError('INVALID_OPTION', 'a store in PostgreSQL is not repaired by holdfast.', {
    hint: 'Nothing was done. `verify` says what is wrong; restore the schema from a backup (pg_dump, or the server’s own), as a whole.',
  })
}

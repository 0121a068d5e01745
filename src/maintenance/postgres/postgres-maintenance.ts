/** Care of a store in a database. What a database does for itself is left to it. */
import type { ArchiveInfo, CompactBytesReceipt, RestoreOptions, RestoreReceipt } from '../../archives.js'
import type { CheckedMaintenance, EntryFrom, MaintenancePort, Running } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { PostgresInside } from '../../postgres/backend.js'
import type { RepairPlan, RepairReport } from '../../repair-plan.js'
import type { ReadOptions, StoredRecord, VerifyOptions, VerifyReport } from '../../types.js'
import type { MaintenanceReport, RetainOptions, RetentionReport } from '../../upkeep.js'
import { archivesOf, readArchived, restoreArchived } from './archives.js'
import { retainSessions } from './retain.js'
import { Rounds } from './rounds.js'
import { verifyTables } from './verify.js'

export class PostgresMaintenance implements MaintenancePort {
  readonly #inside: PostgresInside

  constructor(inside: PostgresInside) {
    this.#inside = inside
  }

  /** There is nothing void in a table, and what autovacuum cannot give back is the database's own. */
  async compactBytes(): Promise<CompactBytesReceipt> {
    throw notOurs('its bytes are not compacted by holdfast', 'Vacuum gives back what is free; `compact` makes summaries as with files.')
  }

  archives(key: string | undefined): Promise<ArchiveInfo[]> {
    return archivesOf(this.#inside, key)
  }

  readArchive(archive: string, options: ReadOptions): AsyncIterable<StoredRecord> {
    return readArchived(this.#inside, archive, options)
  }

  restoreArchive(archive: string, options: RestoreOptions, entryFrom: EntryFrom): Promise<RestoreReceipt> {
    return restoreArchived(this.#inside, archive, { ...options, entry: entryFrom(undefined) })
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
    throw notOurs('it is not repaired by holdfast', repairHint)
  }

  async repair(): Promise<RepairReport> {
    throw notOurs('it is not repaired by holdfast', repairHint)
  }
}

const repairHint = '`verify` says what is wrong; restore the schema from a backup (pg_dump, or the server’s own), as a whole.'

function notOurs(what: string, hint: string): StoreError {
  return new StoreError('INVALID_OPTION', `the store is in PostgreSQL: ${what}.`, { hint: `Nothing was done. ${hint}` })
}

/** Care of a store of files. */

import type { ArchiveInfo, CompactBytesOptions, CompactBytesReceipt, RestoreOptions, RestoreReceipt } from '../archives.js'
import type { CheckedMaintenance, EntryFrom, MaintenancePort, Running } from '../backend.js'
import { errnoOf, ioError, isStoreError, type StoreError } from '../errors.js'
import type { Inside } from '../file/backend.js'
import { checkFormat } from '../file/format.js'
import { compactTranscript } from '../file/transcripts/care.js'
import type { RepairPlan, RepairReport } from '../repair-plan.js'
import type { ReadOptions, StoredRecord, VerifyOptions, VerifyReport } from '../types.js'
import type { MaintenanceReport, RetainOptions, RetentionReport } from '../upkeep.js'
import { listArchives } from './archive/list.js'
import { readArchive } from './archive/read.js'
import { restoreArchive } from './archive/restore.js'
import { Maintainer } from './leader/maintain.js'
import { stepsOf } from './leader/steps.js'
import { planStore } from './repair/plan.js'
import { applyPlan } from './repair/repair.js'
import { retain } from './retention/retain.js'
import { verifyStore } from './verify/verify.js'

export class FileMaintenance implements MaintenancePort {
  #inside: Inside

  constructor(inside: Inside) {
    this.#inside = inside
  }

  async compactBytes(key: string, options: CompactBytesOptions): Promise<CompactBytesReceipt> {
    const { transcripts, metadata, vital } = this.#inside
    vital.assertWritable()
    const work = compactTranscript(transcripts, metadata, key, { ...options, minBytes: options.minBytes ?? 1 })
    const done = await work.catch((error: unknown) => {
      throw errnoOf(error) === undefined ? error : ioError(error, 'compacting a transcript', 'none')
    })
    if (done) return { compacted: true, ...done }
    const sessionId = await metadata.sessionIdOf(key)
    return { compacted: false, sessionId, bytesBefore: 0, bytesAfter: 0, from: undefined, archive: undefined }
  }

  archives(key: string | undefined): Promise<ArchiveInfo[]> {
    return listArchives(this.#inside, key)
  }

  readArchive(archive: string, options: ReadOptions): AsyncIterable<StoredRecord> {
    return readArchive(this.#inside, archive, options)
  }

  restoreArchive(archive: string, options: RestoreOptions, entryFrom: EntryFrom): Promise<RestoreReceipt> {
    return restoreArchive(this.#inside, archive, options, entryFrom).catch((error: unknown) => {
      throw errnoOf(error) === undefined ? error : ioError(error, 'restoring an archive', 'unknown')
    })
  }

  async verify(options: VerifyOptions): Promise<VerifyReport> {
    const { host, places, tag } = this.#inside
    return verifyStore(host, places, tag, options, await this.#refusal())
  }

  /** What a store was found damaged with when it was opened, unless it has been mended since. */
  async #refusal(): Promise<StoreError | undefined> {
    const { host, places, metadata, vital } = this.#inside
    if (!vital.damage) return undefined
    try {
      checkFormat(host, places)
      await metadata.reload()
      return undefined
    } catch (error) {
      return isStoreError(error) ? error : vital.damage
    }
  }

  retain(options: RetainOptions): Promise<RetentionReport> {
    return retain(this.#inside, options)
  }

  maintain(options: CheckedMaintenance, signal: AbortSignal | undefined): Promise<MaintenanceReport> {
    return this.#maintainer(options).once(signal)
  }

  background(options: CheckedMaintenance): Running {
    return this.#maintainer(options).background()
  }

  #maintainer(options: CheckedMaintenance): Maintainer {
    return new Maintainer(this.#inside, options, stepsOf(this.#inside, options))
  }

  async planRepair(options: VerifyOptions): Promise<RepairPlan> {
    return planStore(this.#inside, await this.verify(options), options)
  }

  async repair(plan: RepairPlan, options: VerifyOptions): Promise<RepairReport> {
    this.#inside.vital.assertMendable()
    return applyPlan(this.#inside, plan, options)
  }
}

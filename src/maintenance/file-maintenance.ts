/** Care of a store of files. */
import type { MaintenancePort } from '../backend.js'
import { errnoOf, ioError } from '../errors.js'
import type { Inside } from '../file/backend.js'
import { compactTranscript } from '../file/transcripts/care.js'
import type { RepairPlan, RepairReport } from '../repair-plan.js'
import type { CompactBytesOptions, CompactBytesReceipt, VerifyOptions, VerifyReport } from '../types.js'
import { planStore } from './repair/plan.js'
import { applyPlan } from './repair/repair.js'
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

  verify(options: VerifyOptions): Promise<VerifyReport> {
    const { host, places, tag, metadata } = this.#inside
    const checkPair = async () => {
      await metadata.reload()
      return (await metadata.cells()).size
    }
    return verifyStore(host.disk, places, tag, checkPair, options)
  }

  async planRepair(options: VerifyOptions): Promise<RepairPlan> {
    return planStore(this.#inside, await this.verify(options), options)
  }

  async repair(plan: RepairPlan, options: VerifyOptions): Promise<RepairReport> {
    this.#inside.vital.assertMendable()
    return applyPlan(this.#inside, plan, options)
  }
}

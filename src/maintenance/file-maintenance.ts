/** Care of a store of files. */
import type { MaintenancePort } from '../backend.js'
import type { Inside } from '../file/backend.js'
import type { RepairPlan, RepairReport } from '../repair-plan.js'
import type { VerifyOptions, VerifyReport } from '../types.js'
import { planStore } from './repair/plan.js'
import { applyPlan } from './repair/repair.js'
import { verifyStore } from './verify/verify.js'

export class FileMaintenance implements MaintenancePort {
  #inside: Inside

  constructor(inside: Inside) {
    this.#inside = inside
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

/** Care of a store of files. */
import type { MaintenancePort } from '../backend.js'
import type { Inside } from '../file/backend.js'
import type { VerifyOptions, VerifyReport } from '../types.js'
import { verifyStore } from './verify/verify.js'

export class FileMaintenance implements MaintenancePort {
  #inside: Inside

  constructor(inside: Inside) {
    this.#inside = inside
  }

  verify(options: VerifyOptions): Promise<VerifyReport> {
    const { host, places, tag } = this.#inside
    return verifyStore(host, places, tag, options)
  }
}

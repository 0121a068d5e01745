import type { Backend, MaintenancePort } from '../../src/backend.js'
import type { FileBackend } from '../../src/file/backend.js'
import { FileMaintenance } from '../../src/maintenance/file-maintenance.js'

/** The maintenance of a store of files. */
export function careOf(backend: Backend): MaintenancePort {
  return new FileMaintenance((backend as FileBackend).inside)
}

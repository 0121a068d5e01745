/** In the order in which they run. */
import { appendPower } from './append-power.js'
import { appendProcess } from './append-process.js'
import { appendTogether } from './append-together.js'
import { backup } from './backup.js'
import { besideMaintenance } from './beside-maintenance.js'
import { compaction } from './compaction.js'
import { eventLoop } from './event-loop.js'
import { faults } from './faults.js'
import { get } from './get.js'
import type { Workload } from './harness/workload.js'
import { idleLanes } from './idle-lanes.js'
import { lock } from './lock.js'
import { memory } from './memory.js'
import { metadataConcurrent } from './metadata-concurrent.js'
import { metadataScale } from './metadata-scale.js'
import { metadataUpdate } from './metadata-update.js'
import { open } from './open.js'
import { postgres } from './postgres.js'
import { processesMetadata } from './processes-metadata.js'
import { processesOwnSessions } from './processes-own-sessions.js'
import { repair } from './repair.js'
import { transcriptOpen } from './transcript-open.js'
import { turnHandOver } from './turn-hand-over.js'
import { turns } from './turns.js'
import { verify } from './verify.js'

export const workloads: readonly Workload[] = [
  lock,
  get,
  open,
  transcriptOpen,
  memory,
  eventLoop,
  appendProcess,
  appendPower,
  appendTogether,
  besideMaintenance,
  compaction,
  repair,
  turns,
  turnHandOver,
  idleLanes,
  metadataUpdate,
  metadataScale,
  metadataConcurrent,
  processesOwnSessions,
  processesMetadata,
  verify,
  faults,
  backup,
  postgres,
]

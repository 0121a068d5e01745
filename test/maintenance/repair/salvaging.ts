/** Bytes in, bytes out: what a repair makes of a damaged log, without a store around it. */
import type { Disk } from '../../../src/file/durable.js'
import { planLog } from '../../../src/maintenance/repair/log-plan.js'
import { NewLog } from '../../../src/maintenance/repair/new-log.js'
import type { LogRewrite, RepairAction } from '../../../src/repair-plan.js'
import { processDisk } from '../../simulation/process-disk.js'
import { SimulatedDisk } from '../../simulation/simulated-disk.js'

export interface Salvaging {
  readonly action: Omit<RepairAction, 'id'>
  readonly bytes: Buffer
  /** Of the damaged file: what is not in the new one. */
  readonly removed: number
}

export interface Knowing {
  readonly sessionId?: string
  readonly knownSeq?: number
  readonly knownHeader?: number
  readonly hasEarlier?: boolean
}

export async function salvaged(bytes: Buffer, boot: string, knowing: Knowing = {}): Promise<Salvaging> {
  const simulated = new SimulatedDisk()
  const disk: Disk = processDisk(simulated, 1)
  write(disk, '/damaged', bytes)
  const about = { sessionId: 's', key: 'k', createdAt: 1, knownSeq: -1, knownHeader: undefined, hasEarlier: false, ...knowing }
  const action = await planLog(disk, '/damaged', 'transcripts/s.jsonl', about)
  const work = action.work as LogRewrite
  const source = disk.open('/damaged', 'read')
  const target = disk.open('/new', 'create')
  const log = new NewLog(disk, source, target, work, `${boot}ffffffff`, { at: 2, why: 'lost', quarantine: undefined })
  await log.write()
  const made = disk.open('/new', 'read')
  const into = Buffer.alloc(disk.fstat(made).size)
  disk.read(made, into, 0, into.length, 0)
  return { action, bytes: into, removed: action.quarantines[0]?.bytes ?? 0 }
}

function write(disk: Disk, path: string, bytes: Buffer): void {
  const fd = disk.open(path, 'create')
  disk.write(fd, bytes)
  disk.close(fd)
}

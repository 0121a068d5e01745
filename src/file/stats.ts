/** What one handle has done since it was opened. */
import diagnostics from 'node:diagnostics_channel'
import type { StoreStats } from '../types.js'

type Counted = { -readonly [K in keyof Omit<StoreStats, 'takeovers'>]: number }

export interface Counters extends Counted {
  takeovers: { dead: number; expired: number }
}

export function newCounters(): Counters {
  return {
    commits: 0,
    recordsWritten: 0,
    bytesWritten: 0,
    reruns: 0,
    conflicts: 0,
    voidLines: 0,
    syncs: 0,
    checkpoints: 0,
    lockAcquisitions: 0,
    lockWaits: 0,
    lockWaitMsTotal: 0,
    lockWaitMsMax: 0,
    lockTimeouts: 0,
    locksLost: 0,
    handOvers: 0,
    offersLapsed: 0,
    takeovers: { dead: 0, expired: 0 },
    maintenanceRounds: 0,
    maintenanceFailures: 0,
    damageFound: 0,
  }
}

/** Channels are process-wide by Node's design; publishing costs nothing while nobody listens. */
export const channels = {
  lock: diagnostics.channel('holdfast:lock'),
  commit: diagnostics.channel('holdfast:commit'),
  maintenance: diagnostics.channel('holdfast:maintenance'),
}

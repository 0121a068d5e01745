/** What one handle has done since it was opened. What concerns files and their locks stays at zero. */
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

/** The same channel as that of a store of files: whoever listens hears of both. */
export const commitChannel = diagnostics.channel('holdfast:commit')

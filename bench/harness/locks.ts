/** The lock alone, without a store around it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemHost } from '../../src/file/host.js'
import { Baton } from '../../src/file/lock/baton.js'
import { newCounters } from '../../src/file/stats.js'
import { underLock } from '../compare/design-card.js'

export interface CycledLock {
  /** Takes the lock and gives it back. */
  readonly cycle: () => unknown
}

export function openLock(lock: 'holdfast' | 'proper-lockfile', dir: string): CycledLock {
  mkdirSync(dir, { recursive: true })
  if (lock === 'proper-lockfile') {
    const file = join(dir, 'guarded')
    writeFileSync(file, '')
    const locked = underLock(file, 10_000)
    return { cycle: () => locked(async () => {}) }
  }
  const host = systemHost()
  const baton = new Baton(host, join(dir, 'lock'), { maxHoldMs: 15_000, counters: newCounters(), label: 'bench' })
  return {
    cycle() {
      const held = baton.tryAcquire('bench')
      if (held) return baton.release(held)
      const options = { does: 'bench', deadlineMs: host.clock.monotonicMs() + 60_000, waitMs: 60_000 }
      return baton.acquire(options).then((late) => baton.release(late))
    },
  }
}

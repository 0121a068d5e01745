/** A process that takes leases, writes a few lines under each, and gives it back, until its channel is closed. As it must be done: read, then
 *  look whether the lease stands, then write what continues what was read. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { systemHost } from '../../src/file/host.js'
import { type Lease, Leases } from '../../src/file/lock/lease.js'
import { newCounters } from '../../src/file/stats.js'
import { Follower } from './lease-lines.js'
import type { WantOptions } from './lease-trials.js'

const { dir, names, maxHoldMs, stallMs, idleMs, ends } = JSON.parse(process.argv[2] ?? '{}') as WantOptions
const leases = new Leases(systemHost(), join(dir, 'turns'), { counters: newCounters(), label: 'turns', idleMs })
const logs = new Map(names.map((name) => [name, new Follower(join(dir, `${name}.log`))]))
const cell = new Int32Array(new SharedArrayBuffer(4))
// Without somebody who listens for it the channel keeps nobody alive; that it is closed, `connected` says, even when it was before we came.
process.on('disconnect', () => {})

function take(name: string) {
  return leases.tryAcquire(name, { maxHoldMs, does: 'turn', onLost: () => {}, onExpired: () => {} })
}

function standStill(): void {
  if (Math.random() < 0.02) Atomics.wait(cell, 0, 0, Math.random() * stallMs)
}

async function work(name: string, lease: Lease): Promise<void> {
  const log = logs.get(name)!
  const owner = `${process.pid}-${randomBytes(6).toString('hex')}`
  for (let left = Math.floor(Math.random() * 4); left >= 0; left--) {
    standStill()
    const after = log.last()
    if (!lease.stands()) return
    standStill() // The worst moment for it.
    log.append({ id: randomBytes(6).toString('hex'), after, token: lease.token, owner })
    if (Math.random() < 0.2) await pause(Math.random() * 3)
    lease.progress()
  }
}

async function wantAlways(): Promise<void> {
  while (process.connected) {
    const name = names[Math.floor(Math.random() * names.length)]!
    const { lease } = await take(name)
    if (!lease) {
      await pause(Math.random() * 2)
      continue
    }
    await work(name, lease)
    await lease.release()
  }
}

if (ends) {
  const { lease } = await take(names[0]!)
  process.send?.({ token: lease?.token })
  if (ends === 'never') setInterval(() => {}, 1_000)
  if (ends === 'exit') setTimeout(() => process.exit(0), 50)
  if (ends === 'by itself') process.disconnect()
} else await wantAlways()
leases.close()

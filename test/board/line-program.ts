/** A process that stands in line for the lease of one key, works a little under it, and goes to the end of the line, until its channel is
 *  closed. Says, for each turn, when it had waited since, when it got it, and when it gave it back. */
import { setTimeout as pause } from 'node:timers/promises'
import { systemHost } from '../../src/file/host.js'
import { Leases } from '../../src/file/lock/lease.js'
import { newCounters } from '../../src/file/stats.js'
import { Board } from '../../src/file/turns/board.js'
import { leaseInTurn } from '../../src/file/turns/waiting.js'

export interface TurnTimes {
  readonly pid: number
  readonly token: number
  readonly drawnMs: number
  readonly begunMs: number
  readonly endedMs: number
}

process.on('disconnect', () => {})
const [dir, maxHoldMs] = [process.argv[2]!, Number(process.argv[3])]
const host = systemHost()
const { clock } = host
/** Straight from the system: the same in all processes, to the microsecond. */
const nowMs = () => Number(process.hrtime.bigint()) / 1e6
const board = new Board(host, dir)
const leases = new Leases(host, dir, { counters: newCounters(), label: 'turns' })
const options = { maxHoldMs, does: 'turn', onLost: () => {}, onExpired: () => {} }

for (let turn = 0; process.connected; turn++) {
  const drawnMs = nowMs()
  const card = board.draw({ key: 'k', requestId: `r-${process.pid}-${turn}`, channelId: undefined, lane: 'main', whenBusy: 'queue' })
  const { lease } = await leaseInTurn({ clock, board, leases }, card, options, { waitMs: 30_000 })
  const begunMs = nowMs()
  card.update({ state: 'active', turn })
  await pause(Math.random() * 4)
  const { token } = lease
  const endedMs = nowMs()
  await lease.release()
  card.remove()
  if (process.connected) process.send?.({ pid: process.pid, token, drawnMs, begunMs, endedMs } satisfies TurnTimes, () => {})
}

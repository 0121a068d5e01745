/** Speed with writers that are killed, frozen and stalled: a store that is fast because it lets two writers in shows both numbers. Each of 8
 *  processes counts up an entry of its own among 100, and notes every acknowledgement in a file that a SIGKILL cannot take back. One of
 *  them falls asleep inside its change now and then, as a process does whose event loop is blocked. */
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Peer } from './compare/peer.js'
import { countersOf, remarkOf, seeded } from './harness/contestants.js'
import { Worker } from './harness/crew.js'
import { isBelow } from './harness/verdict.js'
import type { Bench, Row, Workload } from './harness/workload.js'

const writers = 8
const sessions = 100
/** proper-lockfile takes nothing shorter. */
const staleMs = 2_000
const frozenMs = 2_600

export const faults: Workload = {
  name: 'faults',
  title: `8 processes counting up; one often asleep in its change, every 0.5 s one killed or frozen for ${frozenMs / 1000} s; locks go stale after ${staleMs / 1000} s`,
  async run(bench) {
    const rows: Row[] = []
    for (const peer of bench.named('holdfast', 'sqlite WAL FULL', 'lmdb', 'design card', 'fs-safe jsonStore'))
      rows.push(await underFire(bench, peer, bench.quick ? 4_000 : 8_000))
    return { rows, verdicts: [isBelow('nothing lost', rows[0]!.lost!, 0, 'updates')] }
  },
}

async function underFire(bench: Bench, peer: Peer, forMs: number): Promise<Row> {
  const dir = await seeded(bench, peer, sessions, 'faults')
  const acksDir = `${dir}-acks`
  mkdirSync(acksDir)
  let hired = 0
  const hire = async (sleepy: boolean) => {
    const key = `agent:counter:${hired++}`
    const worker = new Worker(
      { kind: 'count', peer: peer.name, dir, key, ackPath: join(acksDir, key.replaceAll(':', '-')), staleMs, sleepy },
      peer.execPath,
    )
    await worker.next()
    return worker
  }
  const crew = await Promise.all(Array.from({ length: writers }, (_, index) => hire(index === 0)))
  const frozen = new Set<Worker>()
  const thaws: Promise<void>[] = []
  const startedMs = performance.now()
  for (let shot = 0; performance.now() - startedMs < forMs; shot++) {
    await sleep(500)
    // The sleeper sleeps; the others are shot at.
    const at = 1 + (shot % (writers - 1))
    const victim = crew[at]!
    if (frozen.has(victim)) continue
    if (shot % 3 === 0) {
      victim.child.kill('SIGKILL')
      crew[at] = await hire(false)
    } else {
      frozen.add(victim)
      victim.child.kill('SIGSTOP')
      thaws.push(
        sleep(frozenMs).then(() => {
          victim.child.kill('SIGCONT')
          frozen.delete(victim)
        }),
      )
    }
  }
  await Promise.all(thaws)
  const elapsedMs = performance.now() - startedMs
  const refusals = await Promise.all(crew.map((worker) => worker.stop()))
  return { ...(await counted(peer, dir, acksDir, hired, elapsedMs)), remark: remarkFor(peer, refusals as [string, number][][]) }
}

async function counted(peer: Peer, dir: string, acksDir: string, hired: number, elapsedMs: number): Promise<Row> {
  const stored = await countersOf(peer, dir)
  let acknowledged = 0
  let lost = 0
  for (let index = 0; index < hired; index++) {
    const key = `agent:counter:${index}`
    const acks = statSync(join(acksDir, key.replaceAll(':', '-'))).size
    acknowledged += acks
    lost += Math.max(0, acks - (stored.get(key) ?? 0))
  }
  const us = (elapsedMs * 1000) / Math.max(1, acknowledged)
  return { contestant: peer.name, median: us, low: us, high: us, unit: 'us', perSecond: 1e6 / us, acknowledged, lost }
}

function remarkFor(peer: Peer, refusals: readonly [string, number][][]): string | undefined {
  const all = new Map<string, number>()
  for (const [code, count] of refusals.flat()) all.set(code, (all.get(code) ?? 0) + count)
  const refused = [...all].map(([code, count]) => `${count} refused with ${code}`)
  return [remarkOf(peer), ...refused].filter((text) => text !== undefined).join('; ') || undefined
}

/** Peers as contestants: each with a store of its own, opened here or, when it needs another Node, in a process of its own. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { countOf, type Peer, type Sessions } from '../compare/peer.js'
import { Crew, errand } from './crew.js'
import { randomIndex, sessionKey } from './data.js'
import { type Contestant, sliceAsync } from './measure.js'
import type { Bench } from './workload.js'

/** A store of this peer's own, with entries 0 to count - 1. */
export async function seeded(bench: Bench, peer: Peer, count: number, label = String(count)): Promise<string> {
  const dir = join(bench.dir, `${peer.name.replaceAll(/[^a-z0-9]+/gi, '-')}-${label}`)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  if (peer.execPath) await errand({ kind: 'seed', peer: peer.name, dir, sessions: count }, peer.execPath)
  else await peer.seed(dir, count)
  return dir
}

/** The counter of every entry, by whichever Node can read it. */
export async function countersOf(peer: Peer, dir: string): Promise<Map<string, number>> {
  if (!peer.execPath) return peer.counters(dir)
  return new Map((await errand({ kind: 'counters', peer: peer.name, dir }, peer.execPath)) as [string, number][])
}

/** What every workload does to an entry: count up. */
export function countUp(sessions: Sessions, key: string): unknown {
  return sessions.update(key, (fields) => ({ ...fields, n: countOf(fields) + 1 }))
}

/** Each changes random entries, one after another. */
export async function prepare(
  bench: Bench,
  peers: readonly Peer[],
  count: number,
): Promise<{ contestants: Contestant[]; close(): Promise<void> }> {
  const contestants: Contestant[] = []
  const closers: (() => unknown)[] = []
  for (const peer of peers) {
    const dir = await seeded(bench, peer, count)
    if (peer.execPath) {
      const crew = await Crew.hire(
        peer.name,
        [{ kind: 'update', peer: peer.name, dir, sessions: count, seed: 7 }],
        peer.execPath,
        remarkOf(peer),
      )
      contestants.push(crew)
      closers.push(() => crew.dismiss())
      continue
    }
    const sessions = await peer.sessions(dir)
    const random = randomIndex(7)
    const remark = remarkOf(peer)
    contestants.push({
      name: peer.name,
      ...(remark === undefined ? {} : { remark }),
      every: peer.rewrites && count > 1_000 ? 3 : 1,
      slice: (sliceMs) => sliceAsync(() => countUp(sessions, sessionKey(random(count))), sliceMs),
    })
    closers.push(() => sessions.close())
  }
  return {
    contestants,
    async close() {
      for (const close of closers) await close()
    },
  }
}

export function remarkOf(peer: Peer): string | undefined {
  if (peer.execPath) return 'in Node 24'
  return peer.promise === 'process' ? 'a power cut may take acknowledged writes' : undefined
}

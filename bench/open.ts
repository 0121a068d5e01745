/** From nothing to the first entry read, 10,000 sessions, journal folded; against parsing the same bytes. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SessionStore } from '../src/index.js'
import { seeded } from './harness/contestants.js'
import { sessionKey } from './harness/data.js'
import { alternate, type Contestant, named, rowOf, type Slice } from './harness/measure.js'
import { staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const sessions = 10_000

/** A few times, each on a heap that the one before has not filled; closing and collecting do not count. */
async function opening(sliceMs: number, once: () => Promise<() => unknown> | (() => unknown)): Promise<Slice> {
  const beganMs = performance.now()
  let ops = 0
  let elapsedMs = 0
  do {
    globalThis.gc?.()
    const startedMs = performance.now()
    const close = await once()
    elapsedMs += performance.now() - startedMs
    ops++
    await close()
  } while (performance.now() - beganMs < sliceMs)
  return { ops, elapsedMs }
}

export const open: Workload = {
  name: 'open',
  title: 'open and first get, 10,000 sessions',
  async run(bench) {
    const contestants: Contestant[] = []
    for (const peer of bench.named('holdfast', 'sqlite WAL FULL', 'lmdb', 'design card')) {
      const dir = await seeded(bench, peer, sessions)
      if (peer.name === 'holdfast') {
        const bytes = readFileSync(join(dir, 'sessions.json'))
        contestants.push({
          name: 'floor: JSON.parse of the same bytes',
          slice: (sliceMs) =>
            opening(sliceMs, () => {
              const parsed: unknown = JSON.parse(bytes.toString('utf8'))
              return () => parsed
            }),
        })
        contestants.push({
          name: 'holdfast, all entries read',
          slice: (sliceMs) =>
            opening(sliceMs, async () => {
              const store = await SessionStore.open(dir)
              for await (const _ of store.entries());
              return () => store.close()
            }),
        })
      }
      contestants.push({
        name: peer.name,
        slice: (sliceMs) =>
          opening(sliceMs, async () => {
            const store = await peer.sessions(dir)
            await store.get(sessionKey(77))
            return () => store.close()
          }),
      })
    }
    const all = await alternate(contestants, bench.rounds, bench.sliceMs * 2)
    return {
      rows: all.map((one) => rowOf(one, 'ms')),
      verdicts: [staysWithin('2 x JSON.parse of the same bytes', named(all, 'holdfast')!, all[0]!, 2)],
    }
  },
}

/** Peers that append to a session of their own, one record after another. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { remarkOf } from './contestants.js'
import { messageRecord, sessionKey } from './data.js'
import { type Contestant, sliceAsync } from './measure.js'
import type { Bench } from './workload.js'

/** @param burst  how many appends between two looks at the clock */
export async function appending(
  bench: Bench,
  names: readonly string[],
  burst: number,
): Promise<{ contestants: Contestant[]; close(): Promise<void> }> {
  const contestants: Contestant[] = []
  const closers: (() => unknown)[] = []
  const record = messageRecord(1)
  for (const peer of bench.named(...names)) {
    const dir = join(bench.dir, peer.name.replaceAll(/[^a-z0-9]+/gi, '-'))
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    const transcripts = await peer.transcripts!(dir)
    const remark = remarkOf(peer)
    const slice = (sliceMs: number) => sliceAsync(() => transcripts.append(sessionKey(1), record), sliceMs, burst)
    contestants.push({ name: peer.name, ...(remark === undefined ? {} : { remark }), slice })
    closers.push(() => transcripts.close())
  }
  return {
    contestants,
    async close() {
      for (const close of closers) await close()
    },
  }
}

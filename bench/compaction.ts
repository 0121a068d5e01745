/** Compaction of bytes against copying the same file: a transcript of which a summary stands for a tenth. Both end with everything on the disk. */
import { closeSync, copyFileSync, cpSync, fsyncSync, openSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { SessionStore } from '../src/index.js'
import { alternate, rowOf, type Slice } from './harness/measure.js'
import { reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'
import { writeTranscript } from './transcript-open.js'

export const compaction: Workload = {
  name: 'compaction',
  title: 'compaction of bytes against file copy',
  async run(bench) {
    const made = join(bench.dir, 'made')
    const lines = bench.quick ? 20_000 : 100_000
    await writeTranscript(made, 'long', lines)
    const store = await SessionStore.open(made, { durability: 'process' })
    await store.session('long').compact({ keepLast: Math.floor(lines * 0.9), summarize: () => 'the first tenth' })
    await store.close()
    const name = readdirSync(join(made, 'transcripts'))[0]!
    const transcript = join(made, 'transcripts', name)
    const { size } = statSync(transcript)
    const unit = size / (1 << 20)
    bench.note(`${unit.toFixed(1)} MiB, ${lines.toLocaleString('en-US')} lines; rates in MiB/s`)

    const one = join(bench.dir, 'one')
    const repeated = async (ms: number, once: () => Promise<number>): Promise<Slice> => {
      let elapsedMs = 0
      let ops = 0
      for (const beganMs = performance.now(); ops === 0 || performance.now() - beganMs < ms; ops++) elapsedMs += await once()
      return { ops, elapsedMs }
    }
    const compacting = async () => {
      cpSync(made, one, { recursive: true })
      const store = await SessionStore.open(one, { durability: 'process' })
      const startedMs = performance.now()
      const { compacted } = await store.session('long').compactBytes()
      const elapsedMs = performance.now() - startedMs
      if (!compacted) throw new Error('nothing was compacted')
      await store.close()
      rmSync(one, { recursive: true })
      return elapsedMs
    }
    const copying = async () => {
      const startedMs = performance.now()
      const target = join(bench.dir, 'copy')
      copyFileSync(transcript, target)
      const fd = openSync(target, 'r')
      fsyncSync(fd)
      closeSync(fd)
      const elapsedMs = performance.now() - startedMs
      rmSync(target)
      return elapsedMs
    }
    const all = await alternate(
      [
        { name: 'compactBytes', slice: (ms) => repeated(ms, compacting) },
        { name: 'file copy, synced', slice: (ms) => repeated(ms, copying) },
      ],
      bench.rounds,
      bench.sliceMs,
    )
    return {
      rows: all.map((each) => rowOf(each)),
      verdicts: [reachesShare('compaction of bytes against file copy', all[0]!, all[1]!, 0.3, unit)],
    }
  },
}

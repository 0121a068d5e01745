/** verify, against reading the same bytes and taking their crc in one pass. */
import { closeSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { SessionStore } from '../src/index.js'
import { alternate, rowOf, sliceAsync, sliceSync } from './harness/measure.js'
import { reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'
import { writeTranscript } from './transcript-open.js'

const lines = 100_000
const pieceBytes = 1 << 20

function readAll(path: string, piece: Buffer): number {
  const fd = openSync(path, 'r')
  try {
    const { size } = fstatSync(fd)
    let crc = 0
    for (let at = 0; at < size; ) {
      const got = readSync(fd, piece, 0, pieceBytes, at)
      crc = crc32(got === pieceBytes ? piece : piece.subarray(0, got), crc)
      at += got
    }
    return crc
  } finally {
    closeSync(fd)
  }
}

export const verify: Workload = {
  name: 'verify',
  title: `verify, one transcript of ${lines.toLocaleString('en-US')} records`,
  async run(bench) {
    await writeTranscript(bench.dir, 'long', lines)
    const [file] = readdirSync(join(bench.dir, 'transcripts'))
    const path = join(bench.dir, 'transcripts', file!)
    const piece = Buffer.alloc(pieceBytes)
    const store = await SessionStore.open(bench.dir, { readOnly: true })
    try {
      const all = await alternate(
        [
          { name: 'floor: read and crc32, 1 MiB at a time', slice: (ms) => sliceSync(() => void readAll(path, piece), ms) },
          { name: 'holdfast', slice: (ms) => sliceAsync(() => store.verify(), ms) },
          { name: 'holdfast, chat: true', slice: (ms) => sliceAsync(() => store.verify({ chat: true }), ms) },
        ],
        bench.rounds,
        bench.sliceMs * 4,
      )
      return { rows: all.map((one) => rowOf(one, 'ms')), verdicts: [reachesShare('0.5 x reading and crc', all[1]!, all[0]!, 0.5)] }
    } finally {
      await store.close()
    }
  },
}

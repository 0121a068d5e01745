/** The bytes of an open file from one position to another, as far as there are any. */
import type { Disk } from '../../file/durable.js'

const pieceBytes = 1 << 20

export async function* plainBytes(disk: Disk, fd: number, from: number, to: number): AsyncGenerator<Uint8Array> {
  for (let at = from; at < to; ) {
    const piece = Buffer.allocUnsafe(Math.min(pieceBytes, to - at))
    const got = disk.read(fd, piece, 0, piece.length, at)
    if (got <= 0) return
    at += got
    yield piece.subarray(0, got)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

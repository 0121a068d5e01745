/** The bytes of an archived transcript, compressed or not, in order; and what the chain rule makes of them. Memory does not grow with the file. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { StoreError } from '../../errors.js'
import { type Disk, readFully } from '../durable.js'
import type { Chain, ChainSink } from '../log/chain.js'
import { breathe } from '../stage.js'

const pieceBytes = 512 << 10

export interface ArchiveFile {
  readonly disk: Disk
  readonly path: string
  /** For messages: relative to the store. */
  readonly label: string
  readonly compressed: boolean
}

/** @throws ENOENT · LOG_CORRUPT  it cannot be unpacked. */
export async function* archiveBytes({ disk, path, label, compressed }: ArchiveFile, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const fd = disk.open(path, 'read')
  try {
    if (!compressed) return yield* filePieces(disk, fd, signal)
    const gunzip = createGunzip({ chunkSize: pieceBytes })
    const fed = pipeline(Readable.from(filePieces(disk, fd, signal)), gunzip)
    fed.catch(() => {}) // Told to whoever reads on.
    try {
      for await (const piece of gunzip) yield piece as Buffer
      await fed
    } finally {
      // A reader that stops early must not leave somebody reading behind it from a descriptor that is closed.
      gunzip.destroy()
      await fed.catch(() => {})
    }
  } catch (error) {
    if (!isUnpacking(error)) throw error
    throw new StoreError('LOG_CORRUPT', `${label} cannot be unpacked: ${(error as Error).message}.`, {
      cause: error,
      details: { file: label },
      hint: 'Nothing was written. Keep the file; look for another copy of it in a backup.',
    })
  } finally {
    disk.close(fd)
  }
}

function isUnpacking(error: unknown): boolean {
  const code = error instanceof Error ? String((error as NodeJS.ErrnoException).code) : ''
  return code.startsWith('Z_') || code === 'ERR_STREAM_PREMATURE_CLOSE'
}

export async function* filePieces(disk: Disk, fd: number, signal?: AbortSignal): AsyncGenerator<Buffer> {
  for (let at = 0; ; ) {
    signal?.throwIfAborted()
    const bytes = readFully(disk, fd, at, pieceBytes)
    if (bytes.length === 0) return
    at += bytes.length
    yield bytes
    await breathe()
  }
}

/** The lines before the header, while it is not known whether they count; and where what is fed begins. */
export interface ForeignSink extends ChainSink {
  foreignLine?(json: string): void
}

/** Feeds the chain everything, and yields after every piece, with the number of bytes fed by then. */
export async function* feedAll(bytes: AsyncIterable<Buffer>, chain: Chain, sink: ForeignSink): AsyncGenerator<number> {
  let rest: Buffer = Buffer.alloc(0)
  let fed = 0
  for await (const piece of bytes) {
    fed += piece.length
    const all: Buffer = rest.length > 0 ? Buffer.concat([rest, piece]) : piece
    const base = chain.settled
    const noting: ChainSink = sink.foreignLine
      ? { ...sink, foreign: (byte, length) => sink.foreignLine?.(all.toString('utf8', byte - base, byte - base + length)) }
      : sink
    chain.feed(all, noting)
    rest = all.subarray(chain.settled - base)
    yield fed
  }
}

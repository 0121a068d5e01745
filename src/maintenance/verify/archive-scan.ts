/** What is in the archive: logs that are closed, some of them compressed, each with a note beside it. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import type { Disk } from '../../file/durable.js'
import type { ByteSource } from '../../file/log/scan.js'
import { type LogScanOptions, scanFile, scanLog } from './log-scan.js'
import { findingOf, findingSaying, type Report } from './report.js'

const logPattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d{1,16})?\.jsonl(\.gz)?$/
const notePattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.\d{1,16})?(?:\.jsonl)?(?:\.gz)?\.json$/
const pieceBytes = 256 << 10

export interface ArchiveScanTools {
  readonly disk: Disk
  readonly directory: string
  readonly report: Report
  readonly scanning: LogScanOptions
  done(name: string, bytes: number): void
}

export async function scanArchived(name: string, { disk, directory, report, scanning, done }: ArchiveScanTools): Promise<void> {
  const file = `archive/${name}`
  const path = `${directory}/${name}`
  const found = logPattern.exec(name)
  if (!found) return notePattern.test(name) ? undefined : report.find(findingOf('foreign-file', file))
  const about = { file, sessionId: found[1]! }
  const log = found[2] ? await scanCompressed(disk, path, about, scanning) : await scanFile(disk, path, about, scanning)
  if (log === 'gone') return
  if ('islands' in log) {
    report.log(file, 'archive', log)
    return done(name, disk.stat(path)?.size ?? 0)
  }
  report.file({ file, kind: 'archive', bytes: 0, records: 0, lastSeq: -1, voidLines: 0, tornTailBytes: 0, sealed: false })
  report.find(log)
}

async function scanCompressed(
  disk: Disk,
  path: string,
  about: { readonly file: string; readonly sessionId: string },
  scanning: LogScanOptions,
): ReturnType<typeof scanFile> {
  if (disk.stat(path)?.kind !== 'file') return scanFile(disk, path, about, scanning)
  const fd = disk.open(path, 'read')
  const unpacked = new Unpacked(disk, fd, disk.fstat(fd).size)
  try {
    return await scanLog(unpacked, about, scanning)
  } catch (error) {
    if (!isUnpackError(error)) throw error
    return findingSaying('archive-damaged', about.file, `${(error as Error).message}.`, {
      sessionId: about.sessionId,
      bytes: { from: 0, to: unpacked.packedBytes },
    })
  } finally {
    await unpacked.close()
    disk.close(fd)
  }
}

function isUnpackError(error: unknown): boolean {
  return error instanceof Error && String((error as NodeJS.ErrnoException).code).startsWith('Z_')
}

/** What is in a compressed file, as it comes out. */
class Unpacked implements ByteSource {
  /** Read so far. */
  packedBytes = 0
  #gunzip = createGunzip({ chunkSize: pieceBytes })
  #pieces: AsyncIterator<Buffer>
  #feeding: Promise<void>
  #left: Buffer = Buffer.alloc(0)

  constructor(disk: Disk, fd: number, size: number) {
    this.#feeding = pipeline(Readable.from(this.#packed(disk, fd, size)), this.#gunzip).catch(() => {}) // Whoever reads is told.
    this.#pieces = this.#gunzip[Symbol.asyncIterator]()
  }

  async read(into: Buffer, offset: number, length: number): Promise<number> {
    if (this.#left.length === 0) {
      const next = await this.#pieces.next()
      if (next.done) return 0
      this.#left = next.value
    }
    const got = this.#left.copy(into, offset, 0, length)
    this.#left = this.#left.subarray(got)
    return got
  }

  async close(): Promise<void> {
    this.#gunzip.destroy()
    await this.#feeding
  }

  *#packed(disk: Disk, fd: number, size: number): Generator<Buffer> {
    while (this.packedBytes < size) {
      const piece = Buffer.allocUnsafe(Math.min(pieceBytes, size - this.packedBytes))
      const got = disk.read(fd, piece, 0, piece.length, this.packedBytes)
      if (got <= 0) return
      this.packedBytes += got
      yield piece.subarray(0, got)
    }
  }
}

/** Reads back what a restore has written, and holds it against the manifest: every byte by its hash, every log by its chain. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { StoreError } from '../../errors.js'
import { type Disk, readFully } from '../../file/durable.js'
import type { FileRow } from '../repository/repository.js'
import { followLog } from '../snapshot/chain-stream.js'
import type { LogFacts } from '../snapshot/log-reading.js'

const pieceBytes = 1 << 20

export async function* readBack(disk: Disk, path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const fd = disk.open(path, 'read')
  try {
    const { size } = disk.fstat(fd)
    for (let at = 0; at < size; at += pieceBytes) {
      signal?.throwIfAborted()
      yield readFully(disk, fd, at, Math.min(pieceBytes, size - at))
      await new Promise((resume) => setImmediate(resume))
    }
  } finally {
    disk.close(fd)
  }
}

/** @param sha256  of the bytes as they came from the repository
 *  @throws BACKUP_MISMATCH */
export async function proveFile(
  disk: Disk,
  path: string,
  row: FileRow,
  sha256: string,
  tag: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (row.sha256 !== undefined && row.sha256 !== sha256) throw mismatch(row, 'its SHA-256 is not the one in the manifest')
  const hash = createHash('sha256')
  const hashed = async function* () {
    for await (const piece of readBack(disk, path, signal)) {
      hash.update(piece)
      yield piece
    }
  }
  const log = await logIn(row, hashed(), tag)
  if (hash.digest('hex') !== sha256) throw mismatch(row, 'what is on the disk is not what was written to it')
  if (log) assertSession(row, log)
}

/** The log in the bytes of a file; undefined, with the bytes read all the same, when it has none that can be followed. */
export async function logIn(row: FileRow, bytes: AsyncIterable<Uint8Array>, tag: string): Promise<LogFacts | undefined> {
  const sound = row.session !== undefined && (row.findings?.length ?? 0) === 0
  if (!sound) {
    for await (const _ of bytes);
    return undefined
  }
  return followLog(unfolded(row, bytes), tag)
}

/** The log's own bytes, whether its file is compressed or not. */
export function unfolded({ path }: FileRow, bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  if (!path.endsWith('.gz')) return bytes
  const gunzip = createGunzip()
  const source = Readable.from(bytes)
  source.on('error', (error) => gunzip.destroy(error))
  return source.pipe(gunzip)
}

/** @throws BACKUP_MISMATCH  the log is not what the manifest says of it. */
export function assertSession(row: FileRow, { damage, seq, crc }: LogFacts): void {
  if (damage) throw mismatch(row, `its chain is damaged at byte ${damage.byte}, seq ${damage.seq}: ${damage.why}`)
  const { lastSeq, lastCrc } = row.session!
  if (seq !== lastSeq || crc !== lastCrc) throw mismatch(row, `its last record is ${seq} (${crc}), not ${lastSeq} (${lastCrc})`)
}

function mismatch({ path }: FileRow, why: string): StoreError {
  return new StoreError('BACKUP_MISMATCH', `${path} is not what was backed up: ${why}.`, {
    details: { path, why },
    hint: 'Nothing was put in place. Run `holdfast backup check --deep`, and restore another snapshot.',
  })
}

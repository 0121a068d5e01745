/** Compresses archived transcripts, so that `zcat` reads them.
 *
 *  1 pack the file into one in `locks/prepared`, sync it       crash: a stray, swept by maintenance
 *  2 unpack that, and compare                                  the same
 *  3 under the lock: rename it to `….jsonl.gz`, write the      crash: both stand there, the next round does it again
 *    note, sync the directory
 *  4 unlink the plain one                                      crash: the same, or done
 *  The plain one goes last, and only if it is still what was packed. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { createGzip } from 'node:zlib'
import { errnoOf, isStoreError, StoreError } from '../../errors.js'
import { archiveBytes, filePieces } from '../../file/archives/archive-bytes.js'
import { type ArchiveNote, factsOfLog } from '../../file/archives/archive-facts.js'
import { type ArchiveName, noteFile, parseArchiveFile } from '../../file/archives/archive-name.js'
import type { Inside } from '../../file/backend.js'
import { type FileStat, makeDirectories, writeFully } from '../../file/durable.js'
import type { Held } from '../../file/lock/baton.js'
import { stageFile } from '../../file/stage.js'
import { preparedName, removePrepared } from '../../file/transcripts/compaction.js'

export interface Compressed {
  readonly file: string
  /** Before and after; damaged: it is left as it is. */
  readonly outcome: 'compressed' | 'damaged' | 'changed'
  readonly bytes: number
  readonly packedBytes: number
}

/** Packs one archive after another, and tells of each. Safe to be stopped between any two, and for two at once.
 *  @param minAgeMs  since it was last changed: what was archived a moment ago is looked at soonest. */
export async function* compressArchives(inside: Inside, minAgeMs: number, signal?: AbortSignal): AsyncGenerator<Compressed> {
  inside.vital.assertWritable()
  const { places, host } = inside
  for (const file of host.disk.readdir(places.archive).sort()) {
    signal?.throwIfAborted()
    const name = parseArchiveFile(file)
    if (!name || name.compressed || isInUse(inside, name, file) || isYoung(inside, file, minAgeMs)) continue
    try {
      const done = await compressOne(inside, name, file, signal)
      if (done) yield done
    } catch (error) {
      if (isStoreError(error, 'LOG_CORRUPT')) yield { file: `archive/${file}`, outcome: 'damaged', bytes: 0, packedBytes: 0 }
      // Somebody else has done it, or removed it.
      else if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
}

/** A compaction that is not finished: the same file stands in transcripts/. */
function isInUse({ host, places }: Inside, { sessionId }: ArchiveName, file: string): boolean {
  const live = host.disk.stat(`${places.transcripts}/${sessionId}.jsonl`)
  return live !== undefined && live.ino === host.disk.stat(`${places.archive}/${file}`)?.ino
}

function isYoung({ host, places }: Inside, file: string, minAgeMs: number): boolean {
  const changedMs = host.disk.stat(`${places.archive}/${file}`)?.ctimeMs ?? 0
  return minAgeMs > 0 && host.clock.wallMs() - changedMs < minAgeMs
}

async function compressOne(
  inside: Inside,
  name: ArchiveName,
  file: string,
  signal: AbortSignal | undefined,
): Promise<Compressed | undefined> {
  const { host, places, tag } = inside
  const { disk } = host
  const plain = `${places.archive}/${file}`
  const fd = disk.open(plain, 'read')
  try {
    const stat = disk.fstat(fd)
    const facts = factsOfLog(disk, fd, tag)
    // What nobody can read stays as it is, for whoever looks into it.
    if (!facts) return { file: `archive/${file}`, outcome: 'damaged', bytes: stat.size, packedBytes: 0 }
    makeDirectories(disk, `${places.locks}/prepared`)
    const path = `${places.locks}/prepared/${preparedName(host, name.sessionId)}`
    const into = disk.open(path, 'create')
    try {
      const packed = await pack(inside, fd, into, signal)
      await disk.sync(into)
      if (packed.bytes !== stat.size) return { file: `archive/${file}`, outcome: 'changed', bytes: stat.size, packedBytes: 0 }
      await compare(inside, path, file, packed, signal)
      const note: ArchiveNote = { version: 1, ...facts, bytes: packed.bytes, sha256: packed.sha256 }
      const work = (held: Held) => swap(inside, held, name, plain, stat, path, note)
      const swapped = await inside.transcripts.pinned(name.sessionId, facts.key, ({ committer }) =>
        committer.exclusively('archive', { signal }, work),
      )
      return { file: `archive/${file}`, outcome: swapped ? 'compressed' : 'changed', bytes: packed.bytes, packedBytes: packed.packedBytes }
    } finally {
      disk.close(into)
      removePrepared(disk, path)
    }
  } finally {
    disk.close(fd)
  }
}

interface Packed {
  readonly bytes: number
  readonly packedBytes: number
  readonly sha256: string
}

async function pack({ host }: Inside, fd: number, into: number, signal: AbortSignal | undefined): Promise<Packed> {
  const hash = createHash('sha256')
  let bytes = 0
  let packedBytes = 0
  const counted = async function* () {
    for await (const piece of filePieces(host.disk, fd, signal)) {
      hash.update(piece)
      bytes += piece.length
      yield piece
    }
  }
  const gzip = createGzip()
  const from = Readable.from(counted())
  from.on('error', (error) => gzip.destroy(error))
  for await (const piece of from.pipe(gzip)) {
    writeFully(host.disk, into, piece as Buffer)
    packedBytes += (piece as Buffer).length
  }
  if (host.disk.fstat(into).size !== packedBytes)
    throw new StoreError('IO_FAILED', 'a compressed file is shorter than what was written.', { details: { bytes: packedBytes } })
  return { bytes, packedBytes, sha256: hash.digest('hex') }
}

async function compare({ host }: Inside, path: string, file: string, packed: Packed, signal: AbortSignal | undefined): Promise<void> {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const piece of archiveBytes({ disk: host.disk, path, label: `archive/${file}.gz`, compressed: true }, signal)) {
    hash.update(piece)
    bytes += piece.length
  }
  if (bytes !== packed.bytes || hash.digest('hex') !== packed.sha256)
    throw new StoreError('IO_FAILED', `archive/${file} does not come back as it was when it is unpacked.`, {
      details: { file: `archive/${file}`, bytes, expected: packed.bytes },
      hint: 'Nothing was changed. Look at the memory and the disk of this machine.',
    })
}

/** Steps 3 and 4. False when the lock is lost, or the file is not what was packed: another time. */
async function swap(
  { host, places }: Inside,
  held: Held,
  { archive }: ArchiveName,
  plain: string,
  stat: FileStat,
  prepared: string,
  note: ArchiveNote,
): Promise<boolean> {
  const { disk } = host
  const now = disk.stat(plain)
  if (now?.ino !== stat.ino || now.size !== stat.size) return false
  const staged = `${held.stage}/${host.nonce(12)}`
  held.used = true
  try {
    const noted = await stageFile(host, held, [Buffer.from(`${JSON.stringify(note)}\n`)])
    disk.rename(prepared, staged)
    disk.rename(staged, `${plain}.gz`)
    disk.rename(noted, `${places.archive}/${noteFile(archive)}`)
    await disk.syncDirectory(places.archive)
    // Somebody who has slept since before it was archived may have added a void line.
    if (disk.stat(plain)?.size !== stat.size || !disk.stat(held.stage)) return false
    disk.unlink(plain)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
  await disk.syncDirectory(places.archive)
  return true
}

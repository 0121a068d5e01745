/** What is common to everything that goes into a snapshot: where it goes, what an earlier snapshot has of it, what was noticed. */
import { errnoOf, isStoreError } from '../../errors.js'
import type { Disk, FileStat } from '../../file/durable.js'
import type { FileFacts, FileIdentity, FileRow, PreviousFile, SnapshotWriter, StoredFile } from '../repository/repository.js'
import type { BackupFinding, FindingLevel } from './findings.js'

/** Something is wrong with the side that is read; the snapshot goes on without the file. */
export class SourceFailure extends Error {
  override readonly name = 'SourceFailure'
}

export interface About {
  readonly path: string
  readonly key?: string | undefined
  readonly sessionId?: string | undefined
}

export interface CaptureTotals {
  files: number
  bytesRead: number
  newBytes: number
}

export interface CaptureOptions {
  readonly disk: Disk
  readonly writer: SnapshotWriter
  /** Rows of the newest snapshot of the same store, by path. */
  readonly previous: ReadonlyMap<string, FileRow>
  /** Whether a file that looks unchanged is to be read all the same. */
  readonly rereads: (path: string) => boolean
  readonly signal: AbortSignal | undefined
  readonly onBytes: (bytes: number) => void
  readonly nowMs: () => number
}

/** Files that changed so short a time ago may change again under the same time stamp. */
const restMs = 2_000

export class Capture {
  readonly options: CaptureOptions
  readonly findings: BackupFinding[] = []
  readonly rows: FileRow[] = []
  readonly totals: CaptureTotals = { files: 0, bytesRead: 0, newBytes: 0 }

  constructor(options: CaptureOptions) {
    this.options = options
  }

  note(level: FindingLevel, { path, key, sessionId }: About, message: string): void {
    this.findings.push({ level, path, key, sessionId, message })
  }

  /** Stores a file. False when it could not be read: that has been noted. */
  async store(
    about: About,
    facts: () => FileFacts,
    bytes?: (from: number) => AsyncIterable<Uint8Array>,
    previous?: PreviousFile,
  ): Promise<StoredFile | undefined> {
    const { writer, onBytes, signal } = this.options
    const counted = bytes && ((from: number) => this.#counting(bytes(from)))
    try {
      const stored = await writer.file(facts, counted, previous)
      this.rows.push(stored.row)
      this.totals.files++
      this.totals.bytesRead += stored.readBytes
      this.totals.newBytes += stored.newBytes
      if (stored.readFrom === undefined) onBytes(stored.row.bytes)
      return stored
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof SourceFailure)) throw error
      this.note('damage', about, `It could not be read, and is not in the snapshot: ${error.message}.`)
      return undefined
    }
  }

  async *#counting(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const { onBytes, signal } = this.options
    try {
      for await (const piece of bytes) {
        signal?.throwIfAborted()
        onBytes(piece.length)
        yield piece
      }
    } catch (error) {
      if (signal?.aborted || isStoreError(error) || errnoOf(error) === undefined) throw error
      throw new SourceFailure((error as Error).message, { cause: error })
    }
  }

  /** By which the next backup recognises the file; undefined for one that may change without showing it. */
  identityOf({ dev, ino, size, ctimeMs }: FileStat): FileIdentity | undefined {
    return this.options.nowMs() - ctimeMs > restMs ? { dev, ino, size, ctimeMs } : undefined
  }
}

export function isUntouched(row: FileRow | undefined, { dev, ino, size, ctimeMs }: FileStat): row is FileRow {
  const known = row?.identity
  return (
    known !== undefined &&
    (row!.findings?.length ?? 0) === 0 &&
    known.dev === dev &&
    known.ino === ino &&
    known.size === size &&
    known.ctimeMs === ctimeMs
  )
}

/** Runs the work on every item, so many at a time, and begins nothing more after a failure. */
export async function inParallel<T>(items: Iterable<T>, atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = items[Symbol.iterator]()
  let failed = false
  const lane = async () => {
    for (let next = queue.next(); !next.done && !failed; next = queue.next()) {
      try {
        await work(next.value)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const settled = await Promise.allSettled(Array.from({ length: atOnce }, lane))
  for (const one of settled) if (one.status === 'rejected') throw one.reason
}

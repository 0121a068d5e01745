/** The two things that a comparison looks at: a snapshot, or a store's directory as it is now, seen through the same rows. */
import { createHash } from 'node:crypto'
import type { Disk } from '../../file/durable.js'
import { placesIn } from '../../file/format.js'
import { readIdentity } from '../../file/lock/identity.js'
import { bootTag } from '../../file/log/chain.js'
import type { FileFacts, FileRow, Repository, SnapshotInfo, SnapshotWriter, StoredFile } from '../repository/repository.js'
import { plainBytes } from '../snapshot/byte-range.js'
import { Capture } from '../snapshot/capture.js'
import type { BackupFinding } from '../snapshot/findings.js'
import { readMetadata } from '../snapshot/metadata-reading.js'
import { StoreCapture } from '../snapshot/store-capture.js'

export interface Side {
  /** What to call it. */
  readonly label: string
  readonly rows: readonly FileRow[]
  /** What was found wrong with it while it was looked at; of a snapshot, when it was taken. */
  readonly findings: readonly BackupFinding[]
  bytes(row: FileRow): AsyncIterable<Uint8Array>
}

export async function snapshotSide(repository: Repository, id: string, signal?: AbortSignal): Promise<Side & { info: SnapshotInfo }> {
  const { info, files } = await repository.manifest(id, { signal })
  const findings = files.flatMap(({ path, session, findings: texts = [] }) =>
    texts.map((message) => ({ level: 'damage' as const, path, key: session?.key, sessionId: session?.sessionId, message })),
  )
  return { label: info.id, info, rows: files, findings, bytes: (row) => repository.read(row, { signal }) }
}

/** Reads the store once, as a backup does, and keeps nothing but what it is like. */
export async function directorySide(disk: Disk, dir: string, signal?: AbortSignal): Promise<Side> {
  const places = placesIn(dir)
  const place = { disk, places, tag: bootTag(readIdentity().boot), signal }
  const capture = new Capture({
    disk,
    writer: new Listing(),
    previous: new Map(),
    rereads: () => true,
    signal,
    onBytes: () => {},
    nowMs: () => 0,
  })
  await new StoreCapture(capture, place, { sessions: new Map(), pieces: new Map() }, []).run(await readMetadata(place))
  return {
    label: dir,
    rows: capture.rows,
    findings: capture.findings,
    bytes: (row) => reading(disk, dir, row),
  }
}

/** It may have been archived since. */
async function* reading(disk: Disk, dir: string, row: FileRow): AsyncGenerator<Uint8Array> {
  const archived = row.path.replace(/^transcripts\//, 'archive/')
  const path = [row.path, archived].map((name) => `${dir}/${name}`).find((name) => disk.stat(name)) ?? `${dir}/${row.path}`
  const fd = disk.open(path, 'read')
  try {
    yield* plainBytes(disk, fd, 0, row.bytes)
  } finally {
    disk.close(fd)
  }
}

/** A snapshot that is never kept. */
class Listing implements SnapshotWriter {
  readonly id = ''

  async file(given: FileFacts | (() => FileFacts), bytes?: (from: number) => AsyncIterable<Uint8Array>): Promise<StoredFile> {
    const hash = createHash('sha256')
    let length = 0
    for await (const piece of bytes?.(0) ?? []) {
      hash.update(piece)
      length += piece.length
    }
    const facts = typeof given === 'function' ? given() : given
    const row = { ...facts, bytes: length, sha256: hash.digest('hex'), chunks: [] }
    return { row, readFrom: 0, readBytes: length, newBytes: 0, changed: undefined }
  }

  commit(): never {
    throw new Error('A listing is never committed.')
  }

  async abandon(): Promise<void> {}
}

/** The metadata of a store that has one conversation of a snapshot. */

import { randomBytes } from 'node:crypto'
import { uuidv7 } from 'uuidv7'
import type { Disk } from '../../file/durable.js'
import { formatVersion } from '../../file/format.js'
import { readIdentity } from '../../file/lock/identity.js'
import { bootTag } from '../../file/log/chain.js'
import { sealPrefix, startsWith } from '../../file/log/record.js'
import { cellOf } from '../../file/metadata/cells.js'
import { newJournal } from '../../file/metadata/checkpoint.js'
import { renderSnapshot } from '../../file/metadata/snapshot.js'
import type { Entry } from '../../types.js'
import type { FileRow, Manifest, Repository } from '../repository/repository.js'
import { followLog } from '../snapshot/chain-stream.js'
import { entriesIn } from '../snapshot/metadata-reading.js'
import { readBack, unfolded } from './proof.js'
import type { Staging } from './staging.js'

/** @param rows  the logs of the session. */
export async function oneSession(
  disk: Disk,
  repository: Repository,
  manifest: Manifest,
  key: string,
  rows: readonly FileRow[],
  staging: Staging,
): Promise<void> {
  const tag = bootTag(readIdentity().boot)
  const read = async (path: string) => {
    const row = manifest.files.find((file) => file.path === path)
    return row && Buffer.concat(await all(repository.read(row)))
  }
  const entries = entriesIn(await read('sessions.json'), await read('sessions.journal.jsonl'), tag)
  const entry = entries.get(key) ?? JSON.stringify(await madeUp(disk, rows, manifest.info.time, staging, tag))
  const snapshot = await renderSnapshot(new Map([[key, cellOf(JSON.parse(entry) as Entry, entry)]]))
  await staging.file('sessions.json', inPieces(snapshot.slices))
  const createdAt = Date.now()
  await staging.file('sessions.journal.jsonl', inPieces([newJournal(snapshot.hash, 0, createdAt, tag + randomBytes(4).toString('hex'))]))
  const format = { format: formatVersion, storeId: uuidv7(), createdAt }
  await staging.file('holdfast.json', inPieces([Buffer.from(`${JSON.stringify(format)}\n`)]))
}

/** Where the metadata of the snapshot does not know the key: it is damaged, or the session was closed. The latest log is the one to go on; if
 *  that is in the archive, without the seal that has closed it. */
async function madeUp(disk: Disk, rows: readonly FileRow[], time: number, staging: Staging, tag: string): Promise<Record<string, unknown>> {
  const logs = rows.filter(({ session }) => session).sort((a, b) => (a.session!.sessionId < b.session!.sessionId ? 1 : -1))
  const latest = logs.find(({ role }) => role === 'transcript') ?? logs[0]!
  const { sessionId } = latest.session!
  if (latest.role === 'archive') {
    const bytes = () => unfolded(latest, readBack(disk, `${staging.path}/${latest.path}`))
    await staging.file(`transcripts/${sessionId}.jsonl`, upTo(bytes(), await endBeforeSeal(bytes(), tag)))
  }
  return { sessionId, createdAt: time, updatedAt: time, revision: 1 }
}

async function endBeforeSeal(bytes: AsyncIterable<Uint8Array>, tag: string): Promise<number> {
  let sealBytes = 0
  const log = await followLog(bytes, tag, undefined, {
    record(_mark, line, start, end) {
      if (startsWith(line, start, sealPrefix)) sealBytes = end + 1 - start
    },
  })
  return log.damage ? Number.POSITIVE_INFINITY : log.bytes - sealBytes
}

async function* upTo(bytes: AsyncIterable<Uint8Array>, end: number): AsyncGenerator<Uint8Array> {
  let at = 0
  for await (const piece of bytes) {
    if (at >= end) continue
    yield piece.subarray(0, Math.min(piece.length, end - at))
    at += piece.length
  }
}

async function all(bytes: AsyncIterable<Buffer>): Promise<Buffer[]> {
  const pieces: Buffer[] = []
  for await (const piece of bytes) pieces.push(piece)
  return pieces
}

async function* inPieces(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces
}

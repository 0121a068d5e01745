/** Sessions that no key names any more. Their records stand where they stood; the row of the log says why and when it was closed. */
import { uuidv7 } from 'uuidv7'
import type { ArchiveInfo, RestoreOptions, RestoreReceipt } from '../../archives.js'
import { StoreError } from '../../errors.js'
import type { PostgresInside } from '../../postgres/backend.js'
import { pagesOf, storedRecord } from '../../postgres/transcripts/reading.js'
import type { ReadOptions, StoredRecord } from '../../types.js'

const asking = { doing: 'looking at archives' }
const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export async function archivesOf({ database, schema }: PostgresInside, key: string | undefined): Promise<ArchiveInfo[]> {
  const rows = await database.read(
    `select * from ${schema}.logs where closed_at is not null and ($1::text is null or key = $1) order by closed_at desc, session_id desc`,
    [key ?? null],
    asking,
  )
  return rows.map((row) => {
    const sessionId = row.session_id as string
    const lastSeq = Number(row.last_seq)
    return {
      archive: sessionId,
      file: `logs/${sessionId}`,
      key: row.key as string,
      sessionId,
      previous: (row.previous as string | null) ?? undefined,
      next: (row.next as string | null) ?? undefined,
      reason: row.closed_by === 'rotated' ? 'rotated' : 'deleted',
      why: (row.closed_why as string | null) ?? undefined,
      entry: undefined,
      at: Number(row.closed_at),
      firstSeq: lastSeq > 0 ? 1 : undefined,
      lastSeq,
      records: lastSeq,
      bytes: Number(row.bytes),
      compressed: false,
      unfinished: false,
    }
  })
}

/** @throws NOT_FOUND */
export async function* readArchived(inside: PostgresInside, archive: string, options: ReadOptions): AsyncGenerator<StoredRecord> {
  const { after = 0, limit = Number.POSITIVE_INFINITY, signal } = options
  const { database, schema } = inside
  const [row] = idPattern.test(archive)
    ? await database.read(`select last_seq from ${schema}.logs where session_id = $1 and closed_at is not null`, [archive], asking)
    : []
  if (!row) throw noArchive(archive)
  for await (const page of pagesOf(inside, archive, { after, upTo: Number(row.last_seq), onlyRecords: true, rowsMax: limit }))
    for (const record of page) {
      signal?.throwIfAborted()
      yield storedRecord(record)
    }
}

/** @throws NOT_FOUND · INVALID_KEY  the key names a session. Effect none. */
export async function restoreArchived(inside: PostgresInside, archive: string, options: RestoreOptions): Promise<RestoreReceipt> {
  const { key, entry = {}, signal, waitMs = inside.database.waitMs } = options
  signal?.throwIfAborted()
  if (!idPattern.test(archive)) throw noArchive(archive)
  const { sessionId: _, createdAt: __, updatedAt: ___, revision: ____, ...fields } = entry as Record<string, unknown>
  const sessionId = uuidv7()
  const [answer] = await inside.database.write(
    `select ${inside.schema}.restore_archived($1, $2, $3, $4, $5, $6) as result`,
    [uuidv7(), Math.ceil(waitMs), archive, key, sessionId, JSON.stringify(fields)],
    { doing: 'restoring an archive', waitMs },
  )
  const [outcome, records] = answer!.result as string[]
  if (outcome === 'none') throw noArchive(archive)
  if (outcome === 'taken')
    throw new StoreError('INVALID_KEY', `${JSON.stringify(key)} names a session already.`, {
      details: { key },
      hint: 'Nothing was written. Name a key that no session has; rotate or delete that session first if its key is wanted.',
    })
  return { key, sessionId, archive, records: Number(records) }
}

function noArchive(archive: string): StoreError {
  return new StoreError('NOT_FOUND', `there is no archive ${JSON.stringify(archive.slice(0, 80))}.`, {
    details: { archive },
    hint: 'Nothing was done. `archives()` lists them.',
  })
}

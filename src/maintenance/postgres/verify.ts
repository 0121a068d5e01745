/** Looks over the tables of a store, session by session, and changes nothing. The database has its own care for bytes; here it is asked whether
 *  the rows are what this library writes: numbers without a gap, every key with its log, every log with its key. */
import type { FindingKind } from '../../findings.js'
import type { PostgresInside } from '../../postgres/backend.js'
import type { Damage, FileReport, VerifyOptions, VerifyReport } from '../../types.js'

const logsPerPage = 500
const asking = { doing: 'verifying' }

interface Fault {
  readonly kind: FindingKind
  readonly code: Damage['code']
  readonly sessionId: string | undefined
  readonly key: string
  readonly message: string
}

export async function verifyTables(inside: PostgresInside, { onProgress, signal }: VerifyOptions): Promise<VerifyReport> {
  signal?.throwIfAborted()
  const { database, schema } = inside
  const [sizes] = await database.read(`select count(*) as logs, coalesce(sum(bytes), 0) as bytes from ${schema}.logs`, [], asking)
  const total = Number(sizes!.bytes)
  const files: FileReport[] = []
  const faults: Fault[] = []
  let done = 0
  for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
    // One statement, one moment: whoever writes meanwhile is seen whole or not at all.
    const rows = await database.read(
      `select l.session_id, l.key, l.last_seq, l.bytes, l.closed_at is not null as closed, e.session_id as named,
         (select count(*) from ${schema}.records r where r.session_id = l.session_id) as records,
         (select coalesce(max(seq), 0) from ${schema}.records r where r.session_id = l.session_id) as highest
       from ${schema}.logs l left join ${schema}.entries e on e.key = l.key
       where l.session_id > $1 order by l.session_id limit ${logsPerPage}`,
      [after],
      asking,
    )
    if (rows.length === 0) break
    for (const row of rows) {
      const [sessionId, key, closed] = [row.session_id as string, row.key as string, row.closed === true]
      const [records, lastSeq, bytes] = [Number(row.records), Number(row.last_seq), Number(row.bytes)]
      const file = `logs/${sessionId}`
      files.push({ file, kind: closed ? 'archive' : 'transcript', bytes, records, lastSeq, voidLines: 0, tornTailBytes: 0, sealed: closed })
      done += bytes
      if (records !== lastSeq || Number(row.highest) !== lastSeq)
        faults.push({
          kind: 'missing-bytes',
          code: 'LOG_CORRUPT',
          sessionId,
          key,
          message: `the log counts ${lastSeq} records, and ${records} are there, the last with number ${Number(row.highest)}.`,
        })
      if (!closed && row.named !== sessionId)
        faults.push({
          kind: 'transcript-orphan',
          code: 'LOG_CORRUPT',
          sessionId,
          key,
          message: 'the log is open, and its key does not name it.',
        })
    }
    after = rows.at(-1)!.session_id as string
    onProgress?.(Math.min(done, total), total)
    signal?.throwIfAborted()
  }
  faults.push(...(await strays(inside)))
  onProgress?.(total, total)
  const damage = faults.map(({ code, sessionId, message }) => ({
    file: sessionId ? `logs/${sessionId}` : 'entries',
    code,
    message,
    byte: undefined,
    seq: undefined,
  }))
  return { ok: damage.length === 0, files, damage, findings: faults.map(findingOf), omitted: {} }
}

/** Entries without a log, and records without one. */
async function strays({ database, schema }: PostgresInside): Promise<Fault[]> {
  const missing = await database.read(
    `select e.key, e.session_id from ${schema}.entries e left join ${schema}.logs l on l.session_id = e.session_id
     where l.session_id is null or l.closed_at is not null limit 1000`,
    [],
    asking,
  )
  const lost = missing.map((row): Fault => {
    const [key, sessionId] = [row.key as string, row.session_id as string]
    return { kind: 'transcript-missing', code: 'LOG_CORRUPT', sessionId, key, message: 'the log that the key names is missing, or closed.' }
  })
  return lost
}

function findingOf({ kind, sessionId, key, message }: Fault) {
  const meaning = `${message} Rows were changed by something other than this library, or restored one by one; restore the schema as a whole.`
  return {
    kind,
    severity: 'damage' as const,
    file: sessionId ? `logs/${sessionId}` : 'entries',
    bytes: undefined,
    seqs: undefined,
    key,
    sessionId,
    meaning,
    repairable: false,
    count: 1,
  }
}

/** A journal: a log whose records are operations on the metadata. */
import type { Line } from '../../file/log/chain.js'
import { isSystemOnly } from '../../file/log/record.js'
import type { ByteSource } from '../../file/log/scan.js'
import type { Finding } from '../../findings.js'
import { type NamedSession, type NamedSessions, readEntry, readKey } from './entries.js'
import { type LogAbout, type LogScanOptions, type ScannedLog, scanLog } from './log-scan.js'
import { meanings } from './meanings.js'

export interface ScannedJournal extends ScannedLog {
  /** Of every key the last one; undefined: the key is deleted. */
  readonly operations: ReadonlyMap<string, NamedSession | undefined>
}

type Operation = { readonly key: string; readonly named: NamedSession | undefined } | string

const badMax = 1_000

export async function scanJournal(source: ByteSource, about: LogAbout, options: LogScanOptions): Promise<ScannedJournal> {
  const operations = new Map<string, NamedSession | undefined>()
  const bad: Finding[] = []
  const log = await scanLog(source, about, {
    ...options,
    sink: {
      look: (line) => (isSystemOnly(line.bytes, line.start) ? undefined : readOperation(line)),
      record(mark, _bytes, _start, _end, line) {
        const operation = line.look as Operation | undefined
        if (typeof operation === 'object') operations.set(operation.key, operation.named)
        else if (operation !== undefined && bad.length < badMax) bad.push(damaged(about, line, mark.seq, operation))
      },
    },
  })
  const { header } = log
  if (header && (header.log !== 'journal' || header.base === undefined))
    bad.unshift({ ...damaged(about, undefined, log.lastSeq, 'its header is that of another log'), bytes: undefined, seqs: undefined })
  return { ...log, findings: [...log.findings, ...bad], operations }
}

function damaged(about: LogAbout, line: Line | undefined, seq: number, why: string): Finding {
  const { severity, meaning, repairable } = meanings['journal-damaged']
  return {
    kind: 'journal-damaged',
    severity,
    file: about.file,
    bytes: line && { from: line.byte, to: line.byte + line.length },
    seqs: { from: seq, to: seq },
    key: undefined,
    sessionId: undefined,
    meaning: `${why}. ${meaning}`,
    repairable,
    count: 1,
  }
}

const putFront = '{"op":"put","key":'
const delFront = '{"op":"del","key":'
const entryFront = ',"entry":'

function readOperation({ mark, bytes, start, end, length }: Line): Operation {
  const at = start + putFront.length
  const front = bytes.toString('latin1', start, at)
  const found = front === putFront || front === delFront ? readKey(bytes, at) : undefined
  if (!found) return 'it is no operation on the metadata'
  if (front === delFront) return { key: found.key, named: undefined }
  const entryAt = found.end + 1 + entryFront.length
  if (bytes.toString('latin1', found.end + 1, entryAt) !== entryFront) return 'it is no operation on the metadata'
  const whole = end - start + 1 === length
  const named = readEntry(bytes, entryAt, whole ? start + mark.bodyBytes : end, whole)
  return typeof named === 'string' ? `the entry of ${JSON.stringify(found.key)} is none: ${named}` : { key: found.key, named }
}

/** What the snapshot's sessions are after the journal. */
export function applied(sessions: NamedSessions, operations: ScannedJournal['operations']): NamedSessions {
  for (const [key, named] of operations) {
    if (named) sessions.set(key, named)
    else sessions.delete(key)
  }
  return sessions
}

/** The key that an altered operation was about, where its line still says so. */
export function keyIn(bytes: Buffer): string | undefined {
  const at = bytes.indexOf('"key":')
  return at < 0 || at > 40 ? undefined : readKey(bytes, at + 6)?.key
}

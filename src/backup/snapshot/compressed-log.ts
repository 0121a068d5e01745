/** A compressed log into the snapshot: its bytes as they are, and its chain as it unfolds. */
import { once } from 'node:events'
import { createGunzip } from 'node:zlib'
import { errnoOf } from '../../errors.js'
import type { FileFacts, SessionFacts } from '../repository/repository.js'
import { type About, type Capture, isUntouched } from './capture.js'
import { followLog } from './chain-stream.js'
import { alarmText, type CapturedLog, damageText, type LogToCapture, logNow } from './log-capture.js'
import type { LogFacts } from './log-reading.js'
import { PlainReading } from './plain-files.js'
import { isAlarming, judge } from './verdict.js'

/** undefined when it is not there any more, or cannot be read (that has been noted). */
export async function captureCompressed(capture: Capture, log: LogToCapture, tag: string): Promise<CapturedLog | undefined> {
  const about: About = { path: log.path, sessionId: log.sessionId }
  const { disk, previous, rereads } = capture.options
  let reading: PlainReading
  try {
    reading = new PlainReading(disk, log.at[0]!)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    if (errnoOf(error) !== 'ENOENT') capture.note('damage', about, `It cannot be read: ${(error as Error).message}.`)
    return undefined
  }
  try {
    const row = previous.get(log.path)
    const base = factsOf(capture, log, reading)
    if (!isUntouched(row, reading.stat) || !row.session || rereads(log.path)) return await unfolded(capture, log, about, base, tag, reading)
    const { session } = row
    const known = { row, keepBytes: row.bytes, whole: true }
    const kept = await capture.store(
      about,
      () => ({ ...base, session }),
      (from) => reading.bytes(from, capture.options.signal),
      known,
    )
    return kept && { session, seal: undefined }
  } finally {
    reading.close()
  }
}

function factsOf(capture: Capture, { path, role }: LogToCapture, { stat }: PlainReading): FileFacts {
  const mtimeMs = stat.mtimeMs ?? stat.ctimeMs
  return { path, role, type: 'file', mode: stat.mode & 0o7777, mtimeMs, identity: capture.identityOf(stat) }
}

async function unfolded(
  capture: Capture,
  { sessionId, good }: LogToCapture,
  about: About,
  base: FileFacts,
  tag: string,
  reading: PlainReading,
): Promise<CapturedLog | undefined> {
  const found: { outcome: LogFacts | Error } = { outcome: new Error('it was not read') }
  const facts = (): FileFacts => {
    const { session, level, message } = judged(found.outcome, sessionId, good)
    if (message !== undefined) capture.note(level, about, message)
    return { ...base, ...(session && { session }), ...(message !== undefined && { findings: [message] }) }
  }
  const bytes = () =>
    unfold(reading.bytes(0, capture.options.signal), tag, good?.lastSeq ?? -1, (outcome) => {
      found.outcome = outcome
    })
  const stored = await capture.store(about, facts, bytes)
  const { outcome } = found
  return stored?.row.session && { session: stored.row.session, seal: outcome instanceof Error ? undefined : outcome.seal }
}

interface Judged {
  readonly session?: SessionFacts
  readonly level: 'damage' | 'alarm'
  readonly message: string | undefined
}

function judged(outcome: LogFacts | Error, sessionId: string, good: SessionFacts | undefined): Judged {
  if (outcome instanceof Error) return { level: 'damage', message: `It cannot be decompressed: ${outcome.message}.` }
  const { seq, crc, bytes, header, damage } = outcome
  const session = { sessionId, headerKey: header?.key, lastSeq: seq, lastCrc: crc, headerCrc: header?.crc, settledBytes: bytes }
  if (damage) return { session, level: 'damage', message: damageText(damage) }
  const verdict = good && judge(good, logNow(outcome, session, good))
  return { session, level: 'alarm', message: verdict && isAlarming(verdict) ? alarmText(verdict, good, session) : undefined }
}

/** Hands the bytes on, and follows the log in them. */
async function* unfold(
  bytes: AsyncIterable<Uint8Array>,
  tag: string,
  watchSeq: number,
  done: (outcome: LogFacts | Error) => void,
): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip()
  let open = true
  const followed = followLog(gunzip, tag, new Set([watchSeq]))
    .then(done, done)
    .finally(() => {
      open = false
      gunzip.destroy()
    })
  for await (const piece of bytes) {
    if (open && !gunzip.write(piece)) await Promise.race([once(gunzip, 'drain').catch(() => {}), followed])
    yield piece
  }
  if (open) gunzip.end()
  await followed
}

/** Whether a transcript has lost what it is known to have had on the disk (F29). Pure. */
import { hex8 } from '../../file/log/record.js'
import type { HighWaterMark } from '../../file/metadata/mark.js'
import type { Finding } from '../../findings.js'
import type { LogAbout, ScannedLog } from './log-scan.js'
import { findingSaying } from './report.js'

/** @param crc  of the record that has the mark's number; undefined where there is none */
export function shrinkage(about: LogAbout, log: ScannedLog, mark: HighWaterMark, crc: number | undefined): Finding | undefined {
  const { file, key, sessionId } = about
  const found = (what: string, from: number) =>
    findingSaying('transcript-shrunk', file, what, {
      bytes: { from: log.bytes, to: log.bytes },
      seqs: { from, to: mark.seq },
      key,
      sessionId,
    })
  const last = log.damage ? (log.islands[log.islands.length - 1]?.to ?? log.lastSeq) : log.lastSeq
  if (last < mark.seq)
    return found(`Up to seq ${mark.seq} was on the disk, in ${mark.bytes} bytes; the log ends at seq ${last}, byte ${log.bytes}.`, last + 1)
  // What is missing before that is told as damage of the log itself.
  if (log.damage) return undefined
  if (log.headerCrc === hex8(mark.header))
    return crc === mark.crc
      ? undefined
      : found(`Another record stands in the place of seq ${mark.seq} than the one that was on the disk.`, mark.seq)
  if (log.header?.replaces?.includes(hex8(mark.header))) return undefined
  return found('Another file stands in the place of the one that was on the disk, and does not say that it replaces it.', 0)
}

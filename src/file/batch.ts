/** What one write carries, as bytes. */
import type { Host } from './host.js'
import type { Batch, LogFile } from './log/log-file.js'
import { encodeLine } from './log/record.js'

/** The bodies as records that follow where the log stands now.
 *  @param plain  callers' records only: no header, no seal. */
export function encodeBatch(host: Host, log: LogFile, bodies: readonly string[], plain: boolean): Batch {
  const writer = log.tag + host.nonce(8)
  const firstSeq = log.nextSeq
  const synced = log.synced
  const breaker = log.breaker()
  let prev = log.chain.crc
  let text = breaker
  let left = bodies.length
  let seq = firstSeq
  for (const body of bodies) {
    const { line, crc } = encodeLine(body, { seq: seq++, left: --left, synced, writer, prev })
    text += line
    prev = crc
  }
  return { bytes: Buffer.from(text), from: breaker.length, firstSeq, records: bodies.length, lastCrc: prev, writer, plain }
}

/** Which sequence numbers each job got. */
export function seqsOf(counts: readonly number[], firstSeq: number): number[][] {
  let seq = firstSeq
  return counts.map((count) => {
    const seqs: number[] = []
    for (let at = 0; at < count; at++) seqs.push(seq++)
    return seqs
  })
}

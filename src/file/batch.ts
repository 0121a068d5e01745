/** What one write carries, as bytes. */
import { StoreError } from '../errors.js'
import type { Disk } from './durable.js'
import type { Host } from './host.js'
import type { Batch, LogFile } from './log/log-file.js'
import { lineOverheadMax, writeLine } from './log/record.js'

/** The bodies as records that follow where the log stands now.
 *  @param plain  callers' records only: no header, no seal. */
export function encodeBatch(host: Host, log: LogFile, bodies: readonly string[], plain: boolean): Batch {
  const writer = log.tag + host.nonce(8)
  const firstSeq = log.nextSeq
  const synced = log.synced
  const breaker = log.breaker()
  let room = breaker.length
  for (const body of bodies) room += Buffer.byteLength(body) + lineOverheadMax
  // What is not plain is handed on to whoever reads the log, and may be kept.
  const into = (plain ? host.scratch?.(room) : undefined) ?? Buffer.allocUnsafe(room)
  let at = into.write(breaker, 'latin1')
  let prev = log.chain.crc
  let left = bodies.length
  let seq = firstSeq
  for (const body of bodies) {
    const { end, crc } = writeLine(into, at, body, { seq: seq++, left: --left, synced, writer, prev })
    at = end
    prev = crc
  }
  return { bytes: into.subarray(0, at), from: breaker.length, firstSeq, records: bodies.length, lastCrc: prev, writer, plain }
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

const askForSpaceBytes = 32 << 10

/** A large write that does not fit would take the last free bytes with it, and what is appended is never truncated: so ask first. */
export function doesNotFit(
  disk: Disk,
  owner: { readonly label: string; readonly directory: string },
  bytes: number,
): StoreError | undefined {
  if (bytes < askForSpaceBytes) return undefined
  const free = disk.freeBytes?.(owner.directory)
  if (free === undefined || free > bytes + askForSpaceBytes) return undefined
  return new StoreError('DISK_FULL', `writing to ${owner.label}: ${bytes} bytes do not fit into the ${free} that are free.`, {
    details: { file: owner.label, bytes, free },
    hint: 'Nothing was written. Free space, then try again; what was acknowledged is intact.',
  })
}

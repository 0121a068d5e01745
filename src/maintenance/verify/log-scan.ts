/** One log, looked at from its first byte to its last: what is in it, and whatever is not. Reads, and nothing else. */

import { errnoOf } from '../../errors.js'
import type { Disk } from '../../file/durable.js'
import { Chain, type ChainDamage } from '../../file/log/chain.js'
import { type Header, hasId, hex8, isSystemOnly, type Seal } from '../../file/log/record.js'
import { type ByteSource, fileSource, type ScanOptions, type ScanSink, scan } from '../../file/log/scan.js'
import { idsKept, readId } from '../../file/transcripts/ids.js'
import type { Finding, FindingKind } from '../../findings.js'
import { FindingList } from './finding-list.js'
import type { Island } from './islands.js'
import { LogFindings } from './log-findings.js'
import { meanings } from './meanings.js'

export interface LogAbout {
  /** Relative to the store. */
  readonly file: string
  readonly key?: string | undefined
  readonly sessionId?: string | undefined
}

export interface ScannedLog {
  readonly bytes: number
  /** Records of callers that are in the log; those that stand before the header count. */
  readonly records: number
  /** Of the header; -1 where there is none. Greater than 0: earlier records are elsewhere. */
  readonly firstSeq: number
  readonly lastSeq: number
  readonly voidLines: number
  /** At the end, without a verdict: a line without its newline, a batch without its end. */
  readonly undecidedBytes: number
  readonly header: Header | undefined
  /** Of the header's line, as it stands in the file; undefined where there is none. */
  readonly headerCrc: string | undefined
  readonly seal: Seal | undefined
  /** What readers and writers refuse it for; the findings say more. */
  readonly damage: ChainDamage | undefined
  /** Whole records outside the log that follow one another. With damage they are what could be saved. */
  readonly islands: readonly Island[]
  /** In the order of the file. */
  readonly findings: readonly Finding[]
  readonly omitted: Readonly<Partial<Record<FindingKind, number>>>
}

export interface LogScanOptions extends ScanOptions {
  /** Of this boot, as in bootTag(); decides what is damage and what a power cut has left. */
  readonly tag: string
  /** Is told of every line, too. */
  readonly sink?: ScanSink | undefined
}

/** A file, as long as it is when it is opened. `gone`: there is none, or not any more. Else why it cannot be looked at, as a finding. */
export async function scanFile(disk: Disk, path: string, about: LogAbout, options: LogScanOptions): Promise<ScannedLog | Finding | 'gone'> {
  const list = new FindingList(about)
  const refused = (kind: 'not-a-file' | 'unreadable', why: string): Finding => {
    list.add({ kind, ...meanings[kind], meaning: `${about.file} ${why}. ${meanings[kind].meaning}` })
    return list.findings[0]!
  }
  const stat = disk.stat(path)
  if (!stat) return 'gone'
  if (stat.kind !== 'file') return refused('not-a-file', `is a ${stat.kind}`)
  let fd: number
  try {
    fd = disk.open(path, 'read')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 'gone'
    if (errnoOf(error) === undefined) throw error
    return refused('unreadable', `cannot be opened: ${(error as Error).message}`)
  }
  try {
    return await scanLog(fileSource(disk, fd, disk.fstat(fd).size), about, options)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return refused('unreadable', `cannot be read: ${(error as Error).message}`)
  } finally {
    disk.close(fd)
  }
}

export async function scanLog(source: ByteSource, about: LogAbout, options: LogScanOptions): Promise<ScannedLog> {
  const { tag, sink = {} } = options
  const chain = new Chain(tag)
  const list = new FindingList(about)
  const found = new LogFindings(list, chain)
  const ids = new IdsSeen(list)
  let records = 0
  let headerCrc: string | undefined
  let firstSeq = -1
  const all: ScanSink = {
    ...sink,
    record(mark, bytes, start, end, line) {
      found.sink.record?.(mark, bytes, start, end, line)
      if (headerCrc === undefined) {
        headerCrc = hex8(mark.crc)
        firstSeq = mark.seq
      }
      if (!isSystemOnly(bytes, start)) records++
      if (hasId(bytes, start)) ids.note(readId(bytes, start).id, mark.seq, line)
      sink.record?.(mark, bytes, start, end, line)
    },
    void(kind, byte, length, line) {
      found.sink.void?.(kind, byte, length, line)
      sink.void?.(kind, byte, length, line)
    },
  }
  const tail = await scan(source, chain, all, options)
  found.finish(tail)
  const bytes = tail.byte + tail.length
  return {
    bytes,
    records: records + chain.foreign.lines,
    firstSeq,
    lastSeq: chain.seq,
    voidLines: chain.voidLines,
    undecidedBytes: bytes - chain.settled,
    header: chain.header,
    headerCrc,
    seal: chain.seal,
    damage: chain.damage,
    islands: found.islands.list,
    findings: [...list.findings].sort((a, b) => (a.bytes?.from ?? 0) - (b.bytes?.from ?? 0)),
    omitted: list.omitted,
  }
}

/** The idempotency ids of a log, as many as a writer remembers: further apart, the same id may come again. */
class IdsSeen {
  #seen = new Map<string, number>()
  #list: FindingList

  constructor(list: FindingList) {
    this.#list = list
  }

  note(id: string, seq: number, { byte, length }: { readonly byte: number; readonly length: number }): void {
    const first = this.#seen.get(id)
    if (first !== undefined) {
      const { meaning } = meanings['duplicate-id']
      this.#list.add({
        kind: 'duplicate-id',
        ...meanings['duplicate-id'],
        meaning: `${meaning} Id ${JSON.stringify(id)}, first in seq ${first}.`,
        bytes: { from: byte, to: byte + length },
        seqs: { from: first, to: seq },
      })
    }
    this.#seen.delete(id)
    this.#seen.set(id, seq)
    if (this.#seen.size <= idsKept) return
    for (const oldest of this.#seen.keys()) {
      this.#seen.delete(oldest)
      break
    }
  }
}

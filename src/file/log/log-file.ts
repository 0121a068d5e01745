/** One open log: a descriptor on its inode, where its chain stands, and what of it is on the disk.
 *
 *  The descriptor stays open as long as anything is remembered about the inode: ext4 gives the number of a closed one to the next file that
 *  is renamed in. What is remembered is checked against the path on every use, by inode, size and change time. */

import { crc32 } from 'node:zlib'
import { errnoOf, StoreError } from '../../errors.js'
import { type Disk, type FileStat, type OpenFlags, readFully } from '../durable.js'
import type { Counters } from '../stats.js'
import { Chain, type ChainSink } from './chain.js'
import { readHeader } from './header.js'
import { type Header, hex8 } from './record.js'
import { openTail, openWhole, readOn } from './tail.js'

export interface LogPlace {
  readonly disk: Disk
  readonly path: string
  /** For messages: relative to the store. */
  readonly label: string
  readonly tag: string
  readonly counters: Counters
}

/** What one write carries. */
export interface Batch {
  readonly bytes: Buffer
  /** Where in them the first record begins. */
  readonly from: number
  readonly firstSeq: number
  readonly records: number
  readonly lastCrc: number
  readonly writer: string
  /** Callers' records only: no header, no seal. */
  readonly plain: boolean
}

/** A record that is on the disk, with everything before it, and whose name is. */
export interface SyncedPoint {
  readonly seq: number
  /** Where its line ends. */
  readonly bytes: number
  readonly crc: number
  /** Crc of the header of the file. */
  readonly header: number
}

/** current: nothing has changed · grown: more was read · touched: changed without growing · replaced: the path names another file or none. */
export type Freshness = 'current' | 'grown' | 'touched' | 'replaced' | 'absent'

export class LogFile {
  readonly fd: number
  chain: Chain
  /** The bytes of the file as last seen. */
  size: number
  readonly dev: number
  readonly ino: number
  #ctimeMs: number
  #place: LogPlace
  #sink: ChainSink
  #synced = -1
  #syncedPoint: Omit<SyncedPoint, 'header'> | undefined
  #syncing: Promise<void> | undefined
  #syncFailure: { error: unknown } | undefined
  #users = 0
  #retired = false
  #closed = false
  /** The directory entry of this inode is known to be on the disk. */
  named = false
  #expected = { writer: '', seq: -1 }

  private constructor(place: LogPlace, fd: number, stat: FileStat, chain: Chain, sink: ChainSink) {
    this.#place = place
    this.#sink = {
      ...sink,
      record: (mark, bytes, start, end, line) => {
        if (mark.writer === this.#expected.writer && this.#expected.seq < 0) this.#expected.seq = mark.seq
        sink.record?.(mark, bytes, start, end, line)
      },
    }
    this.fd = fd
    this.chain = chain
    this.size = stat.size
    this.dev = stat.dev
    this.ino = stat.ino
    this.#ctimeMs = stat.ctimeMs
  }

  /** Opens and positions at the end.
   *  @param read  `tail` reads the tail only; `whole` hands every record to the sink. */
  static open(place: LogPlace, flags: OpenFlags, read: 'tail' | 'whole', sink: ChainSink = {}): LogFile {
    const { disk } = place
    const fd = disk.open(place.path, flags)
    try {
      const stat = disk.fstat(fd)
      const chain =
        read === 'tail' ? openTail(disk, fd, stat.size, place.tag, { records: 1 }, sink) : openWhole(disk, fd, stat.size, place.tag, sink)
      return new LogFile(place, fd, stat, chain, sink)
    } catch (error) {
      disk.close(fd)
      throw error
    }
  }

  /** Compares with the path and reads what has been added. Never mistakes another file for this one. */
  refresh(): Freshness {
    const stat = this.#place.disk.stat(this.#place.path)
    if (!stat) return 'absent'
    if (stat.ino !== this.ino || stat.dev !== this.dev) return 'replaced'
    // Touched stays touched until it is opened anew: somebody may have edited it in place.
    if (stat.size === this.size) return stat.ctimeMs === this.#ctimeMs ? 'current' : 'touched'
    this.#readTo(stat)
    return 'grown'
  }

  /** Reads on in this inode, wherever its name is now. */
  readOn(): void {
    this.#readTo(this.#place.disk.fstat(this.fd))
  }

  #readTo(stat: FileStat): void {
    if (stat.size < this.size)
      throw new StoreError(
        'LOG_CORRUPT',
        `${this.#place.label} has shrunk from ${this.size} to ${stat.size} bytes; it is only ever appended to.`,
        {
          details: { file: this.#place.label, byte: stat.size, seq: this.chain.seq },
          hint: 'Nothing was written. Keep the file as it is and restore it from a backup; `holdfast repair` shows what can be saved.',
        },
      )
    const voids = this.chain.voidLines
    readOn(this.#place.disk, this.fd, stat.size, this.chain, this.#sink)
    this.#place.counters.voidLines += this.chain.voidLines - voids
    this.size = stat.size
    this.#ctimeMs = stat.ctimeMs
  }

  /** Step 5 of a commit: whether the batch, just written, is exactly what was added, and the path still names this inode. Then, and only
   *  then, the chain moves on over it. */
  landed(batch: Batch): boolean {
    const { bytes, from } = batch
    const stat = this.#place.disk.stat(this.#place.path)
    if (!stat || stat.ino !== this.ino || stat.dev !== this.dev || stat.size !== this.size + bytes.length) return false
    if (this.chain.seq < 0 && from > 0) {
      // The first record behind somebody else's lines: let the chain see the seam as any reader will.
      this.#readTo(stat)
      return true
    }
    if (this.chain.settled < this.size) {
      // A killed writer's beginning is void now that something whole stands behind it.
      this.chain.voidLines++
      this.#place.counters.voidLines++
    }
    this.chain.settled = this.size + from
    if (batch.plain) this.chain.advance(batch.records, batch.lastCrc, bytes.length - from)
    else this.chain.feed(from > 0 ? bytes.subarray(from) : bytes, this.#sink)
    this.size = stat.size
    this.#ctimeMs = stat.ctimeMs
    return true
  }

  /** The sequence number that the next record gets. Somebody else's lines count from 1. */
  get nextSeq(): number {
    if (this.chain.seq >= 0) return this.chain.seq + 1
    const { lines } = this.#foreign()
    return lines > 0 ? lines + 1 : 0
  }

  /** What a header says of the lines before it; undefined when there are none. */
  foreignPart(): Header['foreign'] {
    const { lines, bytes, crc } = this.#foreign()
    return lines > 0 ? { lines, bytes, crc: hex8(crc) } : undefined
  }

  /** What a write must begin with. A torn tail is *broken* by a character of its own: a bare newline would complete a line that lacks only
   *  its newline, and bring it to life in front of ours. */
  breaker(): string {
    if (!this.chain.openTail) return ''
    return this.chain.seq < 0 && this.#foreign().whole ? '\n' : '#\n'
  }

  /** The lines without `$` before everything, counting a last one that is whole but for its newline. */
  #foreign(): { lines: number; bytes: number; crc: number; whole: boolean } {
    const { foreign, openTail, settled } = this.chain
    if (!openTail || foreign.bytes !== settled) return { ...foreign, whole: false }
    const tail = readFully(this.#place.disk, this.fd, settled, this.size - settled)
    const ended = Buffer.concat([tail, Buffer.from('\n')])
    const probe = new Chain(this.#place.tag)
    probe.feed(ended)
    if (probe.foreign.lines !== 1) return { ...foreign, whole: false }
    return { lines: foreign.lines + 1, bytes: foreign.bytes + ended.length, crc: crc32(ended, foreign.crc), whole: true }
  }

  /** From now on, look out for this writer's batch. */
  expect(writer: string): void {
    this.#expected = { writer, seq: -1 }
  }

  /** The sequence number of the first record of the expected batch; -1 while the chain has not come across it. */
  get foundSeq(): number {
    return this.#expected.seq
  }

  get label(): string {
    return this.#place.label
  }

  get tag(): string {
    return this.#place.tag
  }

  /** Whether what chains in this inode is in the log of that name: the path still names it, or it was sealed first and its content carried
   *  over, or the file that has taken its place without a seal (restored, saved by an editor) has the batch too. */
  speaksForPath(): boolean {
    if (this.chain.seal) return true
    const stat = this.#place.disk.stat(this.#place.path)
    if (!stat) return false
    if (stat.ino === this.ino && stat.dev === this.dev) return true
    let found = false
    const { writer } = this.#expected
    const sink: ChainSink = {
      record(mark) {
        if (mark.writer === writer) found = true
      },
    }
    LogFile.open(this.#place, 'read', 'whole', sink).retire()
    return found
  }

  pathExists(): boolean {
    return this.#place.disk.stat(this.#place.path) !== undefined
  }

  /** @throws LOG_CORRUPT when the chain rule has found damage. */
  assertSound(): void {
    const { damage } = this.chain
    if (!damage) return
    throw logCorrupt(this.#place.label, damage)
  }

  /** Highest sequence number known to be on the disk, by our own syncs or by what the log says. */
  get synced(): number {
    return Math.max(this.#synced, this.chain.claimed)
  }

  /** The last record of which a sync of our own has told; undefined while there is none. Never a seal: what replaces the file goes on
   *  without it. */
  syncedPoint(): SyncedPoint | undefined {
    if (!this.named || !this.#syncedPoint || this.chain.damage) return undefined
    this.chain.headerCrc ??= readHeader(this.#place.disk, this.fd, this.size)?.crc
    const header = this.chain.headerCrc
    return header === undefined ? undefined : { ...this.#syncedPoint, header }
  }

  /** Resolves when everything up to `seq` is on the disk: by one sync, begun after that was written, shared by all who wait. */
  async durable(seq: number): Promise<void> {
    this.#users++
    try {
      // A sync that is under way may have begun too early: then wait for it, and share the next with all who came meanwhile.
      while (this.#synced < seq) {
        // Final: the next sync of the same descriptor may succeed without the pages that this one has lost.
        if (this.#syncFailure) throw this.#syncFailure.error
        await (this.#syncing ?? this.#beginSync())
      }
    } finally {
      this.#users--
      if (this.#retired) this.#closeIfIdle()
    }
  }

  #beginSync(): Promise<void> {
    const { counters, disk } = this.#place
    const { seq, end, crc, seal } = this.chain
    this.#syncing = disk
      .sync(this.fd)
      .then(
        () => {
          this.#synced = Math.max(this.#synced, seq)
          if (!seal && seq >= 0) this.#syncedPoint = { seq, bytes: end, crc }
          counters.syncs++
        },
        (error: unknown) => {
          this.#syncFailure ??= { error }
          throw error
        },
      )
      .finally(() => {
        this.#syncing = undefined
      })
    return this.#syncing
  }

  /** Keeps the descriptor open until what is returned is called. */
  keep(): () => void {
    this.#users++
    return () => {
      this.#users--
      if (this.#retired) this.#closeIfIdle()
    }
  }

  /** Closes the descriptor as soon as nobody waits for a sync of it. */
  retire(): void {
    this.#retired = true
    this.#closeIfIdle()
  }

  get busy(): boolean {
    return this.#users > 0
  }

  #closeIfIdle(): void {
    if (this.#users > 0 || this.#closed) return
    this.#closed = true
    try {
      this.#place.disk.close(this.fd)
    } catch (error) {
      // The descriptor is gone either way, and what was promised was synced before.
      if (errnoOf(error) === undefined) throw error
    }
  }
}

export function logCorrupt(label: string, damage: { why: string; byte: number; seq: number }): StoreError {
  return new StoreError('LOG_CORRUPT', `${label} is damaged at byte ${damage.byte}, seq ${damage.seq}: ${damage.why}.`, {
    details: { file: label, byte: damage.byte, seq: damage.seq, why: damage.why },
    hint: 'Nothing was written and nothing is repaired by itself; other sessions go on. `holdfast verify` shows the extent, `holdfast repair` what can be saved; keep the file.',
  })
}

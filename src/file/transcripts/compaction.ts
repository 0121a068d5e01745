/** Compaction of bytes: a transcript is written anew without void lines, and without what a summary stands for. The old file goes to the archive.
 *
 *  1 copy what stays to a file in `locks/prepared`, sync it    no lock is held, however long it takes   crash: a stray, swept by maintenance
 *  2 take the lock, copy what was added since, sync that       milliseconds                             crash: the same
 *  3 seal the old log with `compacted`, sync the seal          crash: nothing chains any more; whoever comes next does the rest, from a copy
 *                                                              of its own with the same bytes, since they are a function of the sealed log
 *  4 link the old file into the stage, look that it is the     crash: the file stands in the archive, too
 *    sealed one, rename the link into the archive, sync that
 *  5 rename the new file into the stage, then onto the old     crash: old and sealed, or new
 *    one's name, sync the directory
 *
 *  4 before 5: what was removed must be in the archive before it is gone. All renames go through the stage: whoever has lost the lock, and wakes,
 *  finds no stage. The new file gets a record in the seal's place, so that no sequence number is ever used twice. */
import { errnoOf, ioError, StoreError } from '../../errors.js'
import type { WaitOptions } from '../../types.js'
import { type Disk, type FileStat, makeDirectories, readFully, writeFully } from '../durable.js'
import type { Host } from '../host.js'
import { Preparation } from '../job.js'
import type { Held } from '../lock/baton.js'
import { makerName } from '../lock/holder.js'
import { type LogFile, logCorrupt } from '../log/log-file.js'
import { type Seal, systemBody } from '../log/record.js'
import { openTail } from '../log/tail.js'
import type { SharedSync } from '../shared-sync.js'
import { lastSummary } from './compacted-reading.js'
import { LogCopy, survey } from './log-copy.js'
import type { Open } from './open.js'
import { openSource, type Source } from './reading.js'
import { decided } from './receipts.js'
import { isMoved } from './transcript.js'

export interface CompactionTools {
  readonly host: Host
  readonly tag: string
  readonly archive: string
  /** Where copies are made. */
  readonly prepared: string
  readonly names: SharedSync
}

export interface BytesOptions extends WaitOptions {
  /** Do nothing when less can be removed. */
  readonly minBytes: number
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

export interface BytesDone {
  readonly bytesBefore: number
  readonly bytesAfter: number
  /** Name of the old file in the archive. */
  readonly archive: string
  /** The first record that has stayed. */
  readonly from: number
}

/** again: the file was replaced, or the lock lost · behind: too much was added meanwhile to be copied under the lock. */
type Try<R> = R | 'again' | 'behind'

interface Work {
  readonly source: Source
  readonly sessionId: string
  readonly fd: number
  readonly stat: FileStat
  readonly copy: LogCopy
  readonly into: number
  readonly path: string
}

const triesMax = 20
/** What is copied under the lock. */
const nowBytesMax = 256 << 10

export class Compaction {
  #tools: CompactionTools

  constructor(tools: CompactionTools) {
    this.#tools = tools
  }

  /** undefined when there is nothing to be removed. */
  async compact(open: Open, options: BytesOptions): Promise<BytesDone | 'again' | undefined> {
    const { sessionId } = open.transcript
    const source = sourceOf(open)
    const { disk } = this.#tools.host
    const fd = openSource(source)
    if (fd === undefined) return undefined
    try {
      const stat = disk.fstat(fd)
      const tail = openTail(disk, fd, stat.size, source.tag, { records: 1 })
      if (tail.damage) throw logCorrupt(source.label, tail.damage)
      if (tail.seq < 0 || tail.seal) return tail.seal ? 'again' : undefined
      const summary = await lastSummary(source, fd, stat.size, options.signal)
      // At least one record stays, so that the end of the log tells where a conversation stands.
      const wanted = Math.min((summary?.upTo ?? -1) + 1, tail.userSeq)
      const of = { disk, fd, tag: source.tag, sessionId }
      const { from, removable } = await survey(of, stat.size, wanted, options.minBytes, options.signal)
      if (removable < options.minBytes) return undefined
      const writer = this.#tools.tag + this.#tools.host.nonce(8)
      return await this.#prepared(source, sessionId, fd, stat, { from, writer }, async (work) => {
        const total = stat.size
        await work.copy.follow(total, options.signal, (bytes) => options.onProgress?.(bytes, total))
        this.#assertSound(work)
        await disk.sync(work.into)
        for (let tries = 0; ; tries++) {
          const done = await open.committer.exclusively('compact', options, (held) =>
            this.#sealAndSwap(open, work, { from, writer }, held, tries >= triesMax),
          )
          if (done !== 'behind') return done
          await work.copy.follow(disk.fstat(fd).size, options.signal)
          await disk.sync(work.into)
        }
      })
    } finally {
      disk.close(fd)
    }
  }

  /** Does what a `compacted` seal says, from wherever whoever wrote it has left it. */
  async finish(open: Open, wait: WaitOptions): Promise<void> {
    const { sessionId } = open.transcript
    const source = sourceOf(open)
    const { disk } = this.#tools.host
    for (let tries = 0; tries < triesMax; tries++) {
      const fd = openSource(source)
      if (fd === undefined) return
      try {
        const stat = disk.fstat(fd)
        const { seal } = openTail(disk, fd, stat.size, source.tag, { records: 1 })
        if (seal?.reason !== 'compacted') return
        const plan = { from: seal.from ?? 0, writer: seal.writer ?? this.#tools.tag }
        const done = await this.#prepared(source, sessionId, fd, stat, plan, async (work) => {
          await work.copy.follow(stat.size, wait.signal)
          this.#assertSound(work)
          work.copy.add(placeholder(seal))
          await this.#settle(work)
          return open.committer.exclusively('compact', wait, (held) => this.#swap(work, held))
        })
        if (done !== 'again') return
      } finally {
        disk.close(fd)
      }
    }
    throw new StoreError('LOCK_LOST', `the lock of ${source.label} is lost again and again.`, { hint: 'Try again.' })
  }

  async #prepared<R>(
    source: Source,
    sessionId: string,
    fd: number,
    stat: FileStat,
    plan: { readonly from: number; readonly writer: string },
    work: (work: Work) => Promise<R>,
  ): Promise<R> {
    const { host, prepared } = this.#tools
    const { disk } = host
    makeDirectories(disk, prepared)
    const path = `${prepared}/${preparedName(host, sessionId)}`
    const into = disk.open(path, 'create')
    try {
      const copy = new LogCopy({ disk, fd, tag: source.tag, sessionId }, into, plan)
      return await work({ source, sessionId, fd, stat, copy, into, path })
    } finally {
      disk.close(into)
      removePrepared(disk, path)
    }
  }

  #assertSound({ source, copy }: Work): void {
    if (copy.chain.damage) throw logCorrupt(source.label, copy.chain.damage)
  }

  /** Steps 2 to 5. */
  async #sealAndSwap(
    { transcript, committer }: Open,
    work: Work,
    plan: { readonly from: number; readonly writer: string },
    held: Held,
    anyLength: boolean,
  ): Promise<Try<BytesDone>> {
    let log: LogFile
    try {
      log = transcript.refresh()
    } catch (error) {
      if (error instanceof Preparation || isMoved(error)) return 'again'
      throw error
    }
    const { copy, stat } = work
    if (log.ino !== stat.ino || log.dev !== stat.dev) return 'again'
    if (log.size - copy.chain.settled > nowBytesMax && !anyLength) return 'behind'
    copy.followNow(log.size)
    if (copy.chain.seq !== log.chain.seq || copy.chain.crc !== log.chain.crc) return 'again'
    const seal: Seal = { reason: 'compacted', ...plan, at: this.#tools.host.clock.wallMs() }
    // All bytes before the seal: what comes behind it takes no room on the disk.
    copy.add(placeholder(seal))
    await this.#settle(work)
    if (!committer.appendHeld(log, [systemBody({ seal })]) || log.chain.seq !== copy.seq) return 'again'
    try {
      await log.durable(log.chain.seq)
    } catch (error) {
      transcript.suspect(error)
      throw decided(ioError(error, `syncing ${work.source.label}`, 'none'))
    }
    try {
      const bytesBefore = log.size
      const archive = await this.#swap(work, held)
      return archive === 'again' ? archive : { bytesBefore, bytesAfter: copy.bytes, archive, from: plan.from }
    } catch (error) {
      throw decided(ioError(error, `compacting ${work.source.label}`, 'none'))
    }
  }

  /** Every byte of the copy is where it should be, and on the disk. */
  async #settle({ copy, into }: Work): Promise<void> {
    const { disk } = this.#tools.host
    const { size } = disk.fstat(into)
    if (size !== copy.bytes)
      throw new StoreError('IO_FAILED', `a copy has ${size} bytes instead of ${copy.bytes}.`, { details: { size, bytes: copy.bytes } })
    await disk.sync(into)
  }

  /** Steps 4 and 5, of a sealed log. The old file's name in the archive; `again` when the path names another by now, or the lock is lost. */
  async #swap({ source, sessionId, fd, stat, copy, path }: Work, held: Held): Promise<Try<string>> {
    const { host, archive, names } = this.#tools
    const { disk } = host
    const name = `${sessionId}.${copy.seq}.jsonl`
    const old = `${held.stage}/${host.nonce(12)}`
    const anew = `${held.stage}/${host.nonce(12)}`
    held.used = true
    try {
      const there = disk.stat(source.path)
      if (there?.ino !== stat.ino || there.dev !== stat.dev) return 'again'
      this.#linkOrCopy(source.path, fd, stat, old)
      disk.rename(old, `${archive}/${name}`)
      await disk.syncDirectory(archive)
      disk.rename(path, anew)
      disk.rename(anew, source.path)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return 'again'
      throw error
    }
    await names.run()
    return name
  }

  /** @throws ENOENT  the path names another file by now: somebody has done it. */
  #linkOrCopy(path: string, fd: number, stat: FileStat, to: string): void {
    const { disk } = this.#tools.host
    try {
      disk.link(path, to)
      const linked = disk.stat(to)
      if (linked?.ino === stat.ino && linked.dev === stat.dev) return
      throw Object.assign(new Error('ENOENT: another file stands there'), { code: 'ENOENT' })
    } catch (error) {
      if (!withoutLinks.has(errnoOf(error) ?? '')) throw error
    }
    // A file system without hard links: then it takes as long as it takes.
    const target = disk.open(to, 'create')
    try {
      const { size } = disk.fstat(fd)
      for (let at = 0; at < size; at += 1 << 20) writeFully(disk, target, readFully(disk, fd, at, Math.min(1 << 20, size - at)))
    } finally {
      disk.close(target)
    }
  }
}

function sourceOf({ transcript }: Open): Source {
  const { disk, path, label, tag } = transcript.place
  return { disk, path, label, tag, readers: new Set() }
}

const withoutLinks = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS'])

/** It is in place by now, or the sweep takes it. */
export function removePrepared(disk: Disk, path: string): void {
  try {
    disk.unlink(path)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
}

/** What stands in the seal's place in the new file. */
function placeholder({ from, at }: Seal): string {
  return systemBody({ compacted: { from: from ?? 0, at } })
}

/** Named after its maker, so that others can tell when it will never be finished. */
export function preparedName(host: Host, sessionId: string): string {
  return `${sessionId}.${makerName(host.identity, host.nonce(12))}`
}

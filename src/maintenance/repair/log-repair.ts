/** Writes a damaged log anew. Others may be appending to it: where the damage lies behind them, they do not see it.
 *
 *  1 compare the file with what the plan was made from   else refused
 *  2 keep the removed bytes, in quarantine, synced       crash: a folder too many
 *  3 write the new log beside them                       crash: the same
 *  4 take the lock; seal the old log                     crash: the log is damaged as before, and closed: nothing is appended to it any more
 *  5 add to the new log what was appended before the seal, sync it
 *  6 rename it into the stage, then onto the log         crash: old or new, never neither; lock lost: ENOENT, nothing has changed
 *  7 sync the directory                                  until this returns, a power cut may bring the old file back
 *
 *  Where the log cannot be sealed in a way that its readers accept, the seal continues the last record that stays: whoever was frozen in the
 *  middle of a write finds that the file is not what it was, and writes to the new one. */
import { crc32 } from 'node:zlib'
import { errnoOf, StoreError } from '../../errors.js'
import { encodeBatch } from '../../file/batch.js'
import { readFully } from '../../file/durable.js'
import type { Host } from '../../file/host.js'
import type { Baton, Held } from '../../file/lock/baton.js'
import { Chain } from '../../file/log/chain.js'
import { LogFile } from '../../file/log/log-file.js'
import { encodeLine, readMark, systemBody } from '../../file/log/record.js'
import { breathe } from '../../file/stage.js'
import type { Counters } from '../../file/stats.js'
import type { LogRewrite, RepairAction, RepairPlan, Requirement } from '../../repair-plan.js'
import { isRepairSeal, NewLog } from './new-log.js'
import { Quarantine } from './quarantine.js'

export interface LogSite {
  readonly host: Host
  readonly counters: Counters
  readonly tag: string
  readonly path: string
  readonly directory: string
  readonly quarantine: string
  readonly baton: Baton
  readonly waitMs: number
  /** Nobody appends to it: it lies in the archive. */
  readonly atRest: boolean
}

const triesMax = 5
const crcBytes = 1 << 20
const partName = 'rebuilt.part'

/** @returns where the removed bytes are, relative to the store; undefined when there were none.
 *  @throws SEQ_CONFLICT  the file is not what the plan was made from · LOCK_TIMEOUT · DISK_FULL, IO_FAILED. Effect none. */
export async function repairLog(
  site: LogSite,
  plan: RepairPlan,
  action: RepairAction,
  work: LogRewrite,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const { disk } = site.host
  const [requirement] = action.requires
  if (!requirement) throw changed(action.file, 'the plan does not say what it was made from')
  const fd = openThere(site, action)
  try {
    for (let tries = 0; ; tries++) {
      await assertSame(site, fd, requirement, signal)
      const quarantine = new Quarantine(site.host, site.quarantine)
      try {
        if (await replace(site, fd, plan, action, work, quarantine)) return quarantine.needed ? quarantine.label : undefined
      } finally {
        quarantine.discard()
      }
      if (tries >= triesMax)
        throw new StoreError('LOCK_LOST', `the lock of ${action.file} is lost again and again.`, {
          hint: 'Nothing was changed. Try again.',
        })
    }
  } finally {
    disk.close(fd)
  }
}

function openThere({ host, path }: LogSite, { file }: RepairAction): number {
  try {
    return host.disk.open(path, 'read')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw changed(file, 'it is not there any more')
    throw error
  }
}

async function assertSame(
  { host: { disk } }: LogSite,
  fd: number,
  { file, bytes = 0, crc }: Requirement,
  signal?: AbortSignal,
): Promise<void> {
  if (disk.fstat(fd).size < bytes) throw changed(file, 'it has become shorter')
  let found = 0
  for (let at = 0; at < bytes; at += crcBytes) {
    signal?.throwIfAborted()
    found = crc32(readFully(disk, fd, at, Math.min(crcBytes, bytes - at)), found)
    await breathe()
  }
  if (found !== crc) throw changed(file, 'its bytes are others')
}

export function changed(file: string, how: string): StoreError {
  return new StoreError('SEQ_CONFLICT', `${file} is not what the plan was made from: ${how}.`, {
    details: { file, how },
    hint: 'Nothing was changed. Plan anew: what has changed it may matter.',
  })
}

/** True when the new log is in place; false when the lock was lost over it, or somebody appended first. */
async function replace(
  site: LogSite,
  fd: number,
  plan: RepairPlan,
  action: RepairAction,
  work: LogRewrite,
  quarantine: Quarantine,
): Promise<boolean> {
  const { host, tag } = site
  const { disk } = host
  const bytes = action.requires[0]?.bytes ?? 0
  const name = `${action.file.slice(action.file.lastIndexOf('/') + 1)}.removed`
  const [removal] = action.quarantines
  if (removal) {
    await quarantine.keep(name, fd, removal.ranges)
    await quarantine.note(plan, action, { [name]: { file: action.file, ranges: removal.ranges } })
  }
  const part = quarantine.create(partName)
  try {
    const lost = { at: host.clock.wallMs(), why: 'lost to damage of the file', quarantine: removal && quarantine.label }
    const log = new NewLog(disk, fd, part, work, tag + host.nonce(8), lost)
    await log.write()
    const growth = new Growth(site, fd, action.file, work, bytes)
    growth.take(log)
    await log.flush()
    await disk.sync(part)
    return await finish(site, fd, action.file, log, growth, quarantine, part)
  } finally {
    disk.close(part)
  }
}

async function finish(
  site: LogSite,
  fd: number,
  file: string,
  log: NewLog,
  growth: Growth,
  quarantine: Quarantine,
  part: number,
): Promise<boolean> {
  const { host, baton, waitMs } = site
  const { disk } = host
  const held = await baton.acquire({ does: 'repair', waitMs, deadlineMs: host.clock.monotonicMs() + waitMs })
  try {
    if (!sameFile(site, fd)) throw changed(file, 'another file has taken its place')
    growth.take(log)
    if (!site.atRest && !growth.sealed && !seal(site, file, growth)) return false
    growth.take(log)
    await log.flush()
    if (growth.any) await disk.sync(part)
    if (!stage(site, held, `${quarantine.path}/${partName}`)) return false
    quarantine.needed = quarantine.noted
    await disk.syncDirectory(site.directory)
    return true
  } finally {
    baton.release(held)
  }
}

function sameFile({ host: { disk }, path }: LogSite, fd: number): boolean {
  const there = disk.stat(path)
  const { ino, dev } = disk.fstat(fd)
  return there?.ino === ino && there.dev === dev
}

/** Into the stage, and from there onto the log. False when the lock is lost: nothing has changed. */
function stage({ host: { disk, nonce }, path }: LogSite, held: Held, part: string): boolean {
  const staged = `${held.stage}/${nonce(12)}`
  held.used = true
  try {
    disk.rename(part, staged)
    disk.rename(staged, path)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}

/** What has been appended since the plan was made. */
class Growth {
  sealed = false
  any = false
  /** The end of what has been looked at. */
  #at: number
  #site: LogSite
  #fd: number
  #file: string
  #chain: Chain

  constructor(site: LogSite, fd: number, file: string, work: LogRewrite, bytes: number) {
    this.#site = site
    this.#fd = fd
    this.#file = file
    this.#at = bytes
    const mark = { seq: work.last.seq, crc: work.last.crc, left: 0, synced: -1, writer: '', prev: 0, bodyBytes: 0 }
    this.#chain = Chain.from(site.tag, mark, bytes, -1, false)
    // What is lost behind the last record cannot be continued.
    this.mayGrow = work.upTo === work.last.seq
  }

  readonly mayGrow: boolean

  get at(): number {
    return this.#at
  }

  get last(): { readonly seq: number; readonly crc: number } {
    return this.#chain
  }

  /** Takes what continues the log. @throws SEQ_CONFLICT  for anything else. */
  take(into: NewLog): void {
    const { disk } = this.#site.host
    const size = disk.fstat(this.#fd).size
    if (size === this.#at) return
    const bytes = this.#withoutSeal(readFully(disk, this.#fd, this.#at, size - this.#at))
    this.#at = size
    if (bytes.length === 0) return
    const voids = this.#chain.voidLines
    this.any = true
    this.#chain.settled = 0
    if (this.mayGrow) this.#chain.feed(bytes, { record: (mark, from, start) => into.add(from, start, mark) })
    const { settled, voidLines, damage, seal } = this.#chain
    if (!this.mayGrow || settled !== bytes.length || voidLines !== voids || damage || seal)
      throw changed(this.#file, seal ? 'it has been closed' : 'what was added since does not continue it')
  }

  /** A seal of ours at the end says that nothing more will come. */
  #withoutSeal(bytes: Buffer): Buffer {
    const start = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1
    if (bytes[bytes.length - 1] !== 0x0a || !readMark(bytes, start, bytes.length - 1) || !isRepairSeal(bytes, start)) return bytes
    this.sealed = true
    const broken = start >= 2 && bytes[start - 2] === 0x23 && (start === 2 || bytes[start - 3] === 0x0a)
    return bytes.subarray(0, broken ? start - 2 : start)
  }
}

/** Nothing chains behind a seal: whoever writes later finds that it is void, and does its work again on the new file. False when somebody
 *  was faster. */
function seal(site: LogSite, file: string, growth: Growth): boolean {
  const { host, tag, path, counters } = site
  const body = systemBody({ seal: { reason: 'suspect', why: 'repair', at: host.clock.wallMs() } })
  let log: LogFile
  try {
    log = LogFile.open({ disk: host.disk, path, label: file, tag, counters }, 'appendExisting', 'tail')
  } catch (error) {
    // A file that cannot be written to: then nobody else can, either.
    if (errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM' || errnoOf(error) === 'EROFS') return true
    throw error
  }
  try {
    if (log.size !== growth.at) return false
    if (log.chain.seal) return true
    const sound = !log.chain.damage && log.chain.seq >= 0
    if (sound) {
      const batch = encodeBatch(host, log, [body], false)
      return write(site, log.fd, batch.bytes) && log.landed(batch)
    }
    const { seq, crc } = growth.last
    const { line } = encodeLine(body, { seq: seq + 1, left: 0, synced: -1, writer: tag + host.nonce(8), prev: crc })
    const bytes = Buffer.from(log.chain.openTail ? `#\n${line}` : line)
    return write(site, log.fd, bytes) && host.disk.fstat(log.fd).size === growth.at + bytes.length
  } finally {
    log.retire()
  }
}

function write({ host: { disk } }: LogSite, fd: number, bytes: Buffer): boolean {
  const wrote = disk.write(fd, bytes)
  if (wrote === bytes.length) return true
  throw Object.assign(new Error(`ENOSPC: the disk took ${wrote} of ${bytes.length} bytes, write`), { code: 'ENOSPC' })
}

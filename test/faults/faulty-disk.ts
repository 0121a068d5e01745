/** A disk that fails once, at the n-th call of one kind. */
import type { Disk } from '../../src/file/durable.js'
import { failure } from '../simulation/posix-error.js'

export type Call = keyof Disk

export interface Fault {
  readonly call: Call
  /** Counted from 1. */
  readonly nth: number
  /** An error code: nothing is done · short: a write takes half of its bytes and says so · torn: it takes half, then EIO. */
  readonly how: string
  /** How many calls fail, from the n-th on. Default 1. */
  readonly times?: number
  /** Only calls on this path count; of calls on a descriptor, the path it was opened by. */
  readonly path?: (path: string) => boolean
}

export interface FaultyDisk {
  readonly disk: Disk
  /** How many calls of each kind there were. */
  readonly counts: Map<Call, number>
  /** Whether the fault has come about. */
  fired(): boolean
  /** From now on the disk is whole. */
  mend(): void
  /** It begins anew: calls are counted from here. */
  arm(): void
}

/** @param onFailedSync  told of the descriptor whose sync is about to fail. */
export function faultyDisk(whole: Disk, fault: Fault | undefined, onFailedSync: (fd: number) => void = () => {}): FaultyDisk {
  const counts = new Map<Call, number>()
  const opened = new Map<number, string>()
  let fired = false
  let mended = false
  const fails = (call: Call, path: string): boolean => {
    if (fault?.path && !fault.path(path)) return false
    const count = (counts.get(call) ?? 0) + 1
    counts.set(call, count)
    if (mended || !fault || call !== fault.call || count < fault.nth || count >= fault.nth + (fault.times ?? 1)) return false
    fired = true
    return true
  }
  const guard = <T>(call: Call, path: string, work: () => T): T => {
    if (fails(call, path)) throw failure(fault!.how, call, path)
    return work()
  }
  const of = (fd: number) => opened.get(fd) ?? `descriptor ${fd}`
  const guardSync = async (call: Call, path: string, work: () => Promise<void>, failed: () => void): Promise<void> => {
    if (!fails(call, path)) return work()
    await new Promise((resolve) => setImmediate(resolve))
    failed()
    throw failure(fault!.how, call, path)
  }
  const disk: Disk = {
    open(path, flags) {
      const fd = guard('open', path, () => whole.open(path, flags))
      opened.set(fd, path)
      return fd
    },
    close: (fd) => guard('close', of(fd), () => whole.close(fd)),
    write(fd, bytes) {
      if (!fails('write', of(fd))) return whole.write(fd, bytes)
      if (fault!.how !== 'short' && fault!.how !== 'torn') throw failure(fault!.how, 'write')
      const wrote = whole.write(fd, bytes.subarray(0, bytes.length >> 1))
      if (fault!.how === 'torn') throw failure('EIO', 'write')
      return wrote
    },
    read: (fd, into, offset, length, position) => guard('read', of(fd), () => whole.read(fd, into, offset, length, position)),
    fstat: (fd) => guard('fstat', of(fd), () => whole.fstat(fd)),
    stat: (path) => guard('stat', path, () => whole.stat(path)),
    rename: (from, to) => guard('rename', from, () => whole.rename(from, to)),
    link: (from, to) => guard('link', from, () => whole.link(from, to)),
    unlink: (path) => guard('unlink', path, () => whole.unlink(path)),
    mkdir: (path) => guard('mkdir', path, () => whole.mkdir(path)),
    rmdir: (path) => guard('rmdir', path, () => whole.rmdir(path)),
    readdir: (path) => guard('readdir', path, () => whole.readdir(path)),
    sync: (fd) =>
      guardSync(
        'sync',
        of(fd),
        () => whole.sync(fd),
        () => onFailedSync(fd),
      ),
    syncDirectory: (path) =>
      guardSync(
        'syncDirectory',
        path,
        () => whole.syncDirectory(path),
        () => {},
      ),
  }
  return {
    disk,
    counts,
    fired: () => fired,
    mend() {
      mended = true
    },
    arm() {
      mended = false
      counts.clear()
    },
  }
}

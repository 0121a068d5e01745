/** The only file that touches the disk. Everything above talks to a `Disk`, so that a test can put a failing, a recording or a simulated
 *  one in its place. Calls are the system's own, one each; what they mean together is decided elsewhere.
 *
 *  Calls on the lock path are synchronous: they take microseconds and are 3 to 18 times faster than their promises. Syncs are not. */

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import { dirname } from 'node:path'
import writeFileAtomic from 'write-file-atomic'

export interface FileStat {
  readonly dev: number
  readonly ino: number
  readonly size: number
  readonly ctimeMs: number
  /** For people, and for backups; nothing is decided by it. */
  readonly mtimeMs?: number
  readonly mode: number
  readonly kind: 'file' | 'directory' | 'symlink' | 'other'
}

/** Whether a name still stands for the very file that it stood for, unchanged. */
export function isUntouched(now: FileStat | undefined, then: FileStat | undefined): boolean {
  if (!now || !then) return false
  return now.ino === then.ino && now.dev === then.dev && now.size === then.size && now.ctimeMs === then.ctimeMs
}

/** append: O_APPEND, created where missing, readable · appendExisting: the same, ENOENT where missing · create: O_EXCL · read: read only.
 *  None follows a symbolic link in the last step. */
export type OpenFlags = 'append' | 'appendExisting' | 'create' | 'read'

export interface Disk {
  open(path: string, flags: OpenFlags): number
  close(fd: number): void
  /** One write; the count may be short. Never retried here: what a short write means is the caller's to decide. */
  write(fd: number, bytes: Uint8Array): number
  /** Up to `length` bytes at `position`; the count may be short, 0 at the end. */
  read(fd: number, into: Uint8Array, offset: number, length: number, position: number): number
  /** The same, while others have their turn: for long reading. */
  readAside?(fd: number, into: Uint8Array, offset: number, length: number, position: number): Promise<number>
  fstat(fd: number): FileStat
  /** Of the name itself (a symbolic link is not followed); undefined where there is nothing. */
  stat(path: string): FileStat | undefined
  rename(from: string, to: string): void
  link(from: string, to: string): void
  unlink(path: string): void
  mkdir(path: string): void
  rmdir(path: string): void
  /** Of a file or directory, not of what a symbolic link names. */
  chmod?(path: string, mode: number): void
  readdir(path: string): string[]
  /** The same, little by little: a hundred thousand names at once hold up the event loop. */
  names?(path: string): AsyncIterable<string>
  /** Bytes that may still be written to the file system of this directory; undefined where nobody can tell. */
  freeBytes?(directory: string): number | undefined
  /** Resolves when the file's bytes, and what is needed to find them, are on the disk. */
  sync(fd: number): Promise<void>
  /** Resolves when the names in this directory are on the disk. Nothing to do on Windows, where a directory cannot be synced. */
  syncDirectory(path: string): Promise<void>
}

const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY } = fs.constants
const O_NOFOLLOW = fs.constants.O_NOFOLLOW ?? 0
const flagBits: Record<OpenFlags, number> = {
  append: O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW,
  appendExisting: O_RDWR | O_APPEND | O_NOFOLLOW,
  create: O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW,
  read: O_RDONLY | O_NOFOLLOW,
}

/** A signal may interrupt a call before it has done anything; then it is simply made again. */
function uninterrupted<T>(call: () => T): T {
  for (;;) {
    try {
      return call()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINTR') throw error
    }
  }
}

function factsOf(stat: fs.Stats): FileStat {
  const kind = stat.isFile() ? 'file' : stat.isDirectory() ? 'directory' : stat.isSymbolicLink() ? 'symlink' : 'other'
  return { dev: stat.dev, ino: stat.ino, size: stat.size, ctimeMs: stat.ctimeMs, mtimeMs: stat.mtimeMs, mode: stat.mode, kind }
}

export const nodeDisk: Disk = {
  open: (path, flags) => uninterrupted(() => fs.openSync(path, flagBits[flags], 0o600)),
  close: (fd) => fs.closeSync(fd),
  write: (fd, bytes) => uninterrupted(() => fs.writeSync(fd, bytes)),
  read: (fd, into, offset, length, position) => uninterrupted(() => fs.readSync(fd, into, offset, length, position)),
  readAside: (fd, into, offset, length, position) =>
    new Promise((resolve, reject) => fs.read(fd, into, offset, length, position, (error, got) => (error ? reject(error) : resolve(got)))),
  fstat: (fd) => factsOf(fs.fstatSync(fd)),
  stat(path) {
    const stat = fs.lstatSync(path, { throwIfNoEntry: false })
    return stat && factsOf(stat)
  },
  rename: (from, to) => fs.renameSync(from, to),
  link: (from, to) => fs.linkSync(from, to),
  unlink: (path) => fs.unlinkSync(path),
  mkdir: (path) => fs.mkdirSync(path, 0o700),
  rmdir: (path) => fs.rmdirSync(path),
  chmod(path, mode) {
    if (!fs.lstatSync(path).isSymbolicLink()) fs.chmodSync(path, mode)
  },
  readdir: (path) => fs.readdirSync(path),
  async *names(path) {
    for await (const { name } of await fs.promises.opendir(path, { bufferSize: 500 })) yield name
  },
  freeBytes(directory) {
    try {
      const { bavail, bsize } = fs.statfsSync(directory)
      return bavail * bsize
    } catch {
      return undefined
    }
  },
  sync: (fd) => new Promise((resolve, reject) => fs.fdatasync(fd, (error) => (error ? reject(error) : resolve()))),
  async syncDirectory(path) {
    if (process.platform === 'win32') return
    const handle = await fs.promises.open(path, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
}

/** Writes all bytes or throws; only for files that nobody else can see yet. */
export function writeFully(disk: Disk, fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    const wrote = disk.write(fd, bytes.subarray(done))
    if (wrote <= 0) throw Object.assign(new Error('ENOSPC: the disk took none of the bytes, write'), { code: 'ENOSPC' })
    done += wrote
  }
}

/** Reads exactly `length` bytes from `position`, fewer only at the end of the file. */
export function readFully(disk: Disk, fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const got = disk.read(fd, bytes, done, length - done, position + done)
    if (got <= 0) break
    done += got
  }
  return done === length ? bytes : bytes.subarray(0, done)
}

/** Makes a directory and those above it; one that exists is left as it is. */
export function makeDirectories(disk: Disk, path: string): void {
  try {
    disk.mkdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    if (code !== 'ENOENT' || dirname(path) === path) throw error
    makeDirectories(disk, dirname(path))
    makeDirectories(disk, path)
  }
}

/** Gives a file that has just been made the mode and the time that it had elsewhere. */
export function dressFile(path: string, mode: number, mtimeMs: number): void {
  fs.chmodSync(path, mode)
  const seconds = mtimeMs / 1_000
  fs.utimesSync(path, seconds, seconds)
}

/** Makes a symbolic link that says `target`, whether or not that leads anywhere. */
export function makeLink(path: string, target: string): void {
  fs.symlinkSync(target, path)
}

/** Replaces a file that no lock guards: an export, a manifest. A reader sees the old bytes or the new bytes, never a mix.
 *  1 write and sync under a name of our own   write-file-atomic does it, but does not look at the count that `write` returns,
 *  2 compare the length                       so on a full disk the file may be short: then it goes, and the old one stays
 *  3 rename onto the target                   crash: old or new, never neither
 *  4 sync the directory                       until this returns, a power cut may bring the old file back
 *  @throws the system's error, or ENOSPC when bytes are lacking; the target is then as it was. */
export async function writeWholeFile(path: string, bytes: Uint8Array, write = writeFileAtomic): Promise<void> {
  const part = `${path}.part-${randomBytes(8).toString('hex')}`
  try {
    await write(part, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), { mode: 0o600, fsync: true })
    const { size } = await fs.promises.stat(part)
    if (size !== bytes.length)
      throw Object.assign(new Error(`ENOSPC: ${size} of ${bytes.length} bytes were written, write '${path}'`), { code: 'ENOSPC' })
    await fs.promises.rename(part, path)
  } catch (error) {
    await fs.promises.rm(part, { force: true })
    throw error
  }
  await nodeDisk.syncDirectory(dirname(path))
}

/** Where a restore is made: a directory within the new one, of a name that nobody takes for a store. Its entries are renamed into place when
 *  all of it has been written, synced and read back, holdfast.json last.
 *  1 write and sync every file in the staging directory   crash: nothing but that directory; the next restore says so
 *  2 rename its entries into place, in order              crash: a journal without its snapshot, which no version opens, or all of the store
 *  3 sync the directory, remove the staging directory     done */
import { dirname, resolve } from 'node:path'
import { errnoOf, ioError, StoreError } from '../../errors.js'
import { type Disk, dressFile, makeDirectories, makeLink, writeFully } from '../../file/durable.js'
import type { FileRow } from '../repository/repository.js'

export const stagingPrefix = 'unfinished-restore-'

export class Staging {
  /** Where it will stand. */
  readonly into: string
  /** Where it is made. */
  readonly path: string
  #disk: Disk
  #directories = new Set<string>()
  #dressed: FileRow[] = []
  #made: boolean

  /** @throws INVALID_OPTION  the directory is not empty. Nothing was written. */
  static begin(disk: Disk, into: string, nonce: string): Staging {
    const path = resolve(into)
    const there = disk.stat(path)
    if (there && there.kind !== 'directory') throw refused(path, `${path} is a ${there.kind}`)
    const names = there ? disk.readdir(path) : []
    const unfinished = names.find((name) => name.startsWith(stagingPrefix))
    if (unfinished) throw refused(path, `${path} holds a restore that was not finished, ${unfinished}`)
    if (names.length > 0) throw refused(path, `${path} is not empty`)
    const staging = new Staging(disk, path, `${path}/${stagingPrefix}${nonce}`, there === undefined)
    makeDirectories(disk, staging.path)
    return staging
  }

  private constructor(disk: Disk, into: string, path: string, made: boolean) {
    this.#disk = disk
    this.into = into
    this.path = path
    this.#made = made
  }

  /** @param as  relative to the staging directory, checked by the caller */
  async file(as: string, bytes: AsyncIterable<Uint8Array>): Promise<void> {
    const path = `${this.path}/${as}`
    this.#parent(path)
    const fd = this.#disk.open(path, 'create')
    try {
      for await (const piece of bytes) writeFully(this.#disk, fd, piece)
      await this.#disk.sync(fd)
    } finally {
      this.#disk.close(fd)
    }
  }

  directory(as: string): void {
    const path = `${this.path}/${as}`
    makeDirectories(this.#disk, path)
    this.#directories.add(path)
    this.#parent(path)
  }

  link(as: string, target: string): void {
    this.#parent(`${this.path}/${as}`)
    makeLink(`${this.path}/${as}`, target)
  }

  /** Modes and times that others than a store's own files have; given at the end, since a directory that may not be written cannot be filled. */
  dress(row: FileRow): void {
    this.#dressed.push(row)
  }

  #parent(path: string): void {
    const parent = dirname(path)
    if (this.#directories.has(parent)) return
    makeDirectories(this.#disk, parent)
    this.#directories.add(parent)
    if (parent.length > this.path.length) this.#parent(parent)
  }

  /** Steps 2 and 3.
   *  @param strip  what stands before the names of the snapshot. */
  async finish(strip: (path: string) => string): Promise<void> {
    for (const row of this.#dressed.reverse()) dressFile(`${this.path}/${strip(row.path)}`, row.mode & 0o777, row.mtimeMs)
    for (const path of this.#directories) await this.#disk.syncDirectory(path)
    const others = this.#disk.readdir(this.into).filter((name) => `${this.into}/${name}` !== this.path)
    if (others.length > 0)
      throw refused(this.into, `somebody has put ${others[0]} into ${this.into} meanwhile, and nothing was put beside it`)
    for (const name of inOrder(this.#disk.readdir(this.path))) this.#disk.rename(`${this.path}/${name}`, `${this.into}/${name}`)
    await this.#disk.syncDirectory(this.into)
    this.#disk.rmdir(this.path)
    await this.#disk.syncDirectory(dirname(this.into)).catch(() => {}) // Not ours to read; then it was there before us.
  }

  /** Leaves nothing behind. */
  async abandon(): Promise<void> {
    try {
      removeTree(this.#disk, this.path)
      if (this.#made) this.#disk.rmdir(this.into)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
  }
}

/** The journal first: beside it no version makes a new store, and without its snapshot none opens this one. */
export function inOrder(names: readonly string[]): string[] {
  const first = ['sessions.journal.jsonl', 'transcripts']
  const last = ['sessions.json', 'holdfast.json']
  const others = names.filter((name) => !first.includes(name) && !last.includes(name)).sort()
  return [...first.filter((name) => names.includes(name)), ...others, ...last.filter((name) => names.includes(name))]
}

function removeTree(disk: Disk, path: string): void {
  for (const name of disk.readdir(path)) {
    if (disk.stat(`${path}/${name}`)?.kind === 'directory') removeTree(disk, `${path}/${name}`)
    else disk.unlink(`${path}/${name}`)
  }
  disk.rmdir(path)
}

function refused(into: string, why: string): StoreError {
  return new StoreError('INVALID_OPTION', `a restore goes into a new or an empty directory only: ${why}.`, {
    details: { into },
    hint: 'Nothing was overwritten. Name another directory.',
  })
}

/** What the target's disk says, while nothing of the new store is in place yet. */
export function restoreError(error: unknown, into: string): unknown {
  return errnoOf(error) === undefined ? error : ioError(error, `restoring into ${into}`, 'none')
}

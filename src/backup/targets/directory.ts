/** A directory as a target: on another disk, or a mount of another machine.
 *
 *  A put
 *  1 writes a file of its own in `tmp/`, all of it, and syncs it   crash, full disk: a stray file, removed by a later `prune`
 *  2 links it to its name (`ifAbsent`), or renames it              crash: whole or not there; of several links one succeeds
 *  3 syncs the directory                                           until this returns, a power cut may take it back
 *
 *  A mount may go away while it is in use. Its place is then another directory, or none: it is recognised by its device and by the
 *  description in it, and nothing is made there, nor taken for missing. */

import { randomBytes } from 'node:crypto'
import { dirname, join, resolve } from 'node:path'
import { errnoOf, ioError, StoreError } from '../../errors.js'
import { type Disk, makeDirectories, nodeDisk, readFully, writeFully } from '../../file/durable.js'
import { type GetOptions, type ObjectFacts, objectBytesMax, type PutOptions, type Target } from './target.js'

/** What a file system says that knows no hard links. */
const noLinks = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL', 'EMLINK'])

/** What stands in a directory that nobody has put anything into: a new file system has the one, a `createRepository` cut short leaves the other. */
const noContents = new Set(['lost+found', 'tmp'])

export class DirectoryTarget implements Target {
  readonly place: string
  readonly concurrentMax = 4
  readonly #disk: Disk
  readonly #ensured = new Set<string>()
  #hasLinks: boolean | undefined
  /** The device of the place, once it has been seen. Not its inode: some file systems make up another one each time. */
  #device: number | undefined
  /** Names at its top that have been seen: the description and its copy. */
  readonly #described = new Set<string>()

  constructor(directory: string, disk: Disk = nodeDisk) {
    this.place = resolve(directory)
    this.#disk = disk
  }

  async get(name: string, { range, bytesMax = objectBytesMax }: GetOptions = {}): Promise<Buffer | undefined> {
    const disk = this.#disk
    return this.#attempt(`reading ${name}`, 'none', async () => {
      let fd: number
      try {
        fd = disk.open(this.#path(name), 'read')
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
        this.#assertThere()
        return undefined
      }
      this.#note(name)
      try {
        const { size, kind } = disk.fstat(fd)
        const length = range ? Math.max(0, Math.min(range.length, size - range.from)) : size
        if (kind !== 'file' || length > bytesMax)
          throw new StoreError('BACKUP_MISMATCH', `${this.place}: ${name} is ${kind === 'file' ? `too large (${size} bytes)` : 'no file'}.`)
        return readFully(disk, fd, range?.from ?? 0, length)
      } finally {
        disk.close(fd)
      }
    })
  }

  async put(name: string, bytes: Uint8Array, { ifAbsent = false }: PutOptions = {}): Promise<boolean> {
    const path = this.#path(name)
    return this.#attempt(`writing ${name}`, 'unknown', async () => {
      const part = await this.#stage(bytes)
      try {
        await this.#ensure(dirname(path))
        if (ifAbsent) {
          if (!this.#linkFrom(part, path)) return false
        } else {
          this.#disk.rename(part, path)
        }
      } finally {
        this.#forget(part)
      }
      await this.#disk.syncDirectory(dirname(path))
      this.#note(name)
      return true
    })
  }

  async list(prefix: string): Promise<ObjectFacts[]> {
    return this.#attempt(`listing ${prefix}`, 'none', async () => {
      const found: ObjectFacts[] = []
      this.#walk(prefix.endsWith('/') ? prefix.slice(0, -1) : dirname(prefix), found)
      return found.filter(({ name }) => name.startsWith(prefix))
    })
  }

  async delete(name: string): Promise<void> {
    await this.#attempt(`removing ${name}`, 'unknown', async () => this.#forget(this.#path(name)))
  }

  async isEmpty(): Promise<boolean> {
    return this.#attempt('looking around', 'none', async () => {
      if (!this.#disk.stat(this.place)) return true
      return this.#disk.readdir(this.place).every((name) => noContents.has(name))
    })
  }

  async nowMs(): Promise<number> {
    // The clock of the file system: on a mount of another machine it is the other machine's.
    return this.#attempt('asking for the time', 'none', async () => {
      const part = await this.#stage(Buffer.of(0))
      const stat = this.#disk.stat(part)
      this.#forget(part)
      return stat?.ctimeMs ?? Date.now()
    })
  }

  async isExclusive(): Promise<boolean> {
    if (this.#hasLinks !== undefined) return this.#hasLinks
    return this.#attempt('trying a link', 'none', async () => {
      const part = await this.#stage(Buffer.of(0))
      try {
        this.#linkFrom(part, `${part}.link`)
        return this.#hasLinks ?? false
      } finally {
        this.#forget(part)
        this.#forget(`${part}.link`)
      }
    })
  }

  async sweep(olderThanMs: number): Promise<void> {
    const nowMs = await this.nowMs()
    await this.#attempt('removing what was left half made', 'unknown', async () => {
      const found: ObjectFacts[] = []
      this.#walk('tmp', found)
      for (const { name, modifiedMs } of found) if (nowMs - modifiedMs > olderThanMs) this.#forget(this.#path(name))
    })
  }

  async close(): Promise<void> {}

  #path(name: string): string {
    return join(this.place, name)
  }

  async #stage(bytes: Uint8Array): Promise<string> {
    const part = join(this.place, 'tmp', randomBytes(16).toString('hex'))
    await this.#ensure(dirname(part))
    const fd = this.#disk.open(part, 'create')
    try {
      writeFully(this.#disk, fd, bytes)
      await this.#disk.sync(fd)
    } catch (error) {
      this.#forget(part)
      throw error
    } finally {
      this.#disk.close(fd)
    }
    return part
  }

  /** The directory is there and will be after a power cut: a file in a directory whose own name is lost is lost with it. */
  async #ensure(directory: string): Promise<void> {
    this.#assertThere()
    if (this.#ensured.has(directory)) return
    let top = this.place
    while (!this.#disk.stat(top) && top !== dirname(top)) top = dirname(top)
    makeDirectories(this.#disk, directory)
    for (let at = directory; at !== top && at !== dirname(at); at = dirname(at)) await this.#disk.syncDirectory(dirname(at))
    this.#ensured.add(directory)
  }

  /** False: the name is taken. Without hard links it looks and then renames: two at once could both believe they were the first. */
  #linkFrom(part: string, path: string): boolean {
    try {
      this.#disk.link(part, path)
      this.#hasLinks = true
      return true
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'EEXIST') return false
      if (!errno || !noLinks.has(errno)) throw error
    }
    this.#hasLinks = false
    if (this.#disk.stat(path)) return false
    this.#disk.rename(part, path)
    return true
  }

  #forget(path: string): void {
    try {
      this.#disk.unlink(path)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }

  #walk(folder: string, found: ObjectFacts[]): void {
    let names: string[]
    try {
      names = this.#disk.readdir(this.#path(folder))
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      this.#assertThere()
      return
    }
    for (const name of names) {
      const inside = `${folder}/${name}`
      const stat = this.#disk.stat(this.#path(inside))
      if (stat?.kind === 'directory') this.#walk(inside, found)
      else if (stat?.kind === 'file') found.push({ name: inside, bytes: stat.size, modifiedMs: stat.ctimeMs })
    }
  }

  /** From now on the place is known, and has to stay what it is. */
  #note(name: string): void {
    this.#device ??= this.#disk.stat(this.place)?.dev
    if (!name.includes('/')) this.#described.add(name)
  }

  /** @throws BACKEND_UNAVAILABLE  it was there, and is not any more. */
  #assertThere(effect: 'none' | 'unknown' = 'none'): void {
    if (this.#device === undefined) return
    const isDescribed = this.#described.size === 0 || [...this.#described].some((name) => this.#disk.stat(this.#path(name)))
    if (isDescribed && this.#disk.stat(this.place)?.dev === this.#device) return
    throw new StoreError('BACKEND_UNAVAILABLE', `The repository in ${this.place} has gone away while it was in use.`, {
      effect,
      details: { place: this.place },
      hint: 'Look whether the disk is still mounted, then try again: nothing has been made in its place.',
    })
  }

  async #attempt<T>(doing: string, effect: 'none' | 'unknown', work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      this.#ensured.clear() // One of them may have been removed.
      this.#assertThere(effect)
      throw ioError(error, `${doing} in ${this.place}`, effect)
    }
  }
}

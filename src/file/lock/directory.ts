/** The directory that is a lock: what stands in it, and how it comes to be. Knows nothing of holding and waiting. */
import { errnoOf, ioError, StoreError } from '../../errors.js'
import { makeDirectories } from '../durable.js'
import type { Host } from '../host.js'
import { type Entry, freeName, makerName, parseEntry } from './holder.js'

/** Windows refuses to rename a directory while somebody looks into it; that passes. */
const windows = process.platform === 'win32'
const inUse = new Set(['EPERM', 'EACCES', 'EBUSY'])

export class LockDirectory {
  readonly path: string
  #host: Host
  #label: string

  constructor(host: Host, path: string, label: string) {
    this.#host = host
    this.path = path
    this.#label = label
  }

  /** The one entry; `absent` when the lock has to be made; undefined when it is just changing hands. */
  look(): Entry | 'absent' | undefined {
    const names = this.list()
    if (!names) return 'absent'
    // A listing made during a rename may show neither name or both: the rename that follows tells the truth.
    let entry: Entry | undefined
    for (const name of names) {
      const parsed = parseEntry(name)
      if (parsed && (!entry || parsed.n > entry.n)) entry = parsed
    }
    if (entry) return entry
    if (names.length > 0)
      throw new StoreError('IO_FAILED', `the lock ${this.#label} holds a foreign entry ${JSON.stringify(names[0])}.`, {
        retryable: false,
        details: { lock: this.#label, entries: names },
        hint: 'Nothing was written. Remove that entry; no process of this library has made it.',
      })
    const again = this.list()
    return again?.length ? undefined : 'absent'
  }

  /** The names in it; undefined when there is no such directory. */
  list(): string[] | undefined {
    try {
      return this.#host.disk.readdir(this.path)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw ioError(error, `reading the lock ${this.#label}`, 'none')
    }
  }

  /** One rename: the whole of acquiring and of taking over. False when somebody else was first. */
  change(from: string, to: string): boolean {
    try {
      this.#host.disk.rename(`${this.path}/${from}`, `${this.path}/${to}`)
      return true
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'EXDEV') this.#replaceImageLayer(from)
      else if (errno !== 'ENOENT' && !(windows && inUse.has(errno ?? ''))) throw ioError(error, `taking the lock ${this.#label}`, 'none')
      return false
    }
  }

  /** The lock appears with its entry in it, or not at all. */
  create(): void {
    const { clock, disk, identity } = this.#host
    // Above any token used before: microseconds of the wall clock outgrow one per acquisition.
    const n = Math.floor(clock.wallMs() * 1000)
    const made = `${this.path}.${makerName(identity, this.#host.nonce(12))}`
    try {
      makeDirectories(disk, `${made}/${freeName(n)}`)
      try {
        disk.rename(made, this.path)
      } catch (error) {
        const errno = errnoOf(error)
        disk.rmdir(`${made}/${freeName(n)}`)
        disk.rmdir(made)
        // Somebody else was first.
        if (errno !== 'ENOTEMPTY' && errno !== 'EEXIST') throw error
      }
    } catch (error) {
      throw ioError(error, `creating the lock ${this.#label}`, 'none')
    }
  }

  /** An empty directory is no lock: whoever makes one may rename it over this, or stand here already. */
  removeEmpty(): void {
    try {
      this.#host.disk.rmdir(this.path)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
  }

  /** overlayfs cannot rename a directory that comes from an image layer: it goes by its exact name, and the lock is made afresh. */
  #replaceImageLayer(from: string): void {
    for (const path of [`${this.path}/${from}`, this.path]) {
      try {
        this.#host.disk.rmdir(path)
      } catch (error) {
        const errno = errnoOf(error)
        if (errno !== 'ENOENT' && errno !== 'ENOTEMPTY') throw ioError(error, `replacing the lock ${this.#label}`, 'none')
      }
    }
  }
}

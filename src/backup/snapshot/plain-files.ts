/** Files that are no logs: read at rest, or told when they would not rest. */
import { readlinkSync } from 'node:fs'
import { errnoOf } from '../../errors.js'
import { type Disk, type FileStat, readFully } from '../../file/durable.js'

export interface TreeEntry {
  /** Relative to the root, `/` between its parts. */
  readonly path: string
  readonly stat: FileStat
}

export interface TreeProblem {
  readonly path: string
  readonly message: string
}

/** Everything below a directory, parents first, in the order of the names; what cannot be listed goes to `problem`. */
export function* walk(disk: Disk, root: string, skip: (path: string) => boolean, problem: (of: TreeProblem) => void): Generator<TreeEntry> {
  const pending: string[] = ['']
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const names = listed(disk, root, at, problem)
    const below: string[] = []
    for (const name of names) {
      const path = at === '' ? name : `${at}/${name}`
      if (skip(path)) continue
      const stat = disk.stat(`${root}/${path}`)
      if (!stat) {
        // Gone by now; or there under other bytes, which a string does not hold.
        if (name.includes('\ufffd')) problem({ path, message: 'Its name is not UTF-8: it is not in the snapshot. Give it another name.' })
        continue
      }
      yield { path, stat }
      if (stat.kind === 'directory') below.push(path)
    }
    pending.push(...below.reverse())
  }
}

function listed(disk: Disk, root: string, at: string, problem: (of: TreeProblem) => void): string[] {
  try {
    return disk.readdir(at === '' ? root : `${root}/${at}`).sort()
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') problem({ path: at, message: `It cannot be listed: ${(error as Error).message}.` })
    return []
  }
}

export function linkTarget(path: string): string {
  return readlinkSync(path, 'utf8')
}

const pieceBytes = 1 << 20

/** The bytes of a file from a position to the size it had when it was opened; `atRest` then says whether it was left alone meanwhile. */
export class PlainReading {
  readonly stat: FileStat
  #disk: Disk
  #fd: number
  #path: string

  /** @throws the system's error */
  constructor(disk: Disk, path: string) {
    this.#disk = disk
    this.#path = path
    this.#fd = disk.open(path, 'read')
    this.stat = disk.fstat(this.#fd)
  }

  async *bytes(from: number, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
    for (let at = from; at < this.stat.size; ) {
      signal?.throwIfAborted()
      const piece = readFully(this.#disk, this.#fd, at, Math.min(pieceBytes, this.stat.size - at))
      if (piece.length === 0) return
      at += piece.length
      yield piece
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  atRest(): boolean {
    const now = this.#disk.fstat(this.#fd)
    const named = this.#disk.stat(this.#path)
    return (
      now.size === this.stat.size &&
      now.ctimeMs === this.stat.ctimeMs &&
      named !== undefined &&
      named.ino === this.stat.ino &&
      named.dev === this.stat.dev
    )
  }

  close(): void {
    this.#disk.close(this.#fd)
  }
}

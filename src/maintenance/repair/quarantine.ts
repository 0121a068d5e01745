/** Where removed bytes go: `quarantine/<time>-<id>/`, one folder for each action, with a note that says what they are and whence.
 *  They are on the disk before the file that had them is replaced.
 *  1 make the folder, copy, write the note, sync all of it   crash: a folder too many; the store is as it was
 *  2 the caller replaces the file                            crash: the bytes are here, and perhaps still there */

import { makeDirectories, readFully, writeFully } from '../../file/durable.js'
import type { Host } from '../../file/host.js'
import { breathe } from '../../file/stage.js'
import type { Range } from '../../findings.js'
import type { RepairAction, RepairPlan } from '../../repair-plan.js'

const copyBytes = 1 << 20

export class Quarantine {
  readonly path: string
  /** Relative to the store. */
  readonly label: string
  #host: Host
  #above: string
  /** The store has changed: what is here is here for good. */
  needed = false
  noted = false
  #names: string[] = []

  /** @param above  the store's directory `quarantine` */
  constructor(host: Host, above: string) {
    const time = new Date(host.clock.wallMs()).toISOString().replace(/[-:]|\.\d+/g, '')
    const name = `${time}-${host.nonce(8)}`
    this.#host = host
    this.#above = above
    this.path = `${above}/${name}`
    this.label = `quarantine/${name}`
    makeDirectories(host.disk, this.path)
  }

  /** A new file in it; the caller closes the descriptor. */
  create(name: string): number {
    const fd = this.#host.disk.open(`${this.path}/${name}`, 'create')
    this.#names.push(name)
    return fd
  }

  /** Copies what stands in these places, one behind the other, and syncs it. */
  async keep(name: string, from: number, ranges: readonly Range[]): Promise<void> {
    const { disk } = this.#host
    const fd = this.create(name)
    try {
      for (const { from: start, to } of ranges)
        for (let at = start; at < to; at += copyBytes) {
          writeFully(disk, fd, readFully(disk, from, at, Math.min(copyBytes, to - at)))
          await breathe()
        }
      await disk.sync(fd)
    } finally {
      disk.close(fd)
    }
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    const { disk } = this.#host
    const fd = this.create(name)
    try {
      writeFully(disk, fd, bytes)
      await disk.sync(fd)
    } finally {
      disk.close(fd)
    }
  }

  /** Says what is here, and makes all of it durable. @param files  name here -> where its bytes stood */
  async note(
    plan: RepairPlan,
    action: RepairAction,
    files: Readonly<Record<string, { file: string; ranges: readonly Range[] }>>,
  ): Promise<void> {
    const { id, kind, file, key, sessionId, does, loses } = action
    const why = plan.findings.filter((it) => it.file === file).map((it) => it.meaning)
    const note = { plan: plan.planId, action: id, kind, file, key, sessionId, does, why, loses, files, at: this.#host.clock.wallMs() }
    await this.write('note.json', Buffer.from(`${JSON.stringify(note, undefined, 2)}\n`))
    await this.#host.disk.syncDirectory(this.path)
    await this.#host.disk.syncDirectory(this.#above)
    this.noted = true
  }

  /** Takes back what was made here, when nothing of the store has changed. */
  discard(): void {
    if (this.needed) return
    const { disk } = this.#host
    try {
      for (const name of this.#names) if (disk.stat(`${this.path}/${name}`)) disk.unlink(`${this.path}/${name}`)
      disk.rmdir(this.path)
    } catch {
      // Bytes too many, on a disk that fails: not worth another error.
    }
  }
}

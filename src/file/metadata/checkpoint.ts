/** Folds the journal into the snapshot. Needs the lock for order and for its stage; safe without it.
 *
 *  1 render the snapshot from exactly what the journal holds    crash: nothing has happened
 *  2 seal the journal with the snapshot's hash                  crash: nothing chains any more; whoever comes next does the rest from here,
 *                                                               with the same bytes, since they are a function of what was sealed
 *  3 stage both new files, check their lengths, sync them,      crash: strays in the stage, emptied by the next holder
 *    and the sealed journal
 *  4 rename links of the old pair to sessions.prev.*            crash: the pair in use is untouched
 *  5 rename the snapshot, sync the directory                    crash: new snapshot, sealed journal whose `next` is its hash: a valid pair
 *  6 rename the journal, sync the directory                     done
 *
 *  The journal first, or no sync between 5 and 6, would lose data in a power cut. */
import { errnoOf, StoreError } from '../../errors.js'
import { readFully, writeFully } from '../durable.js'
import type { Host } from '../host.js'
import type { Held } from '../lock/baton.js'
import type { LogFile } from '../log/log-file.js'
import { encodeLine, type Header, type Seal, systemBody } from '../log/record.js'
import { stageFile } from '../stage.js'
import { type Counters, channels } from '../stats.js'
import type { Cells } from './cells.js'
import { hashOf, renderSnapshot } from './snapshot.js'

export interface MetadataPlaces {
  readonly store: string
  readonly snapshot: string
  readonly journal: string
  readonly previousSnapshot: string
  readonly previousJournal: string
}

export interface Folding {
  readonly cells: Cells
  readonly journal: LogFile
  /** Whether `cells` and `journal` are still what the path names, with nothing added that they lack. */
  current(): boolean
  /** Appends the seal; false when somebody else's record came first. */
  seal(body: string): boolean
}

export class Checkpoint {
  #host: Host
  #places: MetadataPlaces
  #counters: Counters

  constructor(host: Host, places: MetadataPlaces, counters: Counters) {
    this.#host = host
    this.#places = places
    this.#counters = counters
  }

  /** True when the pair in use is new; false when somebody else's commit or checkpoint came in between. */
  async run(held: Held, folding: Folding): Promise<boolean> {
    const { journal } = folding
    const startedMs = this.#host.clock.monotonicMs()
    const sealed = journal.chain.seal
    if (sealed && (await this.#snapshotIs(sealed.next))) return await this.#replaceJournal(held, journal, sealed)
    const at = journal.chain.seq
    const rendered = await renderSnapshot(folding.cells)
    if (!folding.current()) return false
    if (!sealed && journal.chain.seq !== at) return false
    if (sealed && sealed.next !== rendered.hash)
      throw new StoreError('STORE_CORRUPT', 'the journal was sealed for another snapshot than the one it folds to.', {
        details: { file: 'sessions.journal.jsonl', expected: sealed.next, found: rendered.hash },
        hint: 'Nothing was written. Was sessions.json edited while the store was in use? Restore the pair from the same moment.',
      })
    if (!sealed && !folding.seal(systemBody({ seal: { reason: 'checkpoint', next: rendered.hash, at: this.#host.clock.wallMs() } })))
      return false
    const seal = journal.chain.seal
    if (!seal) return false
    const done = await this.#replacePair(held, journal, seal, rendered.slices)
    if (done) {
      this.#counters.checkpoints++
      if (channels.maintenance.hasSubscribers)
        channels.maintenance.publish({
          event: 'checkpoint',
          bytes: rendered.bytes,
          entries: folding.cells.size,
          tookMs: this.#host.clock.monotonicMs() - startedMs,
        })
    }
    return done
  }

  async #snapshotIs(hash: string | undefined): Promise<boolean> {
    const { disk } = this.#host
    const fd = disk.open(this.#places.snapshot, 'read')
    try {
      return hashOf(readFully(disk, fd, 0, disk.fstat(fd).size)) === hash
    } finally {
      disk.close(fd)
    }
  }

  async #replacePair(held: Held, journal: LogFile, seal: Seal, slices: readonly Buffer[]): Promise<boolean> {
    const { disk } = this.#host
    try {
      const snapshot = await stageFile(this.#host, held, slices)
      const next = await this.#stageJournal(held, journal, seal)
      // The seal first: a new snapshot beside a journal that a power cut has left unsealed would be no pair.
      await journal.durable(journal.chain.seq)
      this.#keepPrevious(held)
      disk.rename(snapshot, this.#places.snapshot)
      await disk.syncDirectory(this.#places.store)
      disk.rename(next, this.#places.journal)
    } catch (error) {
      // The stage is gone: the lock was taken over, and whoever has it now finishes from the seal.
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    }
    await disk.syncDirectory(this.#places.store)
    return true
  }

  /** The crash came between the two renames: only the journal is left to do. */
  async #replaceJournal(held: Held, journal: LogFile, seal: Seal): Promise<boolean> {
    const { disk } = this.#host
    try {
      await disk.syncDirectory(this.#places.store)
      disk.rename(await this.#stageJournal(held, journal, seal), this.#places.journal)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    }
    await disk.syncDirectory(this.#places.store)
    return true
  }

  #stageJournal(held: Held, journal: LogFile, seal: Seal): Promise<string> {
    const line = newJournal(seal.next!, journal.chain.seq + 1, seal.at, journal.tag + this.#host.nonce(8))
    return stageFile(this.#host, held, [line])
  }

  /** The generation before, as links made in the stage: linking after the renames would link the new files. */
  #keepPrevious(held: Held): void {
    const pairs = [
      [this.#places.snapshot, this.#places.previousSnapshot],
      [this.#places.journal, this.#places.previousJournal],
    ] as const
    for (const [from, to] of pairs) {
      const staged = `${held.stage}/${this.#host.nonce(12)}`
      this.#linkOrCopy(from, staged)
      this.#host.disk.rename(staged, to)
    }
  }

  #linkOrCopy(from: string, to: string): void {
    const { disk } = this.#host
    try {
      disk.link(from, to)
    } catch (error) {
      const errno = errnoOf(error)
      // A file system without hard links.
      if (errno !== 'EPERM' && errno !== 'ENOTSUP' && errno !== 'EOPNOTSUPP' && errno !== 'EMLINK' && errno !== 'ENOSYS') throw error
      const source = disk.open(from, 'read')
      const target = disk.open(to, 'create')
      try {
        writeFully(disk, target, readFully(disk, source, 0, disk.fstat(source).size))
      } finally {
        disk.close(source)
        disk.close(target)
      }
    }
  }
}

/** The whole of a journal that has nothing in it yet. */
export function newJournal(base: string, seq: number, createdAt: number, writer: string): Buffer {
  const header: Header = { log: 'journal', version: 1, base, createdAt }
  return Buffer.from(encodeLine(systemBody({ header }), { seq, left: 0, synced: seq - 1, writer, prev: 0 }).line)
}

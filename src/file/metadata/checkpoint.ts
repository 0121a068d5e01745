/** Folds the journal into the snapshot. Needs the lock for order and for its stage; safe without it.
 *
 *  1 render the snapshot from exactly what the journal holds    crash: nothing has happened
 *  2 stage both new files, sync them                            crash: strays in the stage, emptied by the next holder; disk full: the same,
 *                                                               and the journal goes on as it is
 *  3 seal the journal with the snapshot's hash, sync it         crash: nothing chains any more; whoever comes next does the rest from here,
 *                                                               with the same bytes, since they are a function of what was sealed
 *  4 rename links of the old pair to sessions.prev.*            crash: the pair in use is untouched
 *  5 rename the snapshot, sync the directory                    crash: new snapshot, sealed journal whose `next` is its hash: a valid pair
 *  6 rename the journal, sync the directory                     done
 *
 *  The journal first, or no sync between 5 and 6, or none in 3, would lose data in a power cut. */
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
    if (sealed && sealed.next !== rendered.hash) throw otherSnapshot(sealed.next, rendered.hash)
    const seal: Seal = sealed ?? { reason: 'checkpoint', next: rendered.hash, at: this.#host.clock.wallMs() }
    const done = await this.#ifStillHeld(async () => {
      const snapshot = await stageFile(this.#host, held, rendered.slices)
      const next = await this.#stageJournal(held, journal, seal, sealed ? at + 1 : at + 2)
      if (!folding.current() || journal.chain.seq !== at) return false
      if (!sealed && !folding.seal(systemBody({ seal }))) return false
      await this.#replacePair(held, journal, snapshot, next)
      return true
    })
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

  async #replacePair(held: Held, journal: LogFile, snapshot: string, next: string): Promise<void> {
    const { disk } = this.#host
    // The seal first: a new snapshot beside a journal that a power cut has left unsealed would be no pair.
    await journal.durable(journal.chain.seq)
    this.#keepPrevious(held)
    disk.rename(snapshot, this.#places.snapshot)
    await disk.syncDirectory(this.#places.store)
    disk.rename(next, this.#places.journal)
    await disk.syncDirectory(this.#places.store)
  }

  /** The crash came between the two renames: only the journal is left to do. */
  #replaceJournal(held: Held, journal: LogFile, seal: Seal): Promise<boolean> {
    const { disk } = this.#host
    return this.#ifStillHeld(async () => {
      await disk.syncDirectory(this.#places.store)
      disk.rename(await this.#stageJournal(held, journal, seal, journal.chain.seq + 1), this.#places.journal)
      await disk.syncDirectory(this.#places.store)
      return true
    })
  }

  /** ENOENT: the stage is gone, the lock was taken over, and whoever has it now finishes from the seal. */
  async #ifStillHeld(work: () => Promise<boolean>): Promise<boolean> {
    try {
      return await work()
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    }
  }

  #stageJournal(held: Held, journal: LogFile, seal: Seal, seq: number): Promise<string> {
    return stageFile(this.#host, held, [newJournal(seal.next!, seq, seal.at, journal.tag + this.#host.nonce(8))])
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

function otherSnapshot(expected: string | undefined, found: string): StoreError {
  return new StoreError('STORE_CORRUPT', 'the journal was sealed for another snapshot than the one it folds to.', {
    details: { file: 'sessions.journal.jsonl', expected, found },
    hint: 'Nothing was written. Was sessions.json edited while the store was in use? `holdfast repair` shows what can be done.',
  })
}

/** The whole of a journal that has nothing in it yet. */
export function newJournal(base: string, seq: number, createdAt: number, writer: string): Buffer {
  const header: Header = { log: 'journal', version: 1, base, createdAt }
  return Buffer.from(encodeLine(systemBody({ header }), { seq, left: 0, synced: seq - 1, writer, prev: 0 }).line)
}

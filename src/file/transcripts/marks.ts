/** Tells the metadata how far transcripts are on the disk: high-water marks, many at a time, in the background. No append and no turn waits
 *  for it; a mark that is never written costs nothing but the notice of a loss.
 *
 *  A mark is taken from what a sync has already put on the disk, the file's name included, and only then written to the metadata. So whatever
 *  part of that a power cut keeps: where the mark survives, what it speaks of does. With durability `process`, where appends are not synced,
 *  transcripts are synced first, and only when somebody asks for a checkpoint or closes the store. */
import type { Durability, WaitOptions } from '../../types.js'
import type { Host } from '../host.js'
import { type Cell, entryOf, markOf, remarked } from '../metadata/cells.js'
import type { HighWaterMark } from '../metadata/mark.js'
import type { Metadata } from '../metadata/metadata.js'
import type { Change } from '../metadata/view.js'
import { channels } from '../stats.js'
import type { Vital } from '../vital.js'
import type { Transcript } from './transcript.js'

interface Taken {
  readonly key: string
  readonly mark: HighWaterMark
}

const afterTurnMs = 500
const afterAppendMs = 5_000
const betweenMs = 50
/** Of one commit. */
const marksMax = 200
/** Of those that wait. */
const takenMax = 2_000
/** Of one flush with durability `process`. */
const syncsMax = 64

export class Marks {
  #host: Host
  #metadata: Metadata
  #vital: Vital
  #durability: Durability
  /** Written to since their last mark. */
  #written = new Map<string, Transcript>()
  /** By session id. */
  #taken = new Map<string, Taken>()
  #dueMs = Number.POSITIVE_INFINITY
  #disarm: (() => void) | undefined

  constructor(host: Host, metadata: Metadata, vital: Vital, durability: Durability) {
    this.#host = host
    this.#metadata = metadata
    this.#vital = vital
    this.#durability = durability
  }

  /** A commit to the transcript has been acknowledged; `turnEnded`: and with it a turn. */
  note(transcript: Transcript, turnEnded: boolean): void {
    this.#written.set(transcript.sessionId, transcript)
    if (this.#durability === 'power' && this.#host.later) this.#arm(turnEnded ? afterTurnMs : afterAppendMs)
  }

  /** The transcript's file is about to be let go of. */
  take(transcript: Transcript): void {
    if (!this.#written.delete(transcript.sessionId)) return
    const mark = transcript.syncedPoint
    if (!mark || this.#taken.size >= takenMax) return
    this.#taken.set(transcript.sessionId, { key: transcript.key, mark })
  }

  /** Writes what there is to write. Resolves when it is in the journal, on the disk or not. */
  async flush(wait: WaitOptions): Promise<void> {
    let ready = [...this.#written.values()]
    if (this.#durability === 'process') {
      ready = ready.slice(0, syncsMax)
      // One that fails has poisoned the handle, and leaves no mark.
      await Promise.allSettled(ready.map((transcript) => transcript.settle()))
    }
    for (const transcript of ready) this.take(transcript)
    while (this.#taken.size > 0) await this.#commit(wait)
  }

  close(): void {
    this.#disarm?.()
    this.#disarm = undefined
    this.#dueMs = Number.POSITIVE_INFINITY
  }

  #arm(ms: number): void {
    const dueMs = this.#host.clock.monotonicMs() + ms
    if (dueMs >= this.#dueMs) return
    this.#disarm?.()
    this.#dueMs = dueMs
    this.#disarm = this.#host.later?.(ms, () => this.#round())
  }

  #round(): void {
    this.close()
    if (this.#vital.poisoned) return
    for (const transcript of [...this.#written.values()]) this.take(transcript)
    const work = this.#commit({}).then(() => {
      if (this.#taken.size > 0) this.#arm(betweenMs)
    })
    this.#vital.track(work.catch((error: unknown) => this.#vital.report('marks-failed', error)))
  }

  /** Some of what has been taken. When it fails, that waits for another time. */
  async #commit(wait: WaitOptions): Promise<void> {
    const now = [...this.#taken].slice(0, marksMax)
    if (now.length === 0) return
    for (const [sessionId] of now) this.#taken.delete(sessionId)
    let marked = 0
    const decide = (cellOf: (key: string) => Cell | undefined) => {
      const changes = now.flatMap(([sessionId, taken]) => markChange(sessionId, taken, cellOf(taken.key)))
      marked = changes.length
      return changes
    }
    try {
      await this.#metadata.commitOwn(decide, wait, true)
    } catch (error) {
      for (const [sessionId, taken] of now) if (!this.#taken.has(sessionId)) this.#taken.set(sessionId, taken)
      throw error
    }
    if (marked > 0 && channels.maintenance.hasSubscribers) channels.maintenance.publish({ event: 'marks', sessions: marked })
  }
}

/** The entry with its new mark, unless the key names another session by now, or somebody has seen more. */
function markChange(sessionId: string, { key, mark }: Taken, cell: Cell | undefined): Change[] {
  if (!cell || entryOf(cell).sessionId !== sessionId) return []
  const before = markOf(cell)
  if (before && before.seq >= mark.seq) return []
  return [{ key, ...remarked(cell, mark), dropped: undefined }]
}

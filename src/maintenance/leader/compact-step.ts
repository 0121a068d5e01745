/** Writes transcripts anew of which much can go: void lines, and what a summary stands for. To know how much takes reading, so each is looked at
 *  once, and again when it has changed, and no round reads more than so much. */
import { isStoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { passingEntryOf } from '../../file/metadata/cells.js'
import { compactTranscript } from '../../file/transcripts/care.js'
import type { BytesCompaction } from '../../upkeep.js'
import type { Pace } from '../pace.js'
import type { Unit } from './round.js'

const minBytesDefault = 1 << 20
const voidShareDefault = 0.5
const roundBytesMax = 512 << 20
const waitMs = 2_000
const lookedMax = 100_000

export class CompactStep {
  #inside: Inside
  #rules: BytesCompaction
  /** By session id: what it was like when there was too little to remove. */
  #looked = new Map<string, string>()

  constructor(inside: Inside, rules: BytesCompaction) {
    this.#inside = inside
    this.#rules = rules
  }

  async *run(pace: Pace): AsyncGenerator<Unit> {
    const { host, metadata, transcripts, vital } = this.#inside
    vital.assertWritable()
    const { minBytes = minBytesDefault, voidShare = voidShareDefault } = this.#rules
    let leftBytes = roundBytesMax
    for (const [key, cell] of await metadata.cells(true)) {
      await pace.breathe()
      pace.signal?.throwIfAborted()
      const { sessionId } = passingEntryOf(cell)
      const stat = host.disk.stat(transcripts.pathOf(sessionId))
      const looks = stat && `${stat.ino} ${stat.size}`
      if (!stat || !looks || stat.size < minBytes || this.#looked.get(sessionId) === looks) continue
      if (leftBytes < 0) return
      leftBytes -= stat.size
      const unit = await this.#compact(key, sessionId, Math.max(minBytes, Math.ceil(voidShare * stat.size)), pace)
      this.#looked.set(sessionId, looks)
      for (const oldest of this.#looked.keys()) if (this.#looked.size > lookedMax) this.#looked.delete(oldest)
      if (unit) yield unit
    }
  }

  async #compact(key: string, sessionId: string, minBytes: number, pace: Pace): Promise<Unit | undefined> {
    const { transcripts, metadata } = this.#inside
    try {
      const onProgress = () => pace.beat()
      const done = await compactTranscript(transcripts, metadata, key, { minBytes, waitMs, signal: pace.signal, onProgress })
      return (
        done && {
          outcome: 'compacted',
          key,
          sessionId: done.sessionId,
          bytes: done.bytesBefore - done.bytesAfter,
          file: `archive/${done.archive}`,
        }
      )
    } catch (error) {
      if (isStoreError(error, 'LOG_CORRUPT')) return { outcome: 'damaged', key, sessionId, text: error.message }
      if (isStoreError(error, 'LOCK_TIMEOUT')) return { outcome: 'busy', key, sessionId, text: error.message }
      throw error
    }
  }
}

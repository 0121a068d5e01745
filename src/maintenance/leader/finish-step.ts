/** Brings to its end what somebody has begun and died over: a rotation, deletion, compaction or rewriting whose seal stands. The next call on the
 *  session would do the same, but nobody may call for long, and what is deleted has no key to be called by.
 *
 *  A transcript without a seal is left alone, whether a key names it or not: nobody has said what is to become of it (`verify` tells of it). */
import { isStoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { type Disk, readFully } from '../../file/durable.js'
import { readBody, readMark, type Seal, sealPrefix, startsWith } from '../../file/log/record.js'
import { passingEntryOf } from '../../file/metadata/cells.js'
import { bringUpToDate } from '../../file/transcripts/care.js'
import type { Pace } from '../pace.js'
import type { Unit } from './round.js'

const namePattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$/
/** More than any seal has, but for one with a very long reason. */
const endBytes = 68 << 10
const lookedMax = 200_000
const waitMs = 2_000

interface Closed {
  readonly sessionId: string
  readonly seal: Seal
}

export class FinishStep {
  #inside: Inside
  /** By session id: what it was like when there was no seal. */
  #looked = new Map<string, string>()

  constructor(inside: Inside) {
    this.#inside = inside
  }

  async *run(pace: Pace): AsyncGenerator<Unit> {
    this.#inside.vital.assertWritable()
    const closed: Closed[] = []
    for (const name of this.#inside.host.disk.readdir(this.#inside.places.transcripts)) {
      await pace.breathe()
      pace.signal?.throwIfAborted()
      const found = this.#closed(name)
      if (found) closed.push(found)
    }
    if (closed.length === 0) return
    const keys = await this.#keysOf(new Set(closed.map(({ sessionId }) => sessionId)), pace)
    for (const each of closed) {
      const unit = await this.#finish(each, keys.get(each.sessionId), pace.signal)
      if (unit) yield unit
    }
  }

  #closed(name: string): Closed | undefined {
    const { host, places } = this.#inside
    const [, sessionId] = namePattern.exec(name) ?? []
    const path = `${places.transcripts}/${name}`
    const stat = sessionId === undefined ? undefined : host.disk.stat(path)
    if (sessionId === undefined || stat?.kind !== 'file') return undefined
    const looks = `${stat.ino} ${stat.size}`
    if (this.#looked.get(sessionId) === looks) return undefined
    const seal = sealAtEnd(host.disk, path)
    if (seal) return { sessionId, seal }
    this.#looked.set(sessionId, looks)
    for (const oldest of this.#looked.keys()) if (this.#looked.size > lookedMax) this.#looked.delete(oldest)
    return undefined
  }

  /** Listed after the files: what has been moved away by now is found to be gone. */
  async #keysOf(sessions: ReadonlySet<string>, pace: Pace): Promise<Map<string, string>> {
    const keys = new Map<string, string>()
    for (const [key, cell] of await this.#inside.metadata.cells(true)) {
      const { sessionId } = passingEntryOf(cell)
      if (sessions.has(sessionId)) keys.set(sessionId, key)
      await pace.breathe()
    }
    return keys
  }

  async #finish({ sessionId, seal }: Closed, key: string | undefined, signal: AbortSignal | undefined): Promise<Unit | undefined> {
    const { transcripts } = this.#inside
    const about = { key: key ?? seal.key, sessionId, text: seal.reason }
    try {
      if (key !== undefined) await bringUpToDate(transcripts, key, { waitMs, signal })
      else if (seal.key !== undefined && (seal.reason === 'rotated' || seal.reason === 'deleted'))
        await transcripts.archiveDropped([{ key: seal.key, dropped: sessionId }], { waitMs, signal })
      else return undefined
      return { outcome: 'finished', ...about }
    } catch (error) {
      if (isStoreError(error, 'LOG_CORRUPT')) return { outcome: 'damaged', ...about, text: error.message }
      if (isStoreError(error, 'LOCK_TIMEOUT')) return { outcome: 'busy', ...about, text: error.message }
      throw error
    }
  }
}

/** The seal that the last line is; what matters is decided from the whole log, by whoever finishes. */
function sealAtEnd(disk: Disk, path: string): Seal | undefined {
  const fd = disk.open(path, 'read')
  try {
    const { size } = disk.fstat(fd)
    const from = Math.max(0, size - endBytes)
    const bytes = readFully(disk, fd, from, size - from)
    const end = bytes.lastIndexOf(0x0a)
    const start = bytes.lastIndexOf(0x0a, end - 1) + 1
    if (end < 0 || (start === 0 && from > 0) || !startsWith(bytes, start, sealPrefix)) return undefined
    const mark = readMark(bytes, start, end)
    return mark && readBody(bytes, start, mark).system?.seal
  } finally {
    disk.close(fd)
  }
}

/** Finishes what somebody died over: transcripts that are sealed and still stand in `transcripts/`. Whoever uses such a session finishes it anyway;
 *  this is for those that nobody uses.
 *
 *  - sealed, and its key still names it: what the seal says, as an append would
 *  - closed, and named by no key: into the archive
 *  - named by no key, not sealed, and the journal says that its key was deleted: sealed, and into the archive
 *  Any other transcript that no key names is left for `verify` to tell of: it may be the metadata that has lost something. */
import { errnoOf, isStoreError } from '../../errors.js'
import { factsOfLog } from '../../file/archives/archive-facts.js'
import { parseTranscriptFile } from '../../file/archives/archive-name.js'
import type { Inside } from '../../file/backend.js'
import { type FileStat, isUntouched, readFully } from '../../file/durable.js'
import { Pace } from '../pace.js'
import { namedSessions } from './place.js'

export interface Finished {
  readonly sessionId: string
  readonly key: string
  readonly what: 'rotated' | 'deleted' | 'compacted'
}

const openMax = 50_000
const waitMs = 2_000

export class Leftovers {
  #inside: Inside
  /** By session: files that were looked at and are not sealed. */
  #open = new Map<string, FileStat>()

  constructor(inside: Inside) {
    this.#inside = inside
  }

  async *run(pace = new Pace(this.#inside.host.clock)): AsyncGenerator<Finished> {
    const { host, places, vital } = this.#inside
    vital.assertWritable()
    const files = host.disk.readdir(places.transcripts)
    // Asked after the files: what is made meanwhile is named by the time, or is in none of these.
    const named = await namedSessions(this.#inside)
    let deleted: ReadonlySet<string> | undefined
    for (const file of files) {
      await pace.breathe()
      const sessionId = parseTranscriptFile(file)
      const found = sessionId === undefined ? undefined : this.#look(sessionId)
      if (!found || sessionId === undefined) continue
      const { key, reason } = found
      if (named.has(sessionId)) {
        if (reason !== 'unknown' && (await this.#finish(key, sessionId))) yield { sessionId, key, what: reason }
        continue
      }
      deleted ??= deletedSessions(this.#inside)
      if (reason === 'unknown' && !deleted.has(sessionId)) continue
      await this.#inside.transcripts.archiveDropped([{ key, dropped: sessionId }], { waitMs })
      yield { sessionId, key, what: reason === 'unknown' ? 'deleted' : reason }
    }
  }

  /** undefined for one that is in use, gone, or cannot be read. */
  #look(sessionId: string) {
    const { host, transcripts, tag } = this.#inside
    const path = transcripts.pathOf(sessionId)
    const stat = host.disk.stat(path)
    const known = this.#open.get(sessionId)
    if (!stat || (known && isUntouched(known, stat))) return undefined
    try {
      const fd = host.disk.open(path, 'read')
      try {
        const facts = factsOfLog(host.disk, fd, tag)
        if (facts?.reason === 'unknown' && this.#open.size < openMax) this.#open.set(sessionId, stat)
        return facts
      } finally {
        host.disk.close(fd)
      }
    } catch (error) {
      if (errnoOf(error) !== undefined || isStoreError(error)) return undefined
      throw error
    }
  }

  async #finish(key: string, sessionId: string): Promise<boolean> {
    const gone = new Error('gone')
    const nothing = { run: () => [], result: () => undefined }
    try {
      await this.#inside.transcripts.commit(key, { waitMs, absent: () => gone }, () => nothing)
    } catch (error) {
      // Busy, or damaged: whoever comes next.
      if (error !== gone && !isStoreError(error)) throw error
      return false
    }
    return (await this.#inside.metadata.sessionIdOf(key)) !== sessionId || this.#look(sessionId)?.reason === 'unknown'
  }
}

/** Sessions whose keys were deleted, as far as the journals go back. */
function deletedSessions({ host, places }: Inside): ReadonlySet<string> {
  const deleted = new Set<string>()
  for (const path of [places.previousJournal, places.journal]) {
    if (!host.disk.stat(path)) continue
    const fd = host.disk.open(path, 'read')
    try {
      const text = readFully(host.disk, fd, 0, host.disk.fstat(fd).size).toString('latin1')
      for (const [, sessionId] of text.matchAll(/^\{"op":"del",.*"sessionId":"([0-9a-f-]{36})","\$":"[^"]*"\}$/gm)) deleted.add(sessionId!)
    } finally {
      host.disk.close(fd)
    }
  }
  return deleted
}

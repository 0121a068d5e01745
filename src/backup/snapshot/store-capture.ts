/** A live store into a snapshot: a consistent moment of it, taken without a lock.
 *
 *  1 the metadata, snapshot and journal as one pair     this is the moment that the snapshot shows
 *  2 which transcripts there are                        what is made later is later than the moment
 *  3 each transcript that the metadata names            at least as new as the metadata: it is read later, and only ever grows
 *  4 those that it does not name, the archive, the rest
 *
 *  Between 1 and 3 a session may have been rotated or deleted. Then its file is found in the archive, and goes into the snapshot under
 *  the name that the metadata of the moment has for it: with its seal and the sessions that follow it after a rotation (whoever opens the
 *  restored store rolls it forward, as after a crash), without its seal after a deletion. Sessions that were begun later are left out. */
import type { StorePlaces } from '../../file/format.js'
import type { SessionFacts } from '../repository/repository.js'
import { type Capture, inParallel } from './capture.js'
import { captureCompressed } from './compressed-log.js'
import { type CapturedLog, captureLog, type LogToCapture } from './log-capture.js'
import { type MetadataMoment, type NamedSession, type ReadingPlace, readMetadata } from './metadata-reading.js'
import { captureEntry, capturePlain } from './plain-capture.js'
import { walk } from './plain-files.js'

const filesAtOnce = 4
const sequelsMax = 1_000
const transcriptPattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$/
const archivePattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(\.\d+)?\.jsonl(\.gz)?$/

/** What the last good snapshot has. */
export interface GoodSnapshot {
  /** By session id: the one file that has the session's latest records. */
  readonly sessions: ReadonlyMap<string, SessionFacts>
  /** By path: logs that were cut off by a compaction. */
  readonly pieces: ReadonlyMap<string, SessionFacts>
}

export interface StoreCaptured {
  readonly moment: MetadataMoment
  /** By session id, wherever its file is now. */
  readonly sessions: ReadonlyMap<string, CapturedLog & { readonly place: 'transcripts' | 'archive' }>
}

export class StoreCapture {
  #capture: Capture
  #place: ReadingPlace
  #places: StorePlaces
  #good: GoodSnapshot
  #except: readonly string[]
  #done = new Set<string>()
  #sessions = new Map<string, CapturedLog & { readonly place: 'transcripts' | 'archive' }>()

  /** @param except  directories within the store that are no part of it. */
  constructor(capture: Capture, place: ReadingPlace, good: GoodSnapshot, except: readonly string[]) {
    this.#capture = capture
    this.#place = place
    this.#places = place.places
    this.#good = good
    this.#except = except
  }

  async run(moment: MetadataMoment): Promise<StoreCaptured> {
    await this.#metadata(moment)
    const listed = this.#transcripts()
    await inParallel(moment.sessions.values(), filesAtOnce, (named) => this.#named(named))
    await this.#unnamed(listed, moment)
    await this.#archive()
    await this.#rest()
    return { moment, sessions: this.#sessions }
  }

  async #metadata({ files, damage }: MetadataMoment): Promise<void> {
    if (damage) this.#capture.note('damage', { path: damage.file }, damage.message)
    for (const { path, bytes, stat } of files) {
      const findings = damage?.file === path ? { findings: [damage.message] } : {}
      const mtimeMs = stat.mtimeMs ?? stat.ctimeMs
      const facts = () => ({ path, role: 'metadata' as const, type: 'file' as const, mode: stat.mode & 0o7777, mtimeMs, ...findings })
      await this.#capture.store({ path }, facts, async function* (from) {
        yield bytes.subarray(from)
      })
      this.#done.add(path)
    }
    await capturePlain(this.#capture, this.#places.format, 'holdfast.json', 'metadata')
    this.#done.add('holdfast.json')
  }

  #transcripts(): string[] {
    const { disk } = this.#place
    if (disk.stat(this.#places.transcripts)?.kind !== 'directory') return []
    return disk.readdir(this.#places.transcripts).flatMap((name) => transcriptPattern.exec(name)?.[1] ?? [])
  }

  /** A session of the moment, and after a rotation those that follow it. */
  async #named(named: NamedSession): Promise<void> {
    let sessionId = named.sessionId
    for (let sequels = 0; sequels < sequelsMax; sequels++) {
      if (this.#done.has(`transcripts/${sessionId}.jsonl`)) return
      const found = await this.#log(sessionId, sequels === 0 ? named : undefined, true)
      if (!found) {
        if (sequels === 0) this.#missing(named)
        return
      }
      const next = found.seal?.reason === 'rotated' ? found.seal.next : undefined
      if (next === undefined || !transcriptPattern.test(`${next}.jsonl`)) return
      sessionId = next
    }
  }

  /** The log of a session, wherever it is, under the name of a transcript in use. */
  async #log(sessionId: string, named: NamedSession | undefined, ofTheMoment: boolean): Promise<CapturedLog | undefined> {
    const path = `transcripts/${sessionId}.jsonl`
    this.#done.add(path)
    const current = `${this.#places.transcripts}/${sessionId}.jsonl`
    const archived = `${this.#places.archive}/${sessionId}.jsonl`
    // Archiving is a rename: a file that was in neither place when looked for has moved between the looks.
    const log: LogToCapture = {
      sessionId,
      role: 'transcript',
      path,
      at: ofTheMoment ? [current, archived, current, archived] : [current],
      named,
      ofTheMoment,
      good: this.#good.sessions.get(sessionId),
    }
    const found = await captureLog(this.#capture, log, this.#place.tag)
    if (found) this.#sessions.set(sessionId, { ...found, place: 'transcripts' })
    return found
  }

  /** An entry may never have had a transcript. This one had. */
  #missing({ key, sessionId, highWater }: NamedSession): void {
    const about = { path: `transcripts/${sessionId}.jsonl`, key, sessionId }
    if (highWater) this.#capture.note('damage', about, `It is missing; the metadata knows that seq ${highWater.seq} was on the disk.`)
  }

  /** What no key of the moment names: begun since, waiting to be archived, or lost by the metadata. */
  async #unnamed(listed: readonly string[], moment: MetadataMoment): Promise<void> {
    const left = listed.filter((sessionId) => !this.#done.has(`transcripts/${sessionId}.jsonl`))
    if (left.length === 0) return
    const later = moment.damage ? undefined : await readMetadata(this.#place)
    const begunSince = (sessionId: string) => later !== undefined && !later.damage && later.sessions.has(sessionId)
    const wanted = left.filter((sessionId) => !begunSince(sessionId))
    await inParallel(wanted, filesAtOnce, async (sessionId) => void (await this.#log(sessionId, undefined, false)))
  }

  /** Listed again while files are moved or compressed under our hands. */
  async #archive(): Promise<void> {
    const { disk } = this.#place
    for (let rounds = 0; rounds < 3; rounds++) {
      if (disk.stat(this.#places.archive)?.kind !== 'directory') return
      const names = disk.readdir(this.#places.archive).filter((name) => !this.#done.has(`archive/${name}`))
      const logs = names.filter((name) => archivePattern.test(name))
      if (logs.length === 0) return
      await inParallel(logs, filesAtOnce, (name) => this.#archived(name))
    }
  }

  async #archived(name: string): Promise<void> {
    const [, sessionId, piece, gz] = archivePattern.exec(name)!
    const path = `archive/${name}`
    this.#done.add(path)
    // Archived since it was read in its old place: it is in the snapshot under that name.
    if (!piece && this.#sessions.has(sessionId!)) return
    const good = piece ? this.#good.pieces.get(path.replace(/\.gz$/, '')) : this.#good.sessions.get(sessionId!)
    const log: LogToCapture = {
      sessionId: sessionId!,
      role: 'archive',
      path,
      at: [`${this.#places.archive}/${name}`],
      named: undefined,
      ofTheMoment: false,
      good,
    }
    const found = await (gz ? captureCompressed : captureLog)(this.#capture, log, this.#place.tag)
    if (found && !piece) this.#sessions.set(sessionId!, { ...found, place: 'archive' })
  }

  /** Notes, what repair has taken out, and whatever else somebody has put here. Locks are no data. */
  async #rest(): Promise<void> {
    const { disk } = this.#place
    const { store } = this.#places
    const isSkipped = (path: string) =>
      path === 'locks' || this.#done.has(path) || isLaterLog(path) || this.#except.includes(`${store}/${path}`)
    const problem = ({ path, message }: { path: string; message: string }) => this.#capture.note('damage', { path }, message)
    for (const { path, stat } of walk(disk, store, isSkipped, problem)) {
      const top = path.split('/')[0]!
      if (stat.kind === 'directory' && ['transcripts', 'archive', 'quarantine'].includes(path)) continue
      const role = top === 'quarantine' ? 'quarantine' : top === 'archive' ? 'archive' : 'other'
      await captureEntry(this.#capture, `${store}/${path}`, path, stat, role)
    }
  }
}

/** A log that has come since the directories were listed. */
function isLaterLog(path: string): boolean {
  const [folder, name, ...more] = path.split('/')
  if (name === undefined || more.length > 0) return false
  return folder === 'transcripts' ? transcriptPattern.test(name) : folder === 'archive' && archivePattern.test(name)
}

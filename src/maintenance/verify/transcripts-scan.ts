/** Every transcript, and whether the metadata and they agree.
 *
 *  The metadata were read before the first transcript is opened, and live writers go on: a session may have been closed or begun since. So
 *  what does not agree is looked at again, transcript first and metadata after it, until it agrees or has had time enough: a key names a
 *  session until the metadata say otherwise, and its transcript is moved away only after that. */
import type { Disk } from '../../file/durable.js'
import type { Seal } from '../../file/log/record.js'
import type { ScanSink } from '../../file/log/scan.js'
import type { Finding } from '../../findings.js'
import { ChatFindings } from './chat-findings.js'
import { isSessionId, type NamedSession, type NamedSessions } from './entries.js'
import { type LogScanOptions, type ScannedLog, scanFile } from './log-scan.js'
import { findingOf, findingSaying, type Report } from './report.js'
import { shrinkage } from './shrinkage.js'

export interface TranscriptsScanTools {
  readonly disk: Disk
  readonly directory: string
  readonly report: Report
  readonly scanning: LogScanOptions
  /** Looks at the conversations, too. */
  readonly chat: boolean
  sleep(ms: number): Promise<void>
  /** What the keys name by now; undefined when that cannot be told. */
  namedNow(): Promise<NamedSessions | undefined>
  /** A file has been read. */
  done(name: string, bytes: number): void
}

interface Named extends NamedSession {
  readonly key: string
}

/** How long to wait before each look at what does not agree. Whoever is deleting a session is given all of them; for the rest two tell. */
const looksAfterMs = [0, 10, 40, 150, 300]
const looksMin = 2

export class TranscriptsScan {
  #tools: TranscriptsScanTools
  #bySession: Map<string, Named> | undefined
  #seen = new Set<string>()
  #strangers = new Map<string, ScannedLog>()
  #closed = new Map<string, Seal>()

  /** @param sessions  what the keys named before; undefined when that is not known, for damage */
  constructor(tools: TranscriptsScanTools, sessions: NamedSessions | undefined) {
    this.#tools = tools
    this.#bySession = sessions && bySession(sessions)
  }

  async scan(name: string): Promise<void> {
    const { disk, directory, report, scanning, done } = this.#tools
    const file = `transcripts/${name}`
    const sessionId = name.endsWith('.jsonl') ? name.slice(0, -'.jsonl'.length) : ''
    if (!isSessionId(sessionId)) return report.find(findingOf('foreign-file', file))
    const named = this.#bySession?.get(sessionId)
    const about = { file, sessionId, key: named?.key }
    const { mark } = named ?? {}
    const chat = this.#tools.chat ? new ChatFindings() : undefined
    let crc: number | undefined
    const sink: ScanSink = {
      ...chat?.sink,
      record(at, bytes, start, end, line) {
        if (at.seq === mark?.seq) crc = at.crc
        chat?.sink.record?.(at, bytes, start, end, line)
      },
    }
    const log = await scanFile(disk, `${directory}/${name}`, about, { ...scanning, sink })
    // Moved to the archive meanwhile.
    if (log === 'gone') return
    this.#seen.add(sessionId)
    if (!('islands' in log)) {
      report.file({ file, kind: 'transcript', bytes: 0, records: 0, lastSeq: -1, voidLines: 0, tornTailBytes: 0, sealed: false })
      return report.find(log)
    }
    done(name, log.bytes)
    report.log(file, 'transcript', log)
    const shrunk = mark && shrinkage(about, log, mark, crc)
    if (shrunk) report.find(shrunk)
    if (log.header && log.header.sessionId !== sessionId) report.find(misplaced(about, log))
    for (const finding of chat?.findings(about, log) ?? []) report.find(finding)
    if (log.seal) this.#closed.set(sessionId, log.seal)
    else if (!named) this.#strangers.set(sessionId, log)
  }

  /** What the metadata and the transcripts do not agree on. */
  async agree(): Promise<void> {
    const { report, sleep } = this.#tools
    const missing = [...(this.#bySession?.values() ?? [])].filter(({ sessionId }) => !this.#seen.has(sessionId))
    // Never appended to, as far as anybody knows.
    const unmarked = missing.filter(({ mark }) => !mark).length
    if (unmarked > 0)
      report.find(
        findingOf('transcript-missing', 'transcripts', {
          severity: 'notice',
          repairable: false,
          count: unmarked,
          meaning: 'The metadata name sessions without a transcript: nothing has been appended to them, as far as is known.',
        }),
      )
    let lost = missing.filter(({ mark }) => mark)
    for (const [looks, afterMs] of looksAfterMs.entries()) {
      if (this.#strangers.size === 0 && (looks >= looksMin || (lost.length === 0 && this.#closed.size === 0))) break
      await sleep(afterMs)
      lost = lost.filter(({ sessionId }) => !this.#isThere(sessionId))
      for (const open of [this.#strangers, this.#closed]) for (const id of open.keys()) if (!this.#isThere(id)) open.delete(id)
      const now = await this.#tools.namedNow()
      if (!now) break
      const byNow = bySession(now)
      lost = lost.filter(({ key, sessionId }) => now.get(key)?.sessionId === sessionId)
      for (const id of this.#strangers.keys()) if (byNow.has(id)) this.#strangers.delete(id)
    }
    for (const finding of this.#disagreements(lost)) report.find(finding)
  }

  #isThere(sessionId: string): boolean {
    return this.#tools.disk.stat(`${this.#tools.directory}/${sessionId}.jsonl`) !== undefined
  }

  *#disagreements(lost: readonly Named[]): Generator<Finding> {
    for (const { key, sessionId, mark } of lost) {
      const what = `${JSON.stringify(key)}: up to seq ${mark!.seq} was on the disk.`
      const seqs = { from: 0, to: mark!.seq }
      yield findingSaying('transcript-missing', `transcripts/${sessionId}.jsonl`, what, { key, sessionId, seqs })
    }
    const next = new Set<string>()
    for (const [sessionId, seal] of this.#closed) {
      if (seal.reason === 'rotated' && seal.next !== undefined) next.add(seal.next)
      yield findingSaying('unfinished-work', `transcripts/${sessionId}.jsonl`, whatIsLeft(seal), { sessionId, key: seal.key })
    }
    // Without the metadata nobody can say whose a transcript is.
    if (!this.#bySession) return
    for (const [sessionId, { header, records }] of this.#strangers) {
      if (next.has(sessionId)) continue
      const file = `transcripts/${sessionId}.jsonl`
      const key = header?.key
      const what = key === undefined ? `${records} records.` : `${records} records, written for ${JSON.stringify(key)}.`
      yield findingSaying('transcript-orphan', file, what, { sessionId, key })
    }
  }
}

function bySession(sessions: NamedSessions): Map<string, Named> {
  const named = new Map<string, Named>()
  for (const [key, of] of sessions) named.set(of.sessionId, { key, ...of })
  return named
}

function misplaced({ file, sessionId, key }: { file: string; sessionId: string; key: string | undefined }, log: ScannedLog): Finding {
  const { header } = log
  const what =
    header?.log === 'transcript' ? `The header is that of session ${String(header.sessionId)}.` : 'The header is not that of a transcript.'
  return findingOf('header-damaged', file, {
    severity: 'warning',
    repairable: false,
    key,
    sessionId,
    meaning: `${what} Was the file copied or renamed? The store goes by the name of the file.`,
  })
}

function whatIsLeft({ reason, next }: Seal): string {
  if (reason === 'rotated') return `A rotation to session ${next}: the metadata or the archive are still to be done.`
  if (reason === 'deleted') return 'A deletion: the metadata or the archive are still to be done.'
  if (reason === 'compacted') return 'A compaction: the file is still to be written anew.'
  return 'A sync had failed: the file is still to be written anew.'
}

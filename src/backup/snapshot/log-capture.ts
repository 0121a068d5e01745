/** One log into the snapshot: not read again when nothing has changed, from its recorded end when it has only grown, else from its start. */
import { errnoOf } from '../../errors.js'
import type { FileStat } from '../../file/durable.js'
import type { ChainDamage } from '../../file/log/chain.js'
import { hex8, type Seal } from '../../file/log/record.js'
import type { HighWaterMark } from '../../file/metadata/mark.js'
import type { FileFacts, FileRole, FileRow, SessionFacts } from '../repository/repository.js'
import { plainBytes } from './byte-range.js'
import { type About, type Capture, isUntouched } from './capture.js'
import { endsAt, type LogEnd, type LogFacts, LogReading } from './log-reading.js'
import type { NamedSession } from './metadata-reading.js'
import { isAlarming, judge, type LogNow } from './verdict.js'

export interface LogToCapture {
  readonly sessionId: string
  readonly role: FileRole
  /** In the snapshot. */
  readonly path: string
  /** Where it may be; the first that is there is taken. */
  readonly at: readonly string[]
  /** The metadata names it. */
  readonly named: NamedSession | undefined
  /** It was in use at the moment of the snapshot, so a deletion came later: its seal is left out. */
  readonly ofTheMoment: boolean
  /** What the last good snapshot has of this session. */
  readonly good: SessionFacts | undefined
}

export interface CapturedLog {
  readonly session: SessionFacts
  readonly seal: Seal | undefined
}

/** undefined when it is nowhere, or cannot be read (that has been noted). */
export async function captureLog(capture: Capture, log: LogToCapture, tag: string): Promise<CapturedLog | undefined> {
  const about: About = { path: log.path, key: log.named?.key, sessionId: log.sessionId }
  const opened = open(capture, log, about)
  if (!opened) return undefined
  try {
    return await new LogCapture(capture, log, about, tag, opened).run()
  } finally {
    capture.options.disk.close(opened.fd)
  }
}

interface Opened {
  readonly fd: number
  readonly stat: FileStat
}

function open(capture: Capture, { at }: LogToCapture, about: About): Opened | undefined {
  const { disk } = capture.options
  for (const path of at) {
    try {
      const fd = disk.open(path, 'read')
      const stat = disk.fstat(fd)
      if (stat.kind === 'file') return { fd, stat }
      disk.close(fd)
      capture.note('damage', about, `It is a ${stat.kind}, not a regular file, and is not in the snapshot.`)
      return undefined
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === undefined) throw error
      if (errno === 'ENOENT') continue
      const link = errno === 'ELOOP' || errno === 'EMLINK'
      capture.note(
        'damage',
        about,
        link ? 'It is a symbolic link, which a store refuses.' : `It cannot be read: ${(error as Error).message}.`,
      )
      return undefined
    }
  }
  return undefined
}

class LogCapture {
  #capture: Capture
  #log: LogToCapture
  #about: About
  #tag: string
  #opened: Opened
  #row: FileRow | undefined

  constructor(capture: Capture, log: LogToCapture, about: About, tag: string, opened: Opened) {
    this.#capture = capture
    this.#log = log
    this.#about = about
    this.#tag = tag
    this.#opened = opened
    const row = capture.options.previous.get(log.path)
    // Only a row in which nothing was wrong, and whose file ended with its last record, is something to go on from.
    if (row?.session && (row.findings?.length ?? 0) === 0 && row.bytes === row.session.settledBytes) this.#row = row
  }

  async run(): Promise<CapturedLog | undefined> {
    const end = this.#recordedEnd()
    const { stat } = this.#opened
    const row = this.#row
    const rereads = this.#capture.options.rereads(this.#log.path)
    if (row && end && !rereads && isUntouched(row, stat) && this.#keepsHighWater(row.session!)) return this.#keep(row)
    // Touched without growing: somebody may have edited it in place.
    const known = row?.identity
    const hasGrown = known?.ino === stat.ino && known.dev === stat.dev && known.size < stat.size
    return this.#read(row && end && !rereads && hasGrown ? end : undefined)
  }

  /** Where the earlier snapshot ends, when the same record stands there still. */
  #recordedEnd(): LogEnd | undefined {
    const session = this.#row?.session
    if (!session || session.lastSeq < 0) return undefined
    const end = { bytes: session.settledBytes, seq: session.lastSeq, crc: session.lastCrc }
    return endsAt(this.#capture.options.disk, this.#opened.fd, end) ? end : undefined
  }

  #keepsHighWater({ lastSeq }: SessionFacts): boolean {
    return lastSeq >= (this.#log.named?.highWater?.seq ?? -1)
  }

  async #keep(row: FileRow): Promise<CapturedLog | undefined> {
    const session = { ...row.session!, key: this.#log.named?.key }
    const previous = { row, keepBytes: row.bytes, whole: true }
    // Read only if the repository has lost what the earlier snapshot names.
    const bytes = (from: number) => plainBytes(this.#capture.options.disk, this.#opened.fd, from, row.bytes)
    const stored = await this.#capture.store(this.#about, () => this.#facts(session, []), bytes, previous)
    return stored && { session, seal: undefined }
  }

  async #read(from: LogEnd | undefined): Promise<CapturedLog | undefined> {
    const { disk, signal } = this.#capture.options
    const { named, good, ofTheMoment } = this.#log
    const { fd, stat } = this.#opened
    const reading = new LogReading({
      disk,
      fd,
      size: stat.size,
      tag: this.#tag,
      from,
      signal,
      watch: [good?.lastSeq ?? -1, named?.highWater?.seq ?? -1],
      beforeSeal: ofTheMoment ? (seal) => seal.reason === 'deleted' : undefined,
    })
    const bytes = (position: number) => this.#bytes(reading, from, position)
    let found: { session: SessionFacts; messages: string[] } | undefined
    const facts = () => {
      found = this.#judged(reading.facts)
      return this.#facts(found.session, found.messages)
    }
    const row = this.#row
    const previous = row && { row, keepBytes: Math.min(row.bytes, stat.size), ...(!from && { reread: true }) }
    const stored = await this.#capture.store(this.#about, facts, bytes, previous)
    return stored && found && { session: found.session, seal: reading.facts.seal }
  }

  async *#bytes(reading: LogReading, from: LogEnd | undefined, position: number): AsyncGenerator<Uint8Array> {
    const { disk } = this.#capture.options
    if (from) yield* plainBytes(disk, this.#opened.fd, position, from.bytes)
    yield* reading.bytes()
  }

  /** What is wrong with it goes to the findings. */
  #judged(facts: LogFacts): { session: SessionFacts; messages: string[] } {
    const session = this.#sessionOf(facts)
    const messages: string[] = []
    const say = (level: 'damage' | 'alarm', message: string) => {
      messages.push(message)
      this.#capture.note(level, this.#about, message)
    }
    if (facts.damage) say('damage', damageText(facts.damage))
    const lost = this.#log.named?.highWater && belowHighWater(this.#log.named.highWater, facts, session)
    if (lost) say('damage', lost)
    const { good } = this.#log
    if (!good || facts.damage) return { session, messages }
    const verdict = judge(good, logNow(facts, session, good))
    if (isAlarming(verdict)) say('alarm', alarmText(verdict, good, session))
    return { session, messages }
  }

  #sessionOf({ seq, crc, bytes, header }: LogFacts): SessionFacts {
    const before = this.#row?.session
    return {
      key: this.#log.named?.key,
      sessionId: this.#log.sessionId,
      headerKey: header ? header.key : before?.headerKey,
      lastSeq: seq,
      lastCrc: crc,
      headerCrc: header ? header.crc : before?.headerCrc,
      settledBytes: bytes,
    }
  }

  #facts(session: SessionFacts, findings: readonly string[]): FileFacts {
    const { stat } = this.#opened
    return {
      path: this.#log.path,
      role: this.#log.role,
      type: 'file',
      mode: stat.mode & 0o7777,
      mtimeMs: stat.mtimeMs ?? stat.ctimeMs,
      identity: { dev: stat.dev, ino: stat.ino, size: stat.size, ctimeMs: stat.ctimeMs },
      session,
      ...(findings.length > 0 && { findings }),
    }
  }
}

export function logNow(facts: LogFacts, session: SessionFacts, then: SessionFacts): LogNow {
  return {
    lastSeq: facts.seq,
    lastCrc: facts.crc,
    bytes: facts.bytes,
    headerCrc: session.headerCrc,
    replaces: facts.header?.replaces ?? [],
    // Read on from a record that an earlier snapshot without findings ends with: what is before it was compared then.
    crcAtLast: facts.crcs.get(then.lastSeq) ?? (facts.header || facts.seq < then.lastSeq ? undefined : then.lastCrc),
  }
}

export function damageText({ why, byte, seq }: ChainDamage): string {
  return `It is damaged at byte ${byte}, seq ${seq}: ${why}. Its bytes are in the snapshot as they are.`
}

export function alarmText(verdict: string, then: SessionFacts, now: SessionFacts): string {
  if (verdict === 'shrunk')
    return `It ends at seq ${now.lastSeq}; the last good snapshot has it up to seq ${then.lastSeq}. No compaction or repair says that it made it shorter.`
  return `Record ${then.lastSeq} is not the one that the last good snapshot has, and no compaction or repair says that it made the file anew.`
}

function belowHighWater(mark: HighWaterMark, facts: LogFacts, { headerCrc }: SessionFacts): string | undefined {
  if (facts.seq < mark.seq) return `It ends at seq ${facts.seq}, but the metadata knows that seq ${mark.seq} was on the disk.`
  const crc = facts.crcs.get(mark.seq)
  if (headerCrc === undefined || headerCrc === hex8(mark.header))
    return crc === undefined || crc === hex8(mark.crc) ? undefined : `Record ${mark.seq} is not the one that the metadata knows.`
  if (facts.header?.replaces?.includes(hex8(mark.header)) || !facts.header) return undefined
  return 'Another file stands in the place of the one that the metadata knows, and does not say that it replaces it.'
}

/** Verifies a share of the files in each round, and all of them in the course of many: damage is noticed before the last good copy of a backup
 *  has been replaced (F53). What it finds is told, and repairs nothing. */
import type { Inside } from '../../file/backend.js'
import type { Finding } from '../../findings.js'
import type { Pace } from '../pace.js'
import { scanArchived } from '../verify/archive-scan.js'
import { isSessionId, type NamedSessions } from '../verify/entries.js'
import { scanMetadata } from '../verify/metadata-scan.js'
import { Report } from '../verify/report.js'
import { TranscriptsScan } from '../verify/transcripts-scan.js'
import type { Unit } from './round.js'

interface Target {
  /** Relative to the store. */
  readonly file: string
  readonly bytes: number
}

const metadataFiles = { snapshot: 'sessions.json', journal: 'sessions.journal.jsonl' }

export class VerifyStep {
  #inside: Inside
  #share: number
  /** Where the last round has stopped. */
  #after: string | undefined

  /** @param share  of all bytes, 0 to 1 */
  constructor(inside: Inside, share: number) {
    this.#inside = inside
    this.#share = share
  }

  async *run(pace: Pace): AsyncGenerator<Unit> {
    const metadata = await this.#metadata(pace)
    for (const finding of metadata.findings) if (finding.severity === 'damage') yield unitOf(finding)
    if (metadata.sessions) for (const finding of await this.#missing(metadata.sessions, pace)) yield unitOf(finding)
    const targets = await this.#targets(pace)
    let leftBytes = this.#share * targets.reduce((sum, { bytes }) => sum + bytes, 0)
    for (const target of this.#inOrder(targets)) {
      if (leftBytes <= 0) return
      leftBytes -= target.bytes
      this.#after = target.file
      const findings = await this.#verify(target, metadata.sessions, pace)
      for (const finding of findings) yield unitOf(finding)
      yield { outcome: findings.length > 0 ? 'damaged' : 'verified', file: target.file, bytes: target.bytes }
    }
  }

  #metadata(pace: Pace) {
    const { host, places, tag } = this.#inside
    return scanMetadata(host.disk, places, metadataFiles, { tag, signal: pace.signal, breath: pace })
  }

  /** Of sessions that are known to have had one: looked at again and again until somebody who moves it has had time to. */
  async #missing(sessions: NamedSessions, pace: Pace): Promise<readonly Finding[]> {
    const { host, transcripts } = this.#inside
    const lacking: NamedSessions = new Map()
    for (const [key, session] of sessions) {
      if (session.mark && !host.disk.stat(transcripts.pathOf(session.sessionId))) lacking.set(key, session)
      await pace.breathe()
    }
    if (lacking.size === 0) return []
    const report = new Report()
    await this.#scan(lacking, report, pace).agree()
    return report.done.findings.filter(({ severity }) => severity === 'damage')
  }

  async #targets(pace: Pace): Promise<Target[]> {
    const { disk } = this.#inside.host
    const { store } = this.#inside.places
    const targets: Target[] = []
    for (const directory of ['transcripts', 'archive'])
      for (const name of disk.readdir(`${store}/${directory}`)) {
        const stat = disk.stat(`${store}/${directory}/${name}`)
        if (stat && name.includes('.jsonl')) targets.push({ file: `${directory}/${name}`, bytes: stat.size })
        await pace.breathe()
      }
    return targets.sort((a, b) => (a.file < b.file ? -1 : 1))
  }

  /** From where it stopped; the first time from anywhere, for there may be many whose time is short. */
  *#inOrder(targets: readonly Target[]): Generator<Target> {
    const random = Number.parseInt(this.#inside.host.nonce(8), 16) / 0x1_0000_0000
    const after = this.#after
    const found = after === undefined ? Math.floor(random * targets.length) : targets.findIndex(({ file }) => file > after)
    const from = Math.max(0, found)
    yield* targets.slice(from)
    yield* targets.slice(0, from)
  }

  async #verify({ file }: Target, sessions: NamedSessions | undefined, pace: Pace): Promise<readonly Finding[]> {
    const { host, places, tag } = this.#inside
    const report = new Report()
    const name = file.slice(file.indexOf('/') + 1)
    const scanning = { tag, signal: pace.signal, breath: pace }
    if (file.startsWith('archive/')) await scanArchived(name, { disk: host.disk, directory: places.archive, report, scanning, done() {} })
    else if (isSessionId(name.slice(0, -'.jsonl'.length))) await this.#scan(sessions, report, pace).scan(name)
    return report.done.findings.filter(({ severity }) => severity === 'damage')
  }

  #scan(sessions: NamedSessions | undefined, report: Report, pace: Pace): TranscriptsScan {
    const { host, places, tag } = this.#inside
    const tools = {
      disk: host.disk,
      directory: places.transcripts,
      report,
      scanning: { tag, signal: pace.signal, breath: pace },
      sleep: (ms: number) => host.clock.sleep(ms, pace.signal),
      namedNow: async () => (await this.#metadata(pace)).sessions,
      chat: false,
      done() {},
    }
    return new TranscriptsScan(tools, sessions)
  }
}

function unitOf({ kind, file, key, sessionId, meaning, bytes, seqs }: Finding): Unit {
  const where = [bytes && `bytes ${bytes.from} to ${bytes.to}`, seqs && `seq ${seqs.from} to ${seqs.to}`].filter(Boolean).join(', ')
  return { damage: true, outcome: kind, file, key, sessionId, text: where ? `${where}: ${meaning}` : meaning }
}

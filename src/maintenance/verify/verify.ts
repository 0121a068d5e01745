/** Looks at every file of a store, and changes nothing.
 *
 *  The metadata first, then the transcripts, then the archive: what moves meanwhile moves in that direction, so nothing is missed. Memory is
 *  a fixed window, and what is known of each session; no step holds up the event loop for long (scan.ts, breath.ts). */
import type { StoreError } from '../../errors.js'
import { newBreath } from '../../file/breath.js'
import type { Disk } from '../../file/durable.js'
import type { StorePlaces } from '../../file/format.js'
import type { Host } from '../../file/host.js'
import { judgeAtOnce } from '../../file/lock/observer.js'
import type { Finding } from '../../findings.js'
import type { VerifyOptions, VerifyReport } from '../../types.js'
import { scanArchived } from './archive-scan.js'
import { formatFinding } from './format-scan.js'
import { scanLocks } from './locks-scan.js'
import type { LogScanOptions } from './log-scan.js'
import { type ScannedMetadata, scanMetadata } from './metadata-scan.js'
import { permissions, rootPermissions } from './permissions.js'
import { Report } from './report.js'
import { TranscriptsScan } from './transcripts-scan.js'

export type VerifyHost = Pick<Host, 'disk' | 'clock' | 'identity' | 'probe'>

/** @param refusal  why the store could not be opened: told as damage when nothing else is found */
export async function verifyStore(
  host: Host,
  places: StorePlaces,
  tag: string,
  options: VerifyOptions,
  refusal?: StoreError,
): Promise<VerifyReport> {
  const verification = new Verification(host, places, tag, options)
  return verification.run(refusal)
}

const current = { snapshot: 'sessions.json', journal: 'sessions.journal.jsonl' }
const previous = { snapshot: 'sessions.prev.json', journal: 'sessions.prev.journal.jsonl' }
/** A checkpoint puts the two of the generation before in place one after the other. */
const previousTries = 20

class Verification {
  #host: Host
  #places: StorePlaces
  #disk: Disk
  #report = new Report()
  #scanning: LogScanOptions
  #onProgress: VerifyOptions['onProgress']
  #chat: boolean
  #breath = newBreath()
  #done = 0
  #total = 0

  constructor(host: Host, places: StorePlaces, tag: string, options: VerifyOptions) {
    this.#host = host
    this.#places = places
    this.#disk = host.disk
    this.#onProgress = options.onProgress
    this.#chat = options.chat ?? false
    this.#scanning = {
      tag,
      signal: options.signal,
      breath: this.#breath,
      onProgress: (bytes) => options.onProgress?.(this.#done + bytes, this.#total),
    }
  }

  async run(refusal: StoreError | undefined): Promise<VerifyReport> {
    this.#scanning.signal?.throwIfAborted()
    const { store, format, transcripts, archive, quarantine, locks } = this.#places
    const root = this.#disk.stat(store)
    if (root) this.#tell(rootPermissions(root))
    this.#tell(formatFinding(this.#disk, format))
    for (const path of [format, transcripts, archive, quarantine, locks]) this.#permissions(path)

    const names = await this.#names(transcripts)
    this.#total = (await this.#sizes(names, transcripts)) + (await this.#sizes(await this.#names(archive), archive))
    const metadata = await this.#metadata()
    await this.#transcripts(metadata, names)
    await this.#archived()
    await this.#previous()
    const tools = { disk: this.#disk, path: locks, judge: judgeAtOnce(this.#host) }
    for await (const finding of scanLocks(tools)) this.#report.find(finding)
    if (refusal && this.#report.isSound) this.#refused(refusal)
    return this.#report.done
  }

  async #metadata(): Promise<ScannedMetadata> {
    const metadata = await scanMetadata(this.#disk, this.#places, current, this.#scanning)
    const { snapshot, journal, sessions, findings } = metadata
    for (const path of [this.#places.snapshot, this.#places.journal]) this.#permissions(path)
    if (snapshot) {
      const records = sessions?.size ?? snapshot.sessions.size
      const report = { file: current.snapshot, kind: 'snapshot' as const, bytes: snapshot.bytes, records, lastSeq: -1 }
      this.#report.file({ ...report, voidLines: 0, tornTailBytes: 0, sealed: false })
    }
    if (journal) this.#report.log(current.journal, 'journal', { ...journal, findings: [] })
    for (const finding of findings) {
      // Its damage as a log has been told, as that of any log.
      if (journal && finding.file === current.journal && finding.kind !== 'journal-damaged') this.#report.note(finding)
      else this.#report.find(finding, 'STORE_CORRUPT')
    }
    return metadata
  }

  async #transcripts(metadata: ScannedMetadata, names: readonly string[]): Promise<void> {
    const directory = this.#places.transcripts
    const tools = {
      ...this.#tools(directory),
      chat: this.#chat,
      sleep: (ms: number) => this.#host.clock.sleep(ms),
      namedNow: async () => (await scanMetadata(this.#disk, this.#places, current, this.#scanning)).sessions,
    }
    const scan = new TranscriptsScan(tools, metadata.sessions)
    for (const name of names) await this.#each(directory, name, () => scan.scan(name))
    await scan.agree()
  }

  /** Listed last: what has been moved there meanwhile is looked at, too. */
  async #archived(): Promise<void> {
    const directory = this.#places.archive
    const tools = this.#tools(directory)
    for (const name of await this.#names(directory)) await this.#each(directory, name, () => scanArchived(name, tools))
  }

  async #each(directory: string, name: string, scan: () => Promise<void>): Promise<void> {
    this.#scanning.signal?.throwIfAborted()
    this.#permissions(`${directory}/${name}`)
    await scan()
    await this.#breath.breathe()
  }

  #tools(directory: string) {
    return {
      disk: this.#disk,
      directory,
      report: this.#report,
      scanning: this.#scanning,
      done: (_name: string, bytes: number) => {
        this.#done = Math.min(this.#total, this.#done + bytes)
        this.#onProgress?.(this.#done, this.#total)
      },
    }
  }

  /** The generation before: of use only when the present one is damaged, so nothing is lost when it is. */
  async #previous(): Promise<void> {
    const { previousSnapshot: snapshot, previousJournal: journal } = this.#places
    if (!this.#disk.stat(snapshot) && !this.#disk.stat(journal)) return
    for (const path of [snapshot, journal]) this.#permissions(path)
    let findings: readonly Finding[] = []
    for (let tries = 0; tries < previousTries; tries++) {
      findings = (await scanMetadata(this.#disk, { snapshot, journal }, previous, this.#scanning)).findings
      if (!findings.some(({ severity }) => severity === 'damage')) break
      await this.#host.clock.sleep(tries)
    }
    const meaning =
      'The generation before cannot be used to mend the present one, should that be damaged. The next checkpoint makes a new one.'
    for (const finding of findings)
      this.#report.find(finding.severity === 'damage' ? { ...finding, severity: 'warning', repairable: false, meaning } : finding)
  }

  #permissions(path: string): void {
    const stat = this.#disk.stat(path)
    if (stat) this.#tell(permissions(path.slice(this.#places.store.length + 1), stat))
  }

  #tell(finding: Finding | undefined): void {
    if (finding) this.#report.find(finding, 'STORE_CORRUPT')
  }

  #refused({ details, message }: StoreError): void {
    this.#report.damage({ file: String(details.file ?? 'sessions.json'), code: 'STORE_CORRUPT', message, byte: undefined, seq: undefined })
  }

  async #sizes(names: readonly string[], directory: string): Promise<number> {
    if (!this.#onProgress) return 0
    let sum = 0
    for (const name of names) {
      sum += this.#disk.stat(`${directory}/${name}`)?.size ?? 0
      await this.#breath.breathe()
    }
    return sum
  }

  async #names(directory: string): Promise<string[]> {
    if (this.#disk.stat(directory)?.kind !== 'directory') return []
    if (!this.#disk.names) return this.#disk.readdir(directory).sort()
    const names: string[] = []
    for await (const name of this.#disk.names(directory)) names.push(name)
    return names.sort()
  }
}

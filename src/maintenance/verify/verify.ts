/** Looks at every file of a store, and changes nothing. */
import { isStoreError } from '../../errors.js'
import type { Disk } from '../../file/durable.js'
import type { Finding } from '../../findings.js'
import type { Damage, FileReport, VerifyOptions, VerifyReport } from '../../types.js'
import { type LogAbout, type ScannedLog, scanFile } from './log-scan.js'

export interface VerifyPlaces {
  readonly store: string
  readonly snapshot: string
  readonly journal: string
  readonly transcripts: string
  readonly archive: string
}

interface Target {
  readonly file: string
  readonly path: string
  readonly kind: FileReport['kind']
  readonly bytes: number
}

/** @param checkPair  throws what is wrong with snapshot and journal together. */
export async function verifyStore(
  disk: Disk,
  places: VerifyPlaces,
  tag: string,
  checkPair: () => Promise<number>,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const files: FileReport[] = []
  const damage: Damage[] = []
  const targets = [...logsIn(disk, places.transcripts, 'transcript'), ...logsIn(disk, places.archive, 'archive')]
  const journal = disk.stat(places.journal)
  if (journal) targets.unshift({ file: 'sessions.journal.jsonl', path: places.journal, kind: 'journal', bytes: journal.size })
  const total = targets.reduce((sum, { bytes }) => sum + bytes, 0)
  let done = 0

  const snapshot = disk.stat(places.snapshot)
  const entries = await checkPair().catch((error: unknown) => {
    if (!isStoreError(error)) throw error
    // A damaged journal is reported once, by its own scan below.
    if (error.code === 'STORE_CORRUPT')
      damage.push({
        file: String(error.details.file ?? 'sessions.json'),
        code: 'STORE_CORRUPT',
        message: error.message,
        byte: undefined,
        seq: undefined,
      })
    return 0
  })
  if (snapshot)
    files.push({
      file: 'sessions.json',
      kind: 'snapshot',
      bytes: snapshot.size,
      records: entries,
      lastSeq: -1,
      voidLines: 0,
      tornTailBytes: 0,
      sealed: false,
    })

  const findings: Finding[] = []
  for (const target of targets) {
    const scanning = {
      tag,
      signal: options.signal,
      onProgress: (bytes: number) => options.onProgress?.(done + bytes, total),
    }
    const found = await scanFile(disk, target.path, aboutOf(target), scanning)
    done += target.bytes
    options.onProgress?.(done, total)
    // Moved to the archive meanwhile.
    if (found === 'gone') continue
    const isScanned = 'findings' in found
    findings.push(...(isScanned ? found.findings : [found]))
    files.push(isScanned ? reportOf(target, found) : empty(target))
    const wrong = isScanned ? damageOf(target.file, found) : { file: target.file, code: 'LOG_CORRUPT', message: found.meaning }
    if (wrong) damage.push({ byte: undefined, seq: undefined, ...wrong } as Damage)
  }
  return { ok: damage.length === 0, files, damage, findings }
}

function logsIn(disk: Disk, directory: string, kind: 'transcript' | 'archive'): Target[] {
  if (!disk.stat(directory)) return []
  return disk
    .readdir(directory)
    .filter((name) => name.endsWith('.jsonl'))
    .sort()
    .map((name) => {
      const path = `${directory}/${name}`
      const folder = kind === 'archive' ? 'archive' : 'transcripts'
      return { file: `${folder}/${name}`, path, kind, bytes: disk.stat(path)?.size ?? 0 }
    })
}

function aboutOf({ file, kind }: Target): LogAbout {
  return { file, sessionId: kind === 'journal' ? undefined : /([0-9a-f-]{36})[^/]*$/.exec(file)?.[1] }
}

function damageOf(file: string, { damage }: ScannedLog): Damage | undefined {
  if (!damage) return undefined
  const { byte, seq, why } = damage
  return { file, code: 'LOG_CORRUPT', message: `${file} is damaged at byte ${byte}, seq ${seq}: ${why}.`, byte, seq }
}

function reportOf({ file, kind }: Target, { bytes, records, lastSeq, voidLines, undecidedBytes, seal }: ScannedLog): FileReport {
  return { file, kind, bytes, records, lastSeq, voidLines, tornTailBytes: undecidedBytes, sealed: seal !== undefined }
}

function empty(target: Target): FileReport {
  return {
    file: target.file,
    kind: target.kind,
    bytes: target.bytes,
    records: 0,
    lastSeq: -1,
    voidLines: 0,
    tornTailBytes: 0,
    sealed: false,
  }
}

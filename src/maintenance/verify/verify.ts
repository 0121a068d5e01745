/** Looks at every file of a store, and changes nothing. */
import { errnoOf, isStoreError } from '../../errors.js'
import type { Disk } from '../../file/durable.js'
import { Chain, type ChainSink } from '../../file/log/chain.js'
import { pieces } from '../../file/log/pieces.js'
import { isSystemOnly } from '../../file/log/record.js'
import type { Damage, FileReport, VerifyOptions, VerifyReport } from '../../types.js'

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

  for (const target of targets) {
    const found = await verifyLog(disk, target, tag, options.signal, (bytes) => options.onProgress?.(done + bytes, total))
    done += target.bytes
    options.onProgress?.(done, total)
    if (!found) continue
    files.push(found.report)
    if (found.damage) damage.push(found.damage)
  }
  return { ok: damage.length === 0, files, damage, findings: [] }
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

/** undefined when the file has moved to the archive meanwhile. */
async function verifyLog(
  disk: Disk,
  target: Target,
  tag: string,
  signal: AbortSignal | undefined,
  progress: (bytes: number) => void,
): Promise<{ report: FileReport; damage: Damage | undefined } | undefined> {
  const { file, kind } = target
  const stat = disk.stat(target.path)
  if (!stat) return undefined
  if (stat.kind !== 'file')
    return {
      report: empty(target),
      damage: { file, code: 'LOG_CORRUPT', message: `${file} is a ${stat.kind}, not a regular file.`, byte: undefined, seq: undefined },
    }
  let fd: number
  try {
    fd = disk.open(target.path, 'read')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    return {
      report: empty(target),
      damage: {
        file,
        code: 'LOG_CORRUPT',
        message: `${file} cannot be opened: ${(error as Error).message}.`,
        byte: undefined,
        seq: undefined,
      },
    }
  }
  try {
    const { size } = disk.fstat(fd)
    const chain = new Chain(tag)
    let records = 0
    const sink: ChainSink = { record: (_mark, bytes, start) => void (isSystemOnly(bytes, start) || records++) }
    for await (const bytes of pieces(disk, fd, size, chain, sink, signal)) progress(bytes)
    const wrong = chain.damage
    return {
      report: {
        file,
        kind,
        bytes: size,
        records: records + chain.foreign.lines,
        lastSeq: chain.seq,
        voidLines: chain.voidLines,
        tornTailBytes: size - chain.settled,
        sealed: chain.seal !== undefined,
      },
      damage: wrong && {
        file,
        code: 'LOG_CORRUPT',
        message: `${file} is damaged at byte ${wrong.byte}, seq ${wrong.seq}: ${wrong.why}.`,
        byte: wrong.byte,
        seq: wrong.seq,
      },
    }
  } finally {
    disk.close(fd)
  }
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

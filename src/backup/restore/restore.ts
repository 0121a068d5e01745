/** `restoreBackup`: a snapshot, or one session of it, into a new directory; read back and proved before it stands there. */
import { createHash, randomBytes } from 'node:crypto'
import { StoreError } from '../../errors.js'
import { type Disk, nodeDisk } from '../../file/durable.js'
import { placesIn } from '../../file/format.js'
import { readIdentity } from '../../file/lock/identity.js'
import { bootTag } from '../../file/log/chain.js'
import type { FileRow, Manifest, Repository, SnapshotInfo } from '../repository/repository.js'
import { readMetadata } from '../snapshot/metadata-reading.js'
import { oneSession } from './one-session.js'
import { proveFile } from './proof.js'
import { restoreError, Staging } from './staging.js'

export interface RestoreOptions {
  readonly repository: Repository
  /** Its id, or the first characters of it. */
  readonly snapshot: string
  /** A directory that is empty or not there. */
  readonly into: string
  /** Only this conversation, as a small store of its own. */
  readonly session?: string | undefined
  /** Instead of the store, an included directory, by its name in the snapshot. */
  readonly included?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  readonly disk?: Disk | undefined
}

export interface RestoreReport {
  readonly snapshot: SnapshotInfo
  readonly into: string
  readonly files: number
  readonly bytes: number
  readonly sessions: number
  /** What was damaged when it was backed up, and so is now. */
  readonly damage: readonly string[]
  /** Included directories of the snapshot that were not restored by this call. */
  readonly included: readonly string[]
}

/** When it returns, everything is in place, on the disk, and proved. When it throws, there is nothing that could be taken for a store.
 *  @throws INVALID_OPTION  the directory is not empty · NOT_FOUND  no such snapshot, session or directory in it · BACKUP_MISMATCH  what was
 *  read is not what was stored · DISK_FULL, IO_FAILED, BACKEND_UNAVAILABLE · the signal's reason. */
export async function restoreBackup(options: RestoreOptions): Promise<RestoreReport> {
  const { repository, signal, disk = nodeDisk } = options
  const manifest = await repository.manifest(options.snapshot, { signal })
  const part = chosen(manifest, options)
  assertTree(part.rows)
  const staging = Staging.begin(disk, options.into, randomBytes(4).toString('hex'))
  try {
    const restoring = new Restoring(options, staging, part)
    await restoring.run()
    const isStore = options.included === undefined
    if (options.session !== undefined) await oneSession(disk, repository, manifest, options.session, part.rows, staging)
    const damage = part.rows.flatMap(({ path, findings = [] }) => findings.map((text) => `${path}: ${text}`))
    const sessions = isStore ? await proveMetadata(disk, staging, damage.length > 0 || manifest.info.damaged, signal) : 0
    await staging.finish(part.strip)
    return {
      snapshot: manifest.info,
      into: staging.into,
      files: part.rows.filter(({ type }) => type === 'file').length,
      bytes: part.rows.reduce((sum, { bytes }) => sum + bytes, 0),
      sessions,
      damage,
      included: includedNames(manifest).filter((name) => name !== options.included),
    }
  } catch (error) {
    await staging.abandon()
    throw restoreError(error, staging.into)
  }
}

interface Part {
  readonly rows: readonly FileRow[]
  readonly strip: (path: string) => string
}

/** What of a snapshot is restored. */
function chosen(manifest: Manifest, { session, included }: RestoreOptions): Part {
  const isIncluded = ({ path }: FileRow) => path.startsWith('included/')
  if (included !== undefined) {
    const prefix = `included/${included}/`
    const rows = manifest.files.filter(({ path }) => path.startsWith(prefix))
    if (!includedNames(manifest).includes(included)) throw notThere(manifest, `an included directory called ${JSON.stringify(included)}`)
    return { rows, strip: (path) => path.slice(prefix.length) }
  }
  const strip = (path: string) => path
  const ofStore = manifest.files.filter((row) => !isIncluded(row))
  if (session === undefined) return { rows: ofStore, strip }
  const theirs = ofStore.filter(({ session: facts }) => facts && (facts.key === session || facts.headerKey === session))
  if (theirs.length === 0) throw notThere(manifest, `a session ${JSON.stringify(session)}`)
  const stems = new Set(theirs.map(({ path }) => stem(path)))
  return { rows: ofStore.filter((row) => theirs.includes(row) || (row.role === 'archive' && stems.has(stem(row.path)))), strip }
}

/** A log and the note beside it. */
function stem(path: string): string {
  return path.replace(/\.(jsonl|jsonl\.gz|json)$/, '')
}

function includedNames({ files, info }: Manifest): string[] {
  const told = Object.keys((info.extra.included as Record<string, unknown> | undefined) ?? {})
  const seen = files.flatMap(({ path }) => (path.startsWith('included/') ? path.split('/')[1]! : []))
  return [...new Set([...told, ...seen])]
}

function notThere({ info }: Manifest, what: string): StoreError {
  return new StoreError('NOT_FOUND', `snapshot ${info.id} has not ${what}.`, {
    details: { snapshot: info.id },
    hint: '`holdfast backup list SNAPSHOT` shows what is in it.',
  })
}

class Restoring {
  #options: RestoreOptions
  #staging: Staging
  #part: Part
  #done = 0
  #total: number
  #tag = bootTag(readIdentity().boot)

  constructor(options: RestoreOptions, staging: Staging, part: Part) {
    this.#options = options
    this.#staging = staging
    this.#part = part
    this.#total = part.rows.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  async run(): Promise<void> {
    for (const folder of this.#options.included === undefined ? ['transcripts', 'archive', 'quarantine'] : [])
      this.#staging.directory(folder)
    // Links last, the deepest first: whatever a file system takes for the same name, nothing is written through one.
    const isLink = ({ type }: FileRow) => type === 'symlink'
    const { rows } = this.#part
    for (const row of [...rows.filter((it) => !isLink(it)), ...rows.filter(isLink).reverse()]) {
      this.#options.signal?.throwIfAborted()
      await this.#row(row)
    }
  }

  async #row(row: FileRow): Promise<void> {
    const as = this.#part.strip(row.path)
    assertWithin(row.path)
    if (row.type === 'symlink') return this.#staging.link(as, row.linkTo ?? '')
    if (row.role === 'included' || row.role === 'other') this.#staging.dress(row)
    if (row.type === 'directory') return this.#staging.directory(as)
    const hash = createHash('sha256')
    await this.#staging.file(
      as,
      this.#hashed(row, (piece) => hash.update(piece)),
    )
    const { disk = nodeDisk, signal } = this.#options
    await proveFile(disk, `${this.#staging.path}/${as}`, row, hash.digest('hex'), this.#tag, signal)
  }

  async *#hashed(row: FileRow, take: (piece: Buffer) => void): AsyncGenerator<Buffer> {
    const { repository, signal, onProgress } = this.#options
    let bytes = 0
    for await (const piece of repository.read(row, { signal })) {
      take(piece)
      bytes += piece.length
      this.#done += piece.length
      onProgress?.(this.#done, this.#total)
      yield piece
    }
    if (bytes !== row.bytes) throw outside(row.path, `it has ${bytes} bytes instead of ${row.bytes}`)
  }
}

/** Each path once, and below directories only: through a symbolic link a file would come to stand somewhere else. */
function assertTree(rows: readonly FileRow[]): void {
  const types = new Map<string, FileRow['type']>()
  for (const { path, type } of rows) {
    if (types.has(path)) throw outside(path, 'it is listed twice')
    types.set(path, type)
  }
  for (const { path } of rows)
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const type = types.get(path.slice(0, end))
      if (type !== undefined && type !== 'directory') throw outside(path, `it would stand below a ${type}`)
    }
}

/** A manifest says what is to be written, never where else than below the new directory. */
function assertWithin(path: string): void {
  const parts = path.split('/')
  if (path.startsWith('/') || path.includes('\0') || parts.some((part) => part === '' || part === '.' || part === '..'))
    throw outside(path, 'it leads out of the directory')
}

function outside(path: string, why: string): StoreError {
  return new StoreError('BACKUP_MISMATCH', `the snapshot has a file ${JSON.stringify(path)} that cannot be restored: ${why}.`, {
    details: { path },
    hint: 'Nothing was put in place. Run `holdfast backup check --deep`, and restore another snapshot.',
  })
}

/** The pair fits, every entry parses, and every transcript that the metadata knows of is there.
 *  @returns how many sessions it names. */
async function proveMetadata(disk: Disk, staging: Staging, knownDamaged: boolean, signal: AbortSignal | undefined): Promise<number> {
  const places = placesIn(staging.path)
  const { sessions, damage } = await readMetadata({ disk, places, tag: bootTag(readIdentity().boot), signal })
  const missing = [...sessions.values()].find(
    ({ sessionId, highWater }) => highWater && !disk.stat(`${places.transcripts}/${sessionId}.jsonl`),
  )
  const why = damage?.message ?? (missing && `the transcript of ${JSON.stringify(missing.key)} is missing`)
  if (why === undefined || knownDamaged) return sessions.size
  throw new StoreError('BACKUP_MISMATCH', `the restored store would not open: ${why}`, {
    details: { why },
    hint: 'Nothing was put in place. Run `holdfast backup check --deep`, and restore another snapshot.',
  })
}

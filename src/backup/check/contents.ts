/** The deeper half of a deep check: not whether the bytes are those that were stored (the repository proves that), but whether they are what
 *  a store can be made of. Every log by its chain, every record and every file of JSON parsed, snapshot and journal as a pair. */
import { createHash } from 'node:crypto'
import { isStoreError } from '../../errors.js'
import { readIdentity } from '../../file/lock/identity.js'
import { bootTag } from '../../file/log/chain.js'
import { readBody } from '../../file/log/record.js'
import type { FileRow, Manifest, Repository } from '../repository/repository.js'
import { assertSession, unfolded } from '../restore/proof.js'
import { followLog } from '../snapshot/chain-stream.js'
import type { LogFacts } from '../snapshot/log-reading.js'

export interface ContentProblem {
  readonly snapshot: string
  readonly path: string
  readonly problem: string
}

export interface ContentCheck {
  readonly problems: readonly ContentProblem[]
  readonly logs: number
  readonly records: number
  readonly bytes: number
}

export interface ContentOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((bytes: number, bytesTotal: number) => void) | undefined
}

interface Version {
  readonly snapshot: string
  readonly row: FileRow
}

/** @param manifests  those to check; what was marked as damaged when it was backed up is left out: that it is damaged is known. */
export async function checkContents(
  repository: Repository,
  manifests: readonly Manifest[],
  options: ContentOptions = {},
): Promise<ContentCheck> {
  const checking = new ContentChecking(repository, options)
  const { logs, texts } = sorted(manifests)
  checking.expect([...logs.values()].map((versions) => versions[0]!.row).concat(texts.map(({ row }) => row)))
  for (const versions of logs.values()) await checking.log(versions)
  for (const version of texts) await checking.text(version)
  for (const manifest of manifests) await checking.pair(manifest)
  return checking.result()
}

/** The versions of each log, longest first, and the files of JSON, each content once. */
function sorted(manifests: readonly Manifest[]): { logs: Map<string, Version[]>; texts: Version[] } {
  const logs = new Map<string, Version[]>()
  const texts = new Map<string, Version>()
  for (const { info, files } of manifests)
    for (const row of files) {
      if (row.type !== 'file' || (row.findings?.length ?? 0) > 0) continue
      const version = { snapshot: info.id, row }
      const isText = row.role !== 'included' && row.role !== 'other' && row.path.endsWith('.json')
      if (isText) texts.set(contentOf(row), version)
      if (row.session) logs.set(row.path, [...(logs.get(row.path) ?? []), version])
    }
  for (const versions of logs.values()) versions.sort((a, b) => b.row.bytes - a.row.bytes)
  return { logs, texts: [...texts.values()] }
}

function contentOf({ path, chunks }: FileRow): string {
  return `${path} ${chunks.map(([name]) => name).join()}`
}

class ContentChecking {
  #repository: Repository
  #options: ContentOptions
  #tag = bootTag(readIdentity().boot)
  #problems: ContentProblem[] = []
  #done = { logs: 0, records: 0, bytes: 0 }
  #total = 0

  constructor(repository: Repository, options: ContentOptions) {
    this.#repository = repository
    this.#options = options
  }

  expect(rows: readonly FileRow[]): void {
    this.#total = rows.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  result(): ContentCheck {
    return { problems: this.#problems, ...this.#done }
  }

  /** A log only ever grows: where the longest version has the records that the shorter ones end with, those need no reading of their own. */
  async log(versions: readonly Version[]): Promise<void> {
    let longest: LogFacts | undefined
    for (const { snapshot, row } of versions) {
      const { lastSeq, lastCrc } = row.session!
      if (longest && lastSeq >= 0 && longest.crcs.get(lastSeq) === lastCrc) continue
      const facts = await this.#guarded(snapshot, row, () => this.#follow(row, versions))
      longest ??= facts
    }
  }

  async #follow(row: FileRow, versions: readonly Version[]): Promise<LogFacts> {
    const watch = new Set(versions.map((version) => version.row.session!.lastSeq))
    let records = 0
    const facts = await followLog(unfolded(row, this.#bytes(row)), this.#tag, watch, {
      record(mark, line, start) {
        JSON.parse(readBody(line, start, mark).json)
        records++
      },
    })
    assertSession(row, facts)
    this.#done.logs++
    this.#done.records += records
    return facts
  }

  async text({ snapshot, row }: Version): Promise<void> {
    await this.#guarded(snapshot, row, async () => void JSON.parse((await this.#all(row)).toString('utf8')))
  }

  /** Whether the store would open. */
  async pair({ info, files }: Manifest): Promise<void> {
    const [snapshot, journal] = ['sessions.json', 'sessions.journal.jsonl'].map((path) => files.find((row) => row.path === path))
    if (!snapshot || !journal || [snapshot, journal].some((row) => (row.findings?.length ?? 0) > 0)) return
    await this.#guarded(info.id, journal, async () => {
      const hash = createHash('sha256')
      for await (const piece of this.#repository.read(snapshot, this.#options)) hash.update(piece)
      const log = await followLog(this.#repository.read(journal, this.#options), this.#tag)
      const named = hash.digest('hex')
      if (log.header?.base === named || (log.seal?.reason === 'checkpoint' && log.seal.next === named)) return
      throw new Error('it does not belong to the sessions.json beside it')
    })
  }

  async #guarded<R>(snapshot: string, { path }: FileRow, work: () => Promise<R>): Promise<R | undefined> {
    const { signal } = this.#options
    signal?.throwIfAborted()
    try {
      return await work()
    } catch (error) {
      signal?.throwIfAborted()
      // A target that does not answer is no finding.
      if (isStoreError(error) && error.kind !== 'damaged') throw error
      this.#problems.push({ snapshot, path, problem: (error as Error).message })
      return undefined
    }
  }

  async #all(row: FileRow): Promise<Buffer> {
    const pieces: Buffer[] = []
    for await (const piece of this.#bytes(row)) pieces.push(piece)
    return Buffer.concat(pieces)
  }

  async *#bytes(row: FileRow): AsyncGenerator<Buffer> {
    for await (const piece of this.#repository.read(row, this.#options)) {
      this.#done.bytes += piece.length
      this.#options.onProgress?.(this.#done.bytes, Math.max(this.#total, this.#done.bytes))
      yield piece
    }
  }
}

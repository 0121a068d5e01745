/** Looks whether what snapshots name is there (and, deep, whether it is what was stored). Changes nothing, unless damaged packs are to be
 *  condemned. */
import { createHash } from 'node:crypto'
import { StoreError } from '../../errors.js'
import { type ChunkIndex, type Holdings, indexOf, problemOf } from './chunk-index.js'
import { putMark } from './marks.js'
import { chunkOf, type PackLine } from './pack.js'
import type { CheckOptions, CheckReport, FileRow, ObjectProblem, SnapshotCheck, SnapshotInfo } from './repository.js'
import { type Shelf, strayLines } from './shelf.js'
import { forEachAtOnce } from './slots.js'
import { packName, type Vault } from './vault.js'

const problemsMax = 1000
const packsAtOnce = 3

export interface CheckSubject {
  readonly shelf: Shelf
  readonly holdings: Holdings
  /** All there are. */
  readonly snapshots: readonly SnapshotInfo[]
  /** Those to check; default all. */
  readonly ids: readonly string[] | undefined
  /** Copies of the repository's own description that are not what was stored. */
  readonly damaged: readonly string[]
}

export async function checkRepository(subject: CheckSubject, options: CheckOptions): Promise<CheckReport> {
  const { holdings, ids, shelf } = subject
  const { vault } = shelf
  if (options.deep && !vault.keyring.canReadContents)
    throw new StoreError('INVALID_OPTION', 'A deep check reads what files contain: this key does not open that.', {
      hint: 'Open the repository with its passphrase, or with an identity of one of its recipients.',
    })
  if (options.condemn) vault.keyring.assertMayWrite()
  const objects: ObjectProblem[] = subject.damaged.map((object) => ({ object, problem: 'it is missing or not what was stored' }))
  objects.push(...holdings.problems)
  const index = indexOf(holdings, true)
  const { unsound, bytesRead, damagedPacks } = options.deep ? await readPacks(vault, index, objects, options) : nothingRead
  const used = new Set<string>()
  const snapshots: SnapshotCheck[] = []
  for (const info of subject.snapshots) {
    const checked = await checkSnapshot(shelf, info, index, unsound, used, options.signal)
    if (!ids || ids.includes(info.id)) snapshots.push(checked)
  }
  reportMissing(vault, holdings, index, used, objects)
  const named = indexOf({ ...holdings, indexes: new Map([...holdings.indexes].filter(([name]) => name !== strayLines)) }, true)
  const unnamed = [...used].filter((name) => !named.find(name) && index.find(name))
  if (unnamed.length > 0)
    objects.push({
      object: 'index/',
      problem: `it names no pack for ${unnamed.length} chunks that are there; the next prune makes it anew`,
    })
  if (options.condemn && damagedPacks.length > 0) await putMark(vault, damagedPacks, 'damaged', options.signal)
  return {
    ok: objects.length === 0 && snapshots.every(({ ok }) => ok),
    deep: options.deep ?? false,
    snapshots,
    objects,
    packs: holdings.packs.size,
    bytesRead,
    unusedBytes: unusedBytesOf(index, used),
  }
}

/** Packs that the index names and that are not there as it says. One that is gone and that nobody needs is no problem: a prune has removed
 *  it from under a backup that had died. */
function reportMissing(vault: Vault, holdings: Holdings, index: ChunkIndex, used: ReadonlySet<string>, objects: ObjectProblem[]): void {
  const reported = new Set<string>()
  for (const { pack, bytes, chunks } of [...holdings.indexes.values()].flat()) {
    const found = holdings.packs.get(pack)
    if (found === bytes || reported.has(pack)) continue
    reported.add(pack)
    if (found === undefined && !chunks.some(([name]) => used.has(name) && !index.find(name))) continue
    const problem = found === undefined ? 'it is missing' : `it has ${found} bytes instead of ${bytes}`
    objects.push({ object: packName(vault, pack), problem })
  }
}

const nothingRead = { unsound: new Map<string, string>(), bytesRead: 0, damagedPacks: [] as readonly string[] }

/** Name of a chunk and pack, to what is wrong with it there. */
type Unsound = ReadonlyMap<string, string>

async function readPacks(vault: Vault, index: ChunkIndex, objects: ObjectProblem[], { signal, onProgress }: CheckOptions) {
  const unsound = new Map<string, string>()
  const lines = [...index.lines()]
  const damagedPacks: string[] = []
  let [packs, bytesRead] = [0, 0]
  await forEachAtOnce(lines, Math.min(packsAtOnce, vault.target.concurrentMax), async (line) => {
    signal?.throwIfAborted()
    const problem = await readPack(vault, line, unsound, signal)
    if (problem) {
      objects.push({ object: packName(vault, line.pack), problem })
      damagedPacks.push(line.pack)
    }
    packs++
    bytesRead += line.bytes
    onProgress?.({ packs, packsTotal: lines.length, bytes: bytesRead })
  })
  return { unsound, bytesRead, damagedPacks }
}

const placeKey = (pack: string, chunk: string): string => `${pack} ${chunk}`

async function readPack(vault: Vault, line: PackLine, unsound: Map<string, string>, signal?: AbortSignal): Promise<string | undefined> {
  const name = packName(vault, line.pack)
  const all = (problem: string) => {
    for (const [chunk] of line.chunks) unsound.set(placeKey(line.pack, chunk), problem)
    return problem
  }
  const object = await vault.target.get(name, { signal })
  if (!object) return all('it is missing')
  const isAsStored = createHash('sha256').update(object).digest('hex') === line.sha256
  let opened: Buffer
  try {
    opened = await vault.keyring.unwrap(object, line.of, name)
  } catch (error) {
    return all(problemOf(name, error).problem)
  }
  let broken = 0
  for (const at of line.chunks) {
    try {
      await chunkOf(vault, line.pack, opened.subarray(at[1], at[1] + at[2]), at)
    } catch (error) {
      unsound.set(placeKey(line.pack, at[0]), problemOf(name, error).problem)
      broken++
    }
  }
  if (broken > 0) return `${broken} of its ${line.chunks.length} chunks are not what was stored`
  return isAsStored ? undefined : 'its bytes are not those that were stored, although every chunk is'
}

async function checkSnapshot(
  shelf: Shelf,
  info: SnapshotInfo,
  index: ChunkIndex,
  unsound: Unsound,
  used: Set<string>,
  signal: AbortSignal | undefined,
): Promise<SnapshotCheck> {
  const { id } = info
  const nothing = { id, ok: false, info: undefined, files: [], filesDamaged: 0 }
  if (info.unreadable !== undefined) return { ...nothing, problem: info.unreadable }
  let rows: readonly FileRow[]
  try {
    const root = await shelf.root(id, signal)
    if (!root) return { ...nothing, info, problem: 'it has been removed meanwhile' }
    for (const [name] of root.listing.chunks) used.add(name)
    rows = (await shelf.manifestOf(root, signal)).files
  } catch (error) {
    return { ...nothing, info, problem: problemOf('its list of files', error).problem }
  }
  const problems: { path: string; problem: string }[] = []
  let filesDamaged = 0
  for (const row of rows) {
    const problem = problemOfFile(row, index, unsound, used)
    if (problem === undefined) continue
    filesDamaged++
    if (problems.length < problemsMax) problems.push({ path: row.path, problem })
  }
  return { id, ok: filesDamaged === 0, info, files: problems, filesDamaged, problem: undefined }
}

function problemOfFile(row: FileRow, index: ChunkIndex, unsound: Unsound, used: Set<string>): string | undefined {
  let at = 0
  let problem: string | undefined
  for (const [name, bytes] of row.chunks) {
    used.add(name)
    let place = index.find(name)
    let why = place ? undefined : 'no pack has them'
    for (; place; place = place.next) {
      why = place.at[3] === bytes ? unsound.get(placeKey(place.line.pack, name)) : 'their length is another'
      if (why === undefined) break
    }
    if (why !== undefined) problem ??= `bytes ${at} to ${at + bytes}: ${why}`
    at += bytes
  }
  return problem
}

function unusedBytesOf(index: ChunkIndex, used: ReadonlySet<string>): number {
  let bytes = 0
  for (const line of index.lines())
    for (const [name, , stored] of line.chunks) if (!used.has(name) || index.find(name)?.line !== line) bytes += stored
  return bytes
}

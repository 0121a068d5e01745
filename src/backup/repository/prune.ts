/** Removes packs that no snapshot needs, while other machines write.
 *
 *  1 give up dead backups        they can no longer commit (running.ts)
 *  2 look                        marks, index, packs; then who is running; then manifests
 *  3 choose                      packs that no snapshot needs, and those of which it needs little: the rest is stored anew
 *  4 mark them                   who begins from now on does not rely on them
 *  5 witness                     which backups were running after the mark stood: these may rely on them
 *  6 sweep, when none of the witnessed runs any more: look again, and remove what still no snapshot needs
 *
 *  With nobody running, all of it in one go; otherwise step 6 is a later run's. A crash at any step leaves marks, which a later run goes by.
 *
 *  Why nothing is lost. Say a snapshot names a chunk that only the removed pack P had. Its backup relied on P, so it saw no mark on P; so
 *  it had put its sign before the mark stood, and was witnessed. The sweep found its sign gone: it had committed, and the sweep, which
 *  read manifests after that, saw that P is needed; or it was given up, and its manifest does not stand. Two prunes at once, each of which
 *  would remove what the other counts on: a marked pack counts for nothing, in step 3 as in step 6, and each looks after its own mark
 *  stands; so one of them sees the other's. A mark is never taken back while its packs stand: whoever once decided to remove one may do
 *  so at any later time. Clocks decide only when a backup is given up, which costs no more than that backup. */
import { StoreError } from '../../errors.js'
import { type Holdings, indexOf } from './chunk-index.js'
import { consolidateIndex } from './index-upkeep.js'
import { type Liveness, readLiveness } from './liveness.js'
import { putMark, removeLoneWitnesses, type Swept, sweepMarks, witnessMarks } from './marks.js'
import type { PackLine } from './pack.js'
import { putIndex } from './packing.js'
import { rewriteChunks } from './repacking.js'
import type { PruneOptions, PruneReport } from './repository.js'
import { giveUpDead, removeOldSigns, runningBackups } from './running.js'
import type { Shelf } from './shelf.js'
import { lineOfStray, strayPacks } from './strays.js'

const staleMsDefault = 24 * 3_600_000
/** Each small pack is a call for whoever restores; more of a kind than that are joined. */
const smallPacksMax = 16

export async function pruneRepository(shelf: Shelf, options: PruneOptions): Promise<PruneReport> {
  const { dryRun = false, staleMs = staleMsDefault, repackBelow = 0.5, signal } = options
  if (!(staleMs >= 0) || !(repackBelow >= 0 && repackBelow <= 1))
    throw new StoreError('INVALID_OPTION', 'staleMs must be 0 or more, and repackBelow from 0 to 1.')
  shelf.vault.keyring.assertMayWrite()
  const live: Liveness = { chunks: new Set(), snapshots: new Set() }
  const givenUp = await giveUpDead(shelf.vault, staleMs, dryRun, signal)
  const looked = await look(shelf, live, signal)
  const plan = await makePlan(shelf, looked, repackBelow, signal)
  const swept = dryRun ? foreseen(looked, plan) : await carryOut(shelf, looked, plan, signal)
  if (!dryRun) await tidy(shelf, live, staleMs, signal)
  const { packs } = dryRun ? looked.holdings : await shelf.look(signal)
  return {
    dryRun,
    packsRemoved: swept.removed,
    packsRepacked: plan.repack.length,
    bytesRemoved: swept.bytesRemoved,
    packsWaiting: swept.waiting,
    running: looked.running,
    givenUp,
    bytesStored: [...packs.values()].reduce((sum, bytes) => sum + bytes, 0),
  }
}

interface Looked {
  readonly holdings: Holdings
  readonly running: readonly string[]
  readonly live: Liveness
}

/** Who is running is asked after the packs, and manifests are read after that: the packs of a backup that is not running any more are
 *  named by a manifest that is read here, or by none. */
async function look(shelf: Shelf, live: Liveness, signal?: AbortSignal): Promise<Looked> {
  const holdings = await shelf.look(signal)
  const running = await runningBackups(shelf.vault, signal)
  await readLiveness(shelf, live, signal)
  return { holdings, running, live }
}

interface Plan {
  /** Packs that no snapshot needs. */
  readonly unused: readonly string[]
  /** Packs of which little is needed. */
  readonly repack: readonly PackLine[]
  /** Chunks to store anew before those go; and those that only marked packs have. */
  readonly rewrite: readonly string[]
  /** Needed, and in no line of the index. */
  readonly restray: readonly PackLine[]
}

async function makePlan(shelf: Shelf, { holdings, running, live }: Looked, repackBelow: number, signal?: AbortSignal): Promise<Plan> {
  const { keyring, packBytes } = shelf.vault
  const good = indexOf(holdings, false)
  const anywhere = indexOf(holdings, true)
  const isReadable = ({ of }: PackLine) => of === 'catalogue' || keyring.canReadContents
  const unused: string[] = []
  const partly: { line: PackLine; share: number; needed: string[] }[] = []
  for (const line of good.lines()) {
    if (running.includes(line.by)) continue // Named by nobody yet.
    const needed = line.chunks.filter(([name]) => live.chunks.has(name) && good.find(name)?.line === line)
    if (needed.length === 0) unused.push(line.pack)
    else if (isReadable(line))
      partly.push({
        line,
        share: needed.reduce((sum, [, , stored]) => sum + stored, 0) / line.bytes,
        needed: needed.map(([name]) => name),
      })
  }
  const repack = partly.filter(({ share }) => share < repackBelow)
  for (const of of ['contents', 'catalogue']) {
    // Those that are written anew anyway count: else up to so many again would be left beside the new one.
    const small = partly.filter((it) => it.line.of === of && it.line.bytes < packBytes / 4)
    if (small.length > smallPacksMax) repack.push(...small.filter((it) => !repack.includes(it)))
  }
  const stranded = [...live.chunks].filter((name) => !good.find(name))
  const lost = stranded.filter((name) => !anywhere.find(name))
  const rescued = stranded.filter((name) => {
    const place = anywhere.find(name)
    return place && isReadable(place.line)
  })
  const strays = running.length > 0 ? { unused: [], restray: [] } : await judgeStrays(shelf, holdings, new Set(lost), signal)
  return {
    unused: [...unused, ...strays.unused],
    repack: repack.map(({ line }) => line),
    rewrite: [...repack.flatMap(({ needed }) => needed), ...rescued],
    restray: strays.restray,
  }
}

/** A pack that the index does not know is needed only for what is nowhere else. */
async function judgeStrays(shelf: Shelf, holdings: Holdings, lost: ReadonlySet<string>, signal?: AbortSignal) {
  const unused: string[] = []
  const restray: PackLine[] = []
  for (const pack of strayPacks(holdings)) {
    if (holdings.condemned.has(pack)) continue
    const line = lost.size === 0 ? undefined : await lineOfStray(shelf.vault, pack, signal)
    if (line?.chunks.some(([name]) => lost.has(name))) restray.push(line)
    else if (lost.size === 0 || line) unused.push(pack)
  }
  return { unused, restray }
}

function foreseen({ holdings, running }: Looked, { unused, repack }: Plan): Swept {
  const packs = [...unused, ...repack.map(({ pack }) => pack)]
  if (running.length > 0) return { removed: 0, bytesRemoved: 0, waiting: packs.length }
  return { removed: packs.length, bytesRemoved: packs.reduce((sum, pack) => sum + (holdings.packs.get(pack) ?? 0), 0), waiting: 0 }
}

async function carryOut(shelf: Shelf, { holdings, live }: Looked, plan: Plan, signal?: AbortSignal): Promise<Swept> {
  const { vault } = shelf
  if (plan.restray.length > 0) await putIndex(vault, plan.restray, signal)
  const failed = await rewriteChunks(shelf, holdings, plan.rewrite, signal)
  const rewritten = plan.repack.filter(({ chunks }) => !chunks.some(([name]) => failed.has(name)))
  const packs = [...plan.unused, ...rewritten.map(({ pack }) => pack)]
  if (packs.length > 0) await putMark(vault, packs, 'unused', signal)
  await witnessMarks(vault, signal)
  const again = await look(shelf, live, signal)
  return sweepMarks(vault, again.holdings, again.running, again.live, signal)
}

async function tidy(shelf: Shelf, live: Liveness, staleMs: number, signal?: AbortSignal): Promise<void> {
  const { vault } = shelf
  await consolidateIndex(vault, await shelf.look(signal), signal)
  await removeLoneWitnesses(vault, signal)
  await removeOldSigns(vault, live.snapshots, signal)
  await vault.target.sweep(Math.max(staleMs, 60_000))
}

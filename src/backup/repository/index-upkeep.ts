/** Puts many index objects into few, without the packs that are gone. The new ones stand before the old ones go. */
import type { Holdings } from './chunk-index.js'
import type { PackLine } from './pack.js'
import { putIndex } from './packing.js'
import { strayPacks } from './strays.js'
import { indexPattern, type Vault } from './vault.js'

const chunksPerObjectMax = 50_000
const objectsMax = 32

/** @param holdings  the index was read before the packs were listed: a pack that a line names and that is not there has been removed. */
export async function consolidateIndex(vault: Vault, holdings: Holdings, signal?: AbortSignal): Promise<void> {
  const lines = new Map<string, PackLine>()
  for (const line of [...holdings.indexes.values()].flat()) if (holdings.packs.has(line.pack)) lines.set(line.pack, line)
  const named = [...holdings.indexes.values()].reduce((sum, of) => sum + of.length, 0)
  // A damaged one goes once all packs are known from elsewhere.
  const damaged =
    strayPacks(holdings).length === 0 ? holdings.problems.map(({ object }) => object).filter((it) => indexPattern.test(it)) : []
  if (named === lines.size && holdings.indexes.size <= objectsMax && damaged.length === 0) return
  if (named > lines.size || holdings.indexes.size > objectsMax) {
    for (const group of grouped([...lines.values()])) await putIndex(vault, group, signal)
    for (const name of holdings.indexes.keys()) await vault.target.delete(name, { signal })
  }
  for (const name of damaged) await vault.target.delete(name, { signal })
}

function grouped(lines: readonly PackLine[]): PackLine[][] {
  const groups: PackLine[][] = []
  let chunks = Number.POSITIVE_INFINITY
  for (const line of lines) {
    if (chunks + line.chunks.length > chunksPerObjectMax) {
      groups.push([])
      chunks = 0
    }
    groups.at(-1)!.push(line)
    chunks += line.chunks.length
  }
  return groups
}

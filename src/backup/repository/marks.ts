/** Marks on packs that are to go, who was running when they were made, and the removal. See prune.ts for why it is safe. */
import { z } from 'zod'
import { type Holdings, indexOf, type Mark } from './chunk-index.js'
import type { Liveness } from './liveness.js'
import { runningBackups } from './running.js'
import { forEachAtOnce } from './slots.js'
import { freshName, markName, markPattern, openText, packName, sealText, type Vault, witnessName, witnessPattern } from './vault.js'

const witnessSchema = z.object({ format: z.literal(1), mark: z.string(), running: z.array(z.string().max(64)) })

export async function putMark(vault: Vault, packs: readonly string[], why: Mark['why'], signal?: AbortSignal): Promise<void> {
  const mark: Mark = { format: 1, mark: freshName(), time: Date.now(), why, packs: [...packs] }
  await vault.target.put(markName(vault, mark.mark), await sealText(vault, [JSON.stringify(mark)]), { signal })
}

/** Who is running, for every mark that nobody has asked this for: asked after the mark stood, for we have seen it. */
export async function witnessMarks(vault: Vault, signal?: AbortSignal): Promise<void> {
  const found = (await vault.target.list('condemned/', { signal })).map(({ name }) => name)
  const marks = found.flatMap((name) => markPattern.exec(name)?.[1] ?? [])
  const unwitnessed = marks.filter((mark) => !found.includes(witnessName(vault, mark)))
  if (unwitnessed.length === 0) return
  const running = await runningBackups(vault, signal)
  for (const mark of unwitnessed) {
    const witness = await sealText(vault, [JSON.stringify({ format: 1, mark, running })])
    await vault.target.put(witnessName(vault, mark), witness, { ifAbsent: true, signal })
  }
}

/** undefined: nobody has asked yet, or what they found cannot be read; both are mended by asking (again). */
async function witnessed(vault: Vault, mark: string, signal?: AbortSignal): Promise<readonly string[] | undefined> {
  const name = witnessName(vault, mark)
  const bytes = await vault.target.get(name, { signal })
  if (!bytes) return undefined
  try {
    const witness = witnessSchema.parse(JSON.parse((await openText(vault, bytes, name))[0] ?? ''))
    return witness.mark === mark ? witness.running : undefined
  } catch {
    await vault.target.delete(name, { signal })
    return undefined
  }
}

export interface Swept {
  readonly removed: number
  readonly bytesRemoved: number
  readonly waiting: number
}

/** @param running  asked after `holdings` were looked at, and before `live` was read. */
export async function sweepMarks(
  vault: Vault,
  holdings: Holdings,
  running: readonly string[],
  { chunks: live }: Liveness,
  signal?: AbortSignal,
): Promise<Swept> {
  const good = indexOf(holdings, false)
  const lines = new Map([...holdings.indexes.values()].flat().map((line) => [line.pack, line]))
  const isAnythingElsewhere = [...live].every((name) => good.find(name))
  const isNeeded = (pack: string) => {
    const line = lines.get(pack)
    return line ? line.chunks.some(([name]) => live.has(name) && !good.find(name)) : !isAnythingElsewhere
  }
  const swept = { removed: 0, bytesRemoved: 0, waiting: 0 }
  for (const { mark, packs } of holdings.marks) {
    const there = packs.filter((pack) => holdings.packs.has(pack))
    const asked = await witnessed(vault, mark, signal)
    const mayGo = asked !== undefined && !asked.some((id) => running.includes(id))
    const going = mayGo ? there.filter((pack) => !isNeeded(pack)) : []
    await forEachAtOnce(going, vault.target.concurrentMax, async (pack) => {
      await vault.target.delete(packName(vault, pack), { signal })
      swept.removed++
      swept.bytesRemoved += holdings.packs.get(pack) ?? 0
    })
    swept.waiting += there.length - going.length
    if (mayGo && going.length === there.length) {
      await vault.target.delete(markName(vault, mark), { signal })
      await vault.target.delete(witnessName(vault, mark), { signal })
    }
  }
  return swept
}

/** What is left of marks whose removal was cut short. */
export async function removeLoneWitnesses(vault: Vault, signal?: AbortSignal): Promise<void> {
  const found = (await vault.target.list('condemned/', { signal })).map(({ name }) => name)
  for (const name of found) {
    const mark = witnessPattern.exec(name)?.[1]
    if (mark && !found.includes(markName(vault, mark))) await vault.target.delete(name, { signal })
  }
}

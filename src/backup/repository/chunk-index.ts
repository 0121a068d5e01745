/** Where every chunk is. Read from the target as it stands: nothing about it is remembered between runs, so nothing can be stale. */

import { z } from 'zod'
import { StoreError } from '../../errors.js'
import { type ChunkPlace, type PackLine, packLineSchema } from './pack.js'
import type { ObjectProblem } from './repository.js'
import { forEachAtOnce } from './slots.js'
import { indexPattern, markPattern, mismatch, openText, packPattern, type Vault } from './vault.js'

export interface Place {
  readonly line: PackLine
  readonly at: ChunkPlace
  /** The same chunk in another pack. */
  readonly next: Place | undefined
}

export class ChunkIndex {
  readonly #places = new Map<string, Place>()
  readonly #lines = new Map<string, PackLine>()

  /** Those added first are found first. */
  add(line: PackLine): void {
    if (this.#lines.has(line.pack)) return
    this.#lines.set(line.pack, line)
    for (const at of line.chunks) {
      const known = this.#places.get(at[0])
      this.#places.set(at[0], known ? behind(known, { line, at, next: undefined }) : { line, at, next: undefined })
    }
  }

  find(name: string): Place | undefined {
    return this.#places.get(name)
  }

  line(pack: string): PackLine | undefined {
    return this.#lines.get(pack)
  }

  lines(): IterableIterator<PackLine> {
    return this.#lines.values()
  }

  get chunks(): number {
    return this.#places.size
  }
}

function behind(first: Place, added: Place): Place {
  return { ...first, next: first.next ? behind(first.next, added) : added }
}

/** Packs that no new snapshot may rely on, and that a prune removes once nobody can. */
const markSchema = z.object({
  format: z.literal(1),
  mark: z.string(),
  time: z.number(),
  why: z.enum(['unused', 'damaged']),
  packs: z.array(z.string().regex(/^[0-9a-f]{32}$/)),
})
export type Mark = z.infer<typeof markSchema>

/** One look at what the target holds. */
export interface Holdings {
  readonly marks: readonly Mark[]
  readonly condemned: ReadonlySet<string>
  /** Index objects read, by name. */
  readonly indexes: ReadonlyMap<string, readonly PackLine[]>
  /** Bytes of every pack that is there. */
  readonly packs: ReadonlyMap<string, number>
  readonly problems: readonly ObjectProblem[]
}

/** Index objects never change, so those read once are not read again. */
export type IndexMemory = Map<string, readonly PackLine[]>

/** Marks before packs: a pack goes before its mark does, so whoever does not see the mark any more does not see the pack either. Index
 *  before packs: a pack stands before the index names it, so one that is named and not there has been removed. */
export async function lookAround(vault: Vault, memory: IndexMemory, signal?: AbortSignal): Promise<Holdings> {
  const problems: ObjectProblem[] = []
  const marks = await readMarks(vault, problems, signal)
  const indexes = await readIndexes(vault, memory, problems, signal)
  const packs = new Map<string, number>()
  for (const { name, bytes } of await vault.target.list('packs/', { signal })) {
    const pack = packPattern.exec(name)?.[2]
    if (pack) packs.set(pack, bytes)
  }
  return { marks, condemned: new Set(marks.flatMap((mark) => mark.packs)), indexes, packs, problems }
}

async function readMarks(vault: Vault, problems: ObjectProblem[], signal?: AbortSignal): Promise<Mark[]> {
  const marks: Mark[] = []
  const found = (await vault.target.list('condemned/', { signal })).filter(({ name }) => markPattern.test(name))
  await forEachAtOnce(found, vault.target.concurrentMax, async ({ name }) => {
    const bytes = await vault.target.get(name, { signal })
    if (!bytes) return // Its packs are gone, and then it went, too.
    try {
      const mark = markSchema.parse(JSON.parse((await openText(vault, bytes, name))[0] ?? ''))
      if (mark.mark !== markPattern.exec(name)![1]) throw mismatch(vault, name, 'it is the mark of another name')
      marks.push(mark)
    } catch (error) {
      problems.push(problemOf(name, error))
    }
  })
  return marks
}

const lookingMax = 5

async function readIndexes(
  vault: Vault,
  memory: IndexMemory,
  problems: ObjectProblem[],
  signal?: AbortSignal,
): Promise<Map<string, readonly PackLine[]>> {
  for (let looks = 1; ; looks++) {
    const found = (await vault.target.list('index/', { signal })).filter(({ name }) => indexPattern.test(name))
    const indexes = new Map<string, readonly PackLine[]>()
    let isOvertaken = false
    const wrong: ObjectProblem[] = []
    await forEachAtOnce(found, vault.target.concurrentMax, async ({ name }) => {
      const known = memory.get(name)
      if (known) return void indexes.set(name, known)
      const bytes = await vault.target.get(name, { signal })
      if (!bytes) {
        isOvertaken = true // A prune has put several into one since we listed them.
        return
      }
      try {
        const lines = (await openText(vault, bytes, name)).map((line) => packLineSchema.parse(JSON.parse(line)))
        indexes.set(name, lines)
        memory.set(name, lines)
      } catch (error) {
        wrong.push(problemOf(name, error))
      }
    })
    if (!isOvertaken || looks === lookingMax) {
      for (const name of memory.keys()) if (!indexes.has(name)) memory.delete(name)
      problems.push(...wrong)
      return indexes
    }
  }
}

/** What an object that cannot be read says of itself; everything else is thrown on. */
export function problemOf(object: string, error: unknown): ObjectProblem {
  const isDamage = error instanceof z.ZodError || error instanceof SyntaxError || (error instanceof StoreError && error.kind === 'damaged')
  if (!isDamage) throw error
  if (!(error instanceof StoreError)) return { object, problem: 'it is not of the form that it should have' }
  return { object, problem: String(error.details.why ?? error.message) }
}

/** @param withCondemned  for reading: better from there than not at all. */
export function indexOf(holdings: Holdings, withCondemned: boolean): ChunkIndex {
  const index = new ChunkIndex()
  const lines = [...holdings.indexes.values()].flat().filter(({ pack, bytes }) => holdings.packs.get(pack) === bytes)
  for (const line of lines) if (!holdings.condemned.has(line.pack)) index.add(line)
  if (withCondemned) for (const line of lines) if (holdings.condemned.has(line.pack)) index.add(line)
  return index
}

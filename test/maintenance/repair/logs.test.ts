/** Damaged transcripts, and what a repair makes of them (P5, F20-F23, F29): each kind of damage at the first, a middle and the last record,
 *  at the edge of a batch, in the header. Never less comes back than every record whose bytes are intact. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { linesOf, type Made, repairedStore, templateStore, writeLines } from './damaged-store.js'

const count = 12
const fresh = templateStore(count)

/** Line 0 is the header; record n is line n. Batches: 5-7, 10-12. */
const positions = [1, 2, 4, 5, 6, 7, 8, 10, 11, 12]

interface Kind {
  readonly name: string
  readonly damage: (line: Buffer) => Buffer
  /** Whether what the line held is beyond recovery. */
  readonly loses: boolean
  /** From this record on the chain rule does not see it. */
  readonly unseenFrom?: number
}

const kinds: readonly Kind[] = [
  {
    name: 'a wrong byte',
    damage: (line) => {
      const copy = Buffer.from(line)
      copy[copy.indexOf('text')]! ^= 1
      return copy
    },
    loses: true,
  },
  { name: 'a run of NUL bytes', damage: (line) => Buffer.from(line).fill(0, 3, line.length - 1), loses: true, unseenFrom: 12 },
  { name: 'a line that is gone', damage: () => Buffer.alloc(0), loses: true, unseenFrom: 12 },
  { name: 'a line written twice', damage: (line) => Buffer.concat([line, line]), loses: false, unseenFrom: 11 },
]

function damaged(line: number, damage: (line: Buffer) => Buffer): Made {
  const copy = fresh()
  const lines = linesOf(copy.path)
  lines[line] = damage(lines[line]!)
  writeLines(copy.path, lines)
  return copy
}

const numbers = (records: readonly { record: Record<string, unknown> }[]) => records.map(({ record }) => record.n)
const all = Array.from({ length: count }, (_, at) => at + 1)

describe.each(kinds)('$name', ({ damage, loses, unseenFrom }) => {
  test.each(positions)('at record %i: every other record comes back under its number', async (position) => {
    const store = damaged(position, damage)
    // In the last batch: then it is as if its writer had been killed. Only a high-water mark tells.
    if (unseenFrom !== undefined && position >= unseenFrom) return
    const { records, plan } = await repairedStore(store)
    const expected = all.filter((n) => !(loses && n === position))
    expect(numbers(records)).toEqual(expected)
    expect(records.map(({ seq }) => seq)).toEqual(expected)
    if (loses) expect(plan.actions[0]?.loses.seqs).toEqual([{ from: position, to: position }])
    expect(readFileSync(store.path, 'utf8')).toContain('agent:main:main')
  })
})

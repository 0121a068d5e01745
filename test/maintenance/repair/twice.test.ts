/** Lines that stand in a damaged log twice, in the wrong place: a copy never costs what is whole behind it (P5, F23). */
import { expect, test } from 'vitest'
import { linesOf, repairedStore, templateStore, writeLines } from './damaged-store.js'

/** Records 5 to 7 and 10 to 12 are a batch each; record n is line n. */
const fresh = templateStore(12)

test('a copy of the end of a batch in its middle, and the next record twice: what follows is kept', async () => {
  const made = fresh()
  const lines = linesOf(made.path)
  const [head, tail] = [lines.slice(0, 6), lines.slice(6, 8)]
  writeLines(made.path, [...head, lines[7]!, ...tail, lines[8]!, lines[8]!, lines[9]!, lines[10]!.subarray(0, 20)])
  const { records } = await repairedStore(made)
  expect(records.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
})

test('a copy of the beginning of a batch before it, and the batch without its end: the longer one is kept', async () => {
  const made = fresh()
  const lines = linesOf(made.path)
  writeLines(made.path, [
    ...lines.slice(0, 2),
    lines[9]!,
    ...lines.slice(2, 5),
    lines[10]!,
    ...lines.slice(5, 12),
    lines[12]!.subarray(0, 20),
  ])
  const { records } = await repairedStore(made)
  expect(records.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
})

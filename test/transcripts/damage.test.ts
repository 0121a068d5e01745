/** A damaged transcript is loud about itself and quiet about the others; wear that killed writers leave is not damage (P5, P1). */
import { cpSync, existsSync, readFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { StoreOptions } from '../../src/types.js'
import { opened, recordsOf, refusal, storeDirectory } from '../metadata/store-directory.js'

const count = 12
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => ({ n: from + at }))

/** Two sessions; `path` is the transcript of the first, with a header and 12 records. */
async function stocked(options?: StoreOptions) {
  const directory = storeDirectory()
  const store = await opened(directory, options)
  for (let n = 1; n <= count; n++) await store.session('hurt').append({ n })
  await store.session('well').append({ n: 1 })
  const { sessionId } = (await store.get('hurt'))!
  const file = `transcripts/${sessionId}.jsonl`
  return { directory, store, file, path: join(directory, file) }
}

/** The store as its process would leave it that is killed now: nothing has been closed. */
function killedIn(directory: string, file: string) {
  const killed = storeDirectory()
  cpSync(directory, killed, { recursive: true })
  return { directory: killed, path: join(killed, file) }
}

function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = []
  for (let start = 0, end = bytes.indexOf(0x0a); end >= 0; start = end + 1, end = bytes.indexOf(0x0a, start))
    lines.push(bytes.subarray(start, end + 1))
  return lines
}

type Edit = (lines: Buffer[]) => Buffer[]
const flipped = (line: Buffer, at: number) => {
  const copy = Buffer.from(line)
  copy[at]! ^= 1
  return copy
}
const zeroed = (line: Buffer) => Buffer.concat([Buffer.alloc(line.length - 1), Buffer.from('\n')])

/** Line 0 is the header, line n holds record n. */
const damages: [string, Edit, { seq: number; line: number }][] = [
  ['a flipped bit in the middle', (lines) => lines.with(5, flipped(lines[5]!, 3)), { seq: 5, line: 5 }],
  ['a chunk missing that leaves every line whole (F29)', (lines) => lines.toSpliced(4, 3), { seq: 4, line: 4 }],
  ['one line missing (F29)', (lines) => lines.toSpliced(7, 1), { seq: 7, line: 7 }],
  [
    'a run of NULs in place of lines (F23)',
    (lines) => lines.map((line, at) => (at === 6 || at === 7 ? zeroed(line) : line)),
    { seq: 6, line: 6 },
  ],
  ['the header missing (F21)', (lines) => lines.slice(1), { seq: 0, line: 0 }],
  ['the header altered (F21)', (lines) => lines.with(0, flipped(lines[0]!, 30)), { seq: 0, line: 0 }],
  ['the header of NULs (F21)', (lines) => lines.with(0, zeroed(lines[0]!)), { seq: 0, line: 0 }],
  ['two lines welded by a lost newline', (lines) => lines.with(5, lines[5]!.subarray(0, -1)), { seq: 5, line: 5 }],
  [
    'a line twice as long as it was',
    (lines) => lines.with(5, Buffer.concat([lines[5]!.subarray(0, 5), lines[5]!.subarray(2)])),
    { seq: 5, line: 5 },
  ],
]

describe.each(['power', 'process'] as const)('durability %s', (durability) => {
  test.each(damages)(
    '%s: LOG_CORRUPT for reading and writing, naming file, byte and seq; all else goes on',
    async (_, edit, { seq, line }) => {
      // F21, F23, F29, P5
      const { directory, store, file, path } = await stocked({ durability })
      const lines = linesOf(readFileSync(path))
      await new Promise((resolve) => setTimeout(resolve, 10))
      writeFileSync(path, Buffer.concat(edit(lines)))
      const before = readFileSync(path)
      const fresh = await opened(directory, { durability })
      for (const handle of [fresh, store]) {
        const session = handle.session('hurt')
        const seen: unknown[] = []
        const reading = refusal(async () => {
          for await (const { record } of session.read()) seen.push(record)
        })
        const error = await reading
        expect(error).toMatchObject({ code: 'LOG_CORRUPT', kind: 'damaged', effect: 'none', details: { file, seq } })
        expect(error.message).toContain(`${file} is damaged at byte ${String(error.details.byte)}, seq ${seq}`)
        // Where the damage shows: at the line itself, or where the log goes on behind it.
        expect(Number(error.details.byte)).toBeGreaterThanOrEqual(Buffer.concat(lines.slice(0, line)).length)
        expect(seen).toEqual(numbers(1, line - 1))
        expect(await refusal(() => session.tail(50))).toMatchObject({ code: 'LOG_CORRUPT' })
      }
      expect(await refusal(() => fresh.session('hurt').append({ n: 99 }))).toMatchObject({ code: 'LOG_CORRUPT', effect: 'none' })
      expect((await fresh.verify()).damage).toMatchObject([{ file, code: 'LOG_CORRUPT', seq }])
      expect(readFileSync(path)).toEqual(before)
      for (const handle of [fresh, store]) {
        await handle.session('well').append({ n: 2 })
        await handle.update('hurt', (entry) => ({ ...entry, label: 'look at me' }))
      }
      expect(await recordsOf(fresh.session('well').read())).toHaveLength(3)
    },
  )
})

/** Found: while nobody else has had the lock (the commit path passes `untouched`), a writer trusts what it remembers and looks at neither
 *  inode, size nor change time before it writes. The landing check then compares the size alone, so an edit that keeps the size goes
 *  unnoticed: the append is acknowledged, and no read can show it. An edit that changes the size is noticed only after the write: the
 *  refusal says effect none, with the batch in the file, where it comes to life when the damage is mended. */
describe('a handle that wrote last and goes on', () => {
  async function appended(edit: Edit) {
    const { store, path } = await stocked()
    const lines = linesOf(readFileSync(path))
    await new Promise((resolve) => setTimeout(resolve, 10))
    writeFileSync(path, Buffer.concat(edit(lines)))
    const before = readFileSync(path)
    const outcome = await store
      .session('hurt')
      .append({ n: 99 })
      .then(
        () => 'acknowledged',
        (error: { code: string; effect: string }) => `${error.code} ${error.effect}`,
      )
    return { outcome, wrote: readFileSync(path).length - before.length }
  }
  const sameSize = damages.filter(([what]) => /bit|NULs|altered|one line/.test(what))
  const otherSize = damages.filter(([what]) => /chunk|header missing|welded/.test(what))

  test.each(sameSize)('%s: refuses, and acknowledges nothing that cannot be read', async (_, edit) => {
    // P1, P4, F15
    expect((await appended(edit)).outcome).toBe('LOG_CORRUPT none')
  })

  test.each(otherSize)('%s: what it says of the effect is so', async (_, edit) => {
    // P2
    const { outcome, wrote } = await appended(edit)
    expect(outcome === 'LOG_CORRUPT none' ? wrote : 0).toBe(0)
  })
})

/** A handle that opens a transcript to append reads its tail, not the file (F45). What is damaged in front of the tail it cannot know,
 *  short of reading everything; but with a transcript within one window a header that is gone is never begun afresh. */
test.each(damages.filter(([what]) => what.includes('header')))(
  '%s: a fresh handle that appends first does not start the file afresh',
  async (_, edit) => {
    // F21
    const { directory, path } = await stocked()
    const lines = linesOf(readFileSync(path))
    writeFileSync(path, Buffer.concat(edit(lines)))
    const before = readFileSync(path)
    const fresh = await opened(directory)
    await fresh
      .session('hurt')
      .append({ n: 99 })
      .catch(() => {})
    const after = readFileSync(path)
    expect(after.subarray(0, before.length)).toEqual(before)
    expect(await refusal(() => recordsOf(fresh.session('hurt').read()))).toMatchObject({ code: 'LOG_CORRUPT' })
  },
)

test('a transcript that vanished while in use is not made anew', async () => {
  // F21, F29
  const { store, path } = await stocked()
  const kept = readFileSync(path)
  renameSync(path, `${path}.elsewhere`)
  const error = await refusal(() => store.session('hurt').append({ n: 99 }))
  expect(['LOG_CORRUPT', 'LOCK_LOST']).toContain(error.code)
  expect(existsSync(path)).toBe(false)
  expect(readFileSync(`${path}.elsewhere`).subarray(0, kept.length)).toEqual(kept)
})

test('an append to a transcript that has vanished, refused with effect none, is not there when the file is put back', async () => {
  // P2: the same cause as above; the batch is in the file that was moved away.
  const { directory, store, path } = await stocked()
  renameSync(path, `${path}.elsewhere`)
  const error = await refusal(() => store.session('hurt').append({ n: 99 }))
  renameSync(`${path}.elsewhere`, path)
  const records = await recordsOf((await opened(directory)).session('hurt').read())
  expect(error.effect === 'none' ? records : numbers(1, count)).toEqual(numbers(1, count))
})

test('a torn last line does not swallow the next append, at whatever byte it is torn', async () => {
  // F20
  const { directory, file, path } = await stocked({ durability: 'process' })
  const whole = readFileSync(path)
  const lines = linesOf(whole)
  const last = lines.at(-1)!
  for (let kept = 0; kept < last.length; kept++) {
    const { directory: killed, path } = killedIn(directory, file)
    writeFileSync(path, whole.subarray(0, whole.length - last.length + kept))
    const again = await opened(killed, { durability: 'process' })
    const session = again.session('hurt')
    expect(await recordsOf(session.read()), `${kept} bytes`).toEqual(numbers(1, count - 1))
    await session.append({ n: 'after' })
    const expected = [...numbers(1, count - 1), { n: 'after' }]
    expect(await recordsOf(session.read()), `${kept} bytes`).toEqual(expected)
    expect(readFileSync(path).subarray(0, whole.length - last.length + kept), 'nothing is truncated').toEqual(
      whole.subarray(0, whole.length - last.length + kept),
    )
    await again.close()
  }
})

test('a torn first line is an empty session, and stays in the file', async () => {
  // F20, F21
  const { directory, file, path } = await stocked({ durability: 'process' })
  const header = linesOf(readFileSync(path))[0]!
  for (const kept of [0, 1, 20, header.length - 1]) {
    const { directory: killed, path } = killedIn(directory, file)
    writeFileSync(path, header.subarray(0, kept))
    const again = await opened(killed, { durability: 'process' })
    expect(await recordsOf(again.session('hurt').read())).toEqual([])
    await again.session('hurt').append({ n: 1 })
    expect(await recordsOf(again.session('hurt').read())).toEqual([{ n: 1 }])
    await again.close()
  }
})

test('a line welded to a killed writer’s beginning is void with it, and the append behind it is in', async () => {
  // F20
  const { directory, store, path } = await stocked({ durability: 'process' })
  const whole = readFileSync(path)
  const torn = Buffer.from('{"n":13,"text":"cut of')
  writeFileSync(path, Buffer.concat([whole, torn]))
  await store.session('hurt').append({ n: 13 })
  const again = await opened(directory)
  expect(await recordsOf(again.session('hurt').read())).toEqual(numbers(1, 13))
  expect((await again.verify()).damage).toEqual([])
})

test('of a transcript cut at a line’s end the handle that knew it says so; a fresh one cannot know', async () => {
  // F29: nothing after the cut is there to name what is missing; what was appended last is lost to whoever cut it off.
  const { directory, store, file, path } = await stocked()
  const kept = Buffer.concat(linesOf(readFileSync(path)).slice(0, 9)).length
  truncateSync(path, kept)
  expect(await recordsOf((await opened(directory)).session('hurt').read())).toEqual(numbers(1, 8))
  expect(await refusal(() => store.session('hurt').append({ n: 13 }))).toMatchObject({ code: 'LOG_CORRUPT', details: { file } })
})

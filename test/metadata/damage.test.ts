/** Corrupt is not missing, and neither is empty: damaged metadata is refused, by who opens and by who has it open, and left as it is (P5). */
import { copyFileSync, readFileSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { StoreError } from '../../src/errors.js'
import { SessionStore } from '../../src/store.js'
import { bytesOf, dataIn, entriesOf, opened, recordsOf, refusal, storeDirectory } from './store-directory.js'

const snapshot = 'sessions.json'
const journal = 'sessions.journal.jsonl'

/** Twenty entries in the snapshot, five commits in the journal, and three handles that have seen them all. */
async function stocked() {
  const directory = storeDirectory()
  const writer = await opened(directory)
  await writer.withStoreLock((sessions) => {
    for (let n = 0; n < 20; n++) sessions.set(`k${n}`, { model: `model-${n}` })
  })
  await writer.checkpoint()
  for (let n = 0; n < 5; n++) await writer.update(`k${n}`, (entry) => ({ ...entry, model: `later-${n}` }))
  const running = [await opened(directory), await opened(directory), writer]
  for (const store of running) expect(await entriesOf(store.entries())).toHaveLength(20)
  return { directory, running }
}

/** A handle that only looks is opened all the same, tells at once, and refuses what needs the damaged part. */
async function lookedAt(directory: string): Promise<StoreError> {
  const looking = await opened(directory, { readOnly: true })
  const { damage } = looking
  const refusals = await Promise.all([
    refusal(() => looking.get('k7')),
    refusal(() => entriesOf(looking.entries())),
    refusal(() => recordsOf(looking.session('k7').read())),
    refusal(() => looking.session('k7').tail(1)),
    refusal(() => looking.turns({ key: 'k7' })),
  ])
  for (const { code } of refusals) expect(code).toBe(damage?.code)
  expect((await looking.verify()).ok).toBe(false)
  expect(await looking.locks()).toEqual(expect.arrayContaining([expect.objectContaining({ lock: 'metadata' })]))
  expect(looking.stats()).toMatchObject({ commits: 0 })
  expect(await looking.turns()).toEqual([])
  expect(await refusal(() => looking.update('k7', () => ({})))).toMatchObject({ code: 'INVALID_OPTION' })
  await looking.close()
  return damage!
}

/** Damages a fresh store, and has it refused by everybody, with its bytes as the damage left them. */
async function assertRefused(what: string, damage: (directory: string) => void): Promise<void> {
  const { directory, running } = await stocked()
  // The clock that stamps a change ticks every few milliseconds.
  await new Promise((resolve) => setTimeout(resolve, 20))
  damage(directory)
  const before = dataIn(directory)
  const [reading, walking, writing] = running
  const refusals = await Promise.all([
    refusal(() => SessionStore.open(directory)),
    lookedAt(directory),
    refusal(() => reading!.get('k7')),
    refusal(() => entriesOf(walking!.entries())),
    refusal(() => writing!.update('k7', () => ({ model: 'lost' }))),
    refusal(() => writing!.withStoreLock((sessions) => sessions.size)),
  ])
  for (const error of refusals) {
    expect(['STORE_CORRUPT', 'LOG_CORRUPT'], what).toContain(error.code)
    expect(error, what).toMatchObject({ kind: 'damaged', effect: 'none', retryable: false })
    expect([snapshot, journal], what).toContain(error.details.file)
    expect(error.hint, what).toContain('Nothing was written')
  }
  await Promise.all(running.map((store) => store.close()))
  expect(dataIn(directory), what).toEqual(before)
}

const rewritten = (file: string, edit: (bytes: Buffer) => Buffer) => (directory: string) => {
  const path = join(directory, file)
  writeFileSync(path, edit(readFileSync(path)))
}

/** The same bytes but for a few, with the old times put back. */
function editInPlace(directory: string, file: string, from: string, to: string): void {
  const path = join(directory, file)
  const { atime, mtime, size, ino } = statSync(path)
  const bytes = readFileSync(path)
  bytes.write(to, bytes.indexOf(from), 'latin1')
  writeFileSync(path, bytes)
  utimesSync(path, atime, mtime)
  const now = statSync(path)
  expect([now.size, now.ino, Math.round(now.mtimeMs / 1_000)]).toEqual([size, ino, Math.round(mtime.getTime() / 1_000)])
}

test('a damaged or missing snapshot is refused and never read as an empty store', async () => {
  // F19, F15
  const damages: [string, (directory: string) => void][] = [
    ['edited in place, with the same size and times', (directory) => editInPlace(directory, snapshot, 'model-7', 'model-8')],
    ['truncated', rewritten(snapshot, (bytes) => bytes.subarray(0, bytes.length / 2))],
    ['without its last byte', rewritten(snapshot, (bytes) => bytes.subarray(0, -1))],
    ['empty', rewritten(snapshot, () => Buffer.alloc(0))],
    ['of NULs', rewritten(snapshot, (bytes) => Buffer.alloc(bytes.length))],
    ['[]', rewritten(snapshot, () => Buffer.from('[]'))],
    ['{}', rewritten(snapshot, () => Buffer.from('{}'))],
    ['as of an empty store', rewritten(snapshot, () => Buffer.from('{\n}\n'))],
    ['formatted by an editor', rewritten(snapshot, (bytes) => Buffer.from(JSON.stringify(JSON.parse(bytes.toString()), null, 2)))],
    ['deleted', (directory) => rmSync(join(directory, snapshot))],
    ['of the generation before', (directory) => copyFileSync(join(directory, 'sessions.prev.json'), join(directory, snapshot))],
  ]
  await Promise.all(damages.map(([what, damage]) => assertRefused(what, damage)))
})

test('a missing or emptied journal is refused, and not begun afresh', async () => {
  // F19
  const damages: [string, (directory: string) => void][] = [
    ['deleted', (directory) => rmSync(join(directory, journal))],
    ['empty', rewritten(journal, () => Buffer.alloc(0))],
    ['of NULs', rewritten(journal, (bytes) => Buffer.alloc(bytes.length))],
    ['truncated in its header', rewritten(journal, (bytes) => bytes.subarray(0, 40))],
    ['without its header', rewritten(journal, (bytes) => bytes.subarray(bytes.indexOf('\n') + 1))],
    [
      'both deleted',
      (directory) => {
        rmSync(join(directory, journal))
        rmSync(join(directory, snapshot))
      },
    ],
  ]
  await Promise.all(damages.map(([what, damage]) => assertRefused(what, damage)))
})

/** Where each line begins and ends. */
function linesOf(bytes: Buffer): { start: number; end: number }[] {
  const lines: { start: number; end: number }[] = []
  for (let start = 0, end = bytes.indexOf(0x0a); end >= 0; start = end + 1, end = bytes.indexOf(0x0a, start)) lines.push({ start, end })
  return lines
}

test('a flipped bit in any line of the journal is refused, wherever it is in the line', async () => {
  // F19, F29
  const { directory } = await stocked()
  const count = linesOf(bytesOf(directory, journal)!).length
  expect(count).toBe(6)
  const places = [0.05, 0.5, 0.95]
  const flips = Array.from({ length: count }, (_, line) => places.map((place) => [line, place] as const)).flat()
  await Promise.all(
    flips.map(([line, place]) =>
      assertRefused(
        `line ${line} at ${place}`,
        rewritten(journal, (bytes) => {
          const { start, end } = linesOf(bytes)[line]!
          bytes[start + Math.floor((end - start) * place)]! ^= 1
          return bytes
        }),
      ),
    ),
  )
})

describe('a journal that has lost lines', () => {
  test('in its middle is refused, though every line that is left is whole', async () => {
    // F29
    const without = (line: number) =>
      rewritten(journal, (bytes) => {
        const { start, end } = linesOf(bytes)[line]!
        return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end + 1)])
      })
    await Promise.all([0, 1, 2, 3, 4].map((line) => assertRefused(`without line ${line}`, without(line))))
  })

  /** What was acknowledged last is named by nobody after it: a fresh handle cannot know that the file was longer, and shows the state of
   *  then, which is a prefix and never an empty store. Whoever had it open knows. */
  test.each([1, 2, 3, 4, 5])('at its end, after line %i: refused by who knew it; to others the state of then', async (kept) => {
    // F19
    const { directory, running } = await stocked()
    const cut = linesOf(bytesOf(directory, journal)!)[kept - 1]!.end + 1
    truncateSync(join(directory, journal), cut)
    const before = dataIn(directory)
    for (const store of running) {
      expect(await refusal(() => store.get('k1'))).toMatchObject({ code: 'LOG_CORRUPT', details: { file: journal, byte: cut } })
      expect(await refusal(() => store.update('k1', () => ({})))).toMatchObject({ code: 'LOG_CORRUPT', effect: 'none' })
      await store.close()
    }
    expect(dataIn(directory)).toEqual(before)
    const fresh = await opened(directory, { readOnly: true })
    const models = (await entriesOf(fresh.entries())).map(([, { model }]) => model)
    expect(models).toHaveLength(20)
    expect(models.filter((model) => String(model).startsWith('later'))).toHaveLength(kept - 1)
  })
})

test('transcripts of a store whose metadata is damaged are not made anew either', async () => {
  // F19, F21
  const { directory, running } = await stocked()
  await running[0]!.session('k1').append({ n: 1 })
  rewritten(snapshot, () => Buffer.from('{}'))(directory)
  const before = dataIn(directory)
  const refusals = await Promise.all([
    refusal(() => SessionStore.open(directory)),
    refusal(() => running[1]!.session('new').append({ n: 1 })),
    refusal(() => running[2]!.delete('k1')),
  ])
  for (const error of refusals) expect(error).toMatchObject({ code: 'STORE_CORRUPT', effect: 'none' })
  await Promise.all(running.map((store) => store.close()))
  expect(dataIn(directory)).toEqual(before)
})

test('a store of which only holdfast.json is damaged can be read, and tells', async () => {
  const { directory, running } = await stocked()
  await Promise.all(running.map((store) => store.close()))
  writeFileSync(join(directory, 'holdfast.json'), '{')
  const looking = await opened(directory, { readOnly: true })
  expect(looking.damage).toMatchObject({ code: 'STORE_CORRUPT', details: { file: 'holdfast.json' } })
  expect(await entriesOf(looking.entries())).toHaveLength(20)
  expect(await refusal(() => SessionStore.open(directory))).toMatchObject({ code: 'STORE_CORRUPT' })
})

test('a sound store has nothing to tell, nor has one that is not there', async () => {
  const { directory, running } = await stocked()
  for (const store of [...running, await opened(directory, { readOnly: true })]) expect(store.damage).toBeUndefined()
  expect(await refusal(() => SessionStore.open(storeDirectory(), { readOnly: true }))).toMatchObject({ code: 'NOT_FOUND' })
})

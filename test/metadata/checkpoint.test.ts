/** sessions.json for tools that read it directly, and the generation before it. */
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { SessionStore } from '../../src/store.js'
import { bytesOf, entriesOf, opened, storeDirectory } from './store-directory.js'

const parsed = (directory: string) => JSON.parse(readFileSync(join(directory, 'sessions.json'), 'utf8')) as Record<string, unknown>

async function stateOf(store: SessionStore): Promise<Record<string, unknown>> {
  return Object.fromEntries(await entriesOf(store.entries()))
}

/** Commits of every kind; each gives the state after it. */
const commits: [string, (store: SessionStore) => Promise<unknown>][] = [
  ['a first entry', (store) => store.update('a', () => ({ n: 1 }))],
  ['a second', (store) => store.update('b', () => ({ text: '"quoted" \\ \u2028 🧵', list: [{ deep: [] }], none: null }))],
  ['a change', (store) => store.update('a', (entry) => ({ ...entry, n: 2 }))],
  ['a first append', (store) => store.session('c').append({ n: 1 })],
  ['many at once', (store) => store.withStoreLock((sessions) => ['d', 'e', 'f'].forEach((key) => void sessions.set(key, { key })))],
  ['a deletion', (store) => store.delete('b')],
  ['a deletion by a mutator', (store) => store.withStoreLock((sessions) => sessions.delete('d'))],
  ['a rotation', (store) => store.session('c').rotate()],
  ['the last one gone', (store) => store.withStoreLock((sessions) => [...sessions.keys()].forEach((key) => void sessions.delete(key)))],
  ['one again', (store) => store.update('a', () => ({ n: 3 }))],
]

describe.each(['power', 'process'] as const)('checkpoint: always, durability %s', (durability) => {
  test('sessions.json, read by JSON.parse alone, is the state after every acknowledged commit', async () => {
    // P1, P4
    const directory = storeDirectory()
    const store = await opened(directory, { checkpoint: 'always', durability })
    const reader = await opened(directory, { readOnly: true })
    expect(parsed(directory)).toEqual({})
    for (const [what, commit] of commits) {
      await commit(store)
      const state = await stateOf(store)
      expect(parsed(directory), what).toEqual(state)
      expect(await stateOf(reader), what).toEqual(state)
    }
  })

  test('of calls that are made together, each is in sessions.json when it resolves', async () => {
    // P1
    const directory = storeDirectory()
    const handles = [
      await opened(directory, { checkpoint: 'always', durability }),
      await opened(directory, { checkpoint: 'always', durability }),
    ]
    const calls = Array.from({ length: 20 }, async (_, n) => {
      await handles[n % 2]!.update(`k${n}`, () => ({ n }))
      expect(parsed(directory)).toHaveProperty(`k${n}`)
    })
    await Promise.all(calls)
    expect(Object.keys(parsed(directory))).toHaveLength(20)
  })
})

const pair = ['sessions.json', 'sessions.journal.jsonl'] as const
const previous = ['sessions.prev.json', 'sessions.prev.journal.jsonl'] as const

test('the generation before is kept with every checkpoint; copied over the pair it is a store with the state before', async () => {
  // F19, P5
  const directory = storeDirectory()
  const store = await opened(directory, { checkpoint: 'always' })
  let before = await stateOf(store)
  for (const [what, commit] of commits.slice(0, 5)) {
    const pairBefore = bytesOf(directory, 'sessions.json')
    await commit(store)
    // The sealed journal holds the commit that the checkpoint was made for, so the generation before can be rolled back or forth.
    expect(bytesOf(directory, 'sessions.prev.json'), what).toEqual(pairBefore)
    expect(parsedPrevious(directory), what).toEqual(before)
    before = await stateOf(store)
  }
  await store.close()
  const after = before
  for (const [at, file] of previous.entries()) copyFileSync(join(directory, file), join(directory, pair[at]!))
  const restored = await opened(directory)
  expect((await restored.verify()).damage).toEqual([])
  // Of the pair before nothing that was in its journal is missing either: it folds to what was current.
  expect(await stateOf(restored)).toEqual(after)
  await restored.update('after', () => ({ n: 1 }))
  expect(await stateOf(await opened(directory, { readOnly: true }))).toEqual({ ...after, after: await restored.get('after') })
})

function parsedPrevious(directory: string): unknown {
  return JSON.parse(readFileSync(join(directory, 'sessions.prev.json'), 'utf8'))
}

test('a checkpoint by hand keeps what it folded, whole, whatever came after', async () => {
  // F19, P5
  const directory = storeDirectory()
  const store = await opened(directory)
  await store.update('a', () => ({ n: 1 }))
  await store.checkpoint()
  for (let n = 2; n <= 5; n++) await store.update('a', () => ({ n }))
  await store.checkpoint()
  const folded = await stateOf(store)
  await store.update('a', () => ({ n: 6 }))
  await store.update('b', () => ({}))
  expect(parsedPrevious(directory)).toMatchObject({ a: { n: 1 } })
  const elsewhere = storeDirectory()
  await (await opened(elsewhere)).close()
  for (const [at, file] of previous.entries()) copyFileSync(join(directory, file), join(elsewhere, pair[at]!))
  const restored = await opened(elsewhere)
  expect(await stateOf(restored)).toEqual(folded)
  expect((await restored.verify()).damage).toEqual([])
})

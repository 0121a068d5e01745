/** Handles: through links, read-only, side by side, in threads, and after closing (P1, P4, P6, P7). */
import { existsSync, lstatSync, mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { SessionStore } from '../../src/store.js'
import { entriesOf, opened, recordsOf, refusal, storeDirectory } from '../metadata/store-directory.js'

test('a store behind a symbolic link is the same store, and the link stays one', async () => {
  // F26
  const directory = storeDirectory()
  const real = join(dirname(directory), 'real')
  mkdirSync(real)
  symlinkSync(real, directory)
  const linked = await opened(directory)
  const direct = await opened(real)
  await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      (n % 2 ? linked : direct).update('k', (entry) => ({ n: ((entry as { n?: number } | undefined)?.n ?? 0) + 1 })),
    ),
  )
  await linked.session('k').append({ n: 1 })
  await direct.session('k').append({ n: 2 })
  await linked.checkpoint()
  await linked.session('k').rotate()
  await linked.session('k').append({ n: 3 })
  for (const store of [linked, direct, await opened(directory, { readOnly: true })]) {
    expect((await store.get('k'))!.n).toBe(20)
    expect(await recordsOf(store.session('k').read())).toEqual([{ n: 3 }])
  }
  expect(readlinkSync(directory)).toBe(real)
  expect(readdirSync(real).filter((name) => lstatSync(join(real, name)).isSymbolicLink())).toEqual([])
  expect(readdirSync(join(real, 'archive'))).toHaveLength(1)
})

/** Every name below the directory with what a write, a rename or a chmod would change; itself included. */
function factsOf(directory: string): Map<string, string> {
  const names = ['', ...readdirSync(directory, { recursive: true, encoding: 'utf8' })].sort()
  return new Map(
    names.map((name) => {
      const { ino, size, mode, mtimeMs, ctimeMs } = lstatSync(join(directory, name))
      return [name, [ino, size, mode, mtimeMs, ctimeMs].join(' ')]
    }),
  )
}

const writes: [string, (store: SessionStore) => Promise<unknown>][] = [
  ['update', (store) => store.update('k', () => ({}))],
  ['withStoreLock', (store) => store.withStoreLock((sessions) => sessions.set('k', {}))],
  ['delete', (store) => store.delete('k')],
  ['append', (store) => store.session('k').append({ n: 1 })],
  ['rotate', (store) => store.session('k').rotate()],
  ['checkpoint', (store) => store.checkpoint()],
]
const reads: [string, (store: SessionStore) => Promise<unknown>][] = [
  ['get', (store) => store.get('k')],
  ['entries', (store) => entriesOf(store.entries())],
  ['read', (store) => recordsOf(store.session('k').read())],
  ['read after', (store) => recordsOf(store.session('k').read({ after: 1, limit: 1 }))],
  ['tail', (store) => store.session('k').tail(50)],
  ['tail of none', (store) => store.session('k').tail(0)],
  ['verify', (store) => store.verify()],
  ['locks', (store) => store.locks()],
]

describe('a read-only handle', () => {
  test('writes nothing, not even in locks/, whatever is called, and refuses what would', async () => {
    // P5
    const directory = storeDirectory()
    const writer = await opened(directory)
    for (let n = 0; n < 5; n++) await writer.session('k').append({ n })
    await writer.session('k').rotate()
    await writer.session('k').append({ n: 5 })
    const before = factsOf(directory)
    expect([...before.keys()].some((name) => name.startsWith('locks/transcripts/'))).toBe(true)
    const reader = await opened(directory, { readOnly: true })
    for (const [, read] of reads) await read(reader)
    for (const [what, write] of writes) {
      const error = await refusal(() => write(reader))
      expect([error.kind, error.effect], what).toEqual(['misuse', 'none'])
      expect(error.message, what).toMatch(/read-?only/i)
    }
    for (const [, read] of reads) await read(reader)
    await reader.close()
    expect(factsOf(directory)).toEqual(before)
  })

  test('works where there are no locks, and makes none', async () => {
    // P5: a copy of a store, without the directories that only writers need.
    const directory = storeDirectory()
    const writer = await opened(directory)
    await writer.session('k').append({ n: 1 })
    await writer.close()
    for (const name of ['locks', 'quarantine']) rmSync(join(directory, name), { recursive: true, force: true })
    const before = factsOf(directory)
    const reader = await opened(directory, { readOnly: true })
    expect(await recordsOf(reader.session('k').read())).toEqual([{ n: 1 }])
    for (const [, read] of reads) await read(reader)
    await reader.close()
    expect(factsOf(directory)).toEqual(before)
  })

  test('sees what others write after it was opened, through checkpoints, rotations and deletions', async () => {
    // P4
    const directory = storeDirectory()
    const writer = await opened(directory)
    const reader = await opened(directory, { readOnly: true })
    expect(await entriesOf(reader.entries())).toEqual([])
    const steps: [string, () => Promise<unknown>][] = [
      ['a first append', () => writer.session('k').append({ n: 1 })],
      ['an update', () => writer.update('other', () => ({ n: 1 }))],
      ['a checkpoint', () => writer.checkpoint()],
      ['an append', () => writer.session('k').append([{ n: 2 }, { n: 3 }])],
      ['a rotation', () => writer.session('k').rotate()],
      ['an append to what follows', () => writer.session('k').append({ n: 4 })],
      ['a deletion', () => writer.delete('other')],
      ['another checkpoint', () => writer.checkpoint()],
      ['the last deletion', () => writer.delete('k')],
    ]
    for (const [what, step] of steps) {
      await step()
      expect(await entriesOf(reader.entries()), what).toEqual(await entriesOf(writer.entries()))
      expect(await reader.session('k').tail(50), what).toEqual(await writer.session('k').tail(50))
      expect(await recordsOf(reader.session('k').read()), what).toEqual(await recordsOf(writer.session('k').read()))
    }
  })
})

test('two handles in one process see each other’s writes at once, and one that closes leaves the other at work', async () => {
  // F11, F13, P4
  const directory = storeDirectory()
  const one = await opened(directory)
  const two = await opened(directory)
  for (let n = 1; n <= 20; n++) {
    const [writer, reader] = n % 2 ? [one, two] : [two, one]
    const entry = await writer.update('k', (before) => {
      expect((before as { n?: number } | undefined)?.n ?? 0).toBe(n - 1)
      return { n }
    })
    expect(await reader.get('k')).toEqual(entry)
    const { seq } = await writer.session('k').append({ n })
    expect(await reader.session('k').tail(1)).toEqual([{ seq, record: { n } }])
    expect(await recordsOf(reader.session('k').read())).toHaveLength(n)
    if (n === 10) await writer.checkpoint()
  }
  await one.close()
  await two.session('k').append({ n: 21 })
  expect(await recordsOf(two.session('k').read())).toHaveLength(21)
})

const compiled = new URL('../../.build/src/index.js', import.meta.url)

/** A thread that opens the store, says so, and appends and counts until it has done `count`, telling of each that was acknowledged. */
const threadProgram = `
  const { parentPort, workerData } = require('node:worker_threads')
  ;(async () => {
    const { SessionStore } = await import(workerData.library)
    const store = await SessionStore.open(workerData.directory, { lock: { maxHoldMs: workerData.maxHoldMs } })
    for (let n = 0; n < workerData.count; n++) {
      await store.session('k').append({ by: workerData.name, n })
      parentPort.postMessage({ by: workerData.name, n })
      await store.update('counter', (entry) => ({ n: (entry?.n ?? 0) + 1 }))
    }
    await store.close()
  })()
`

function thread(directory: string, name: string, count: number, maxHoldMs = 15_000) {
  const workerData = { library: compiled.href, directory, name, count, maxHoldMs }
  const worker = new Worker(threadProgram, { eval: true, workerData, execArgv: [] })
  onTestFinished(async () => void (await worker.terminate()))
  const acknowledged: { by: string; n: number }[] = []
  worker.on('message', (message: { by: string; n: number }) => acknowledged.push(message))
  const ended = new Promise<number>((resolve, reject) => worker.once('exit', resolve).once('error', reject))
  return { worker, acknowledged, ended }
}

test('threads of one process write the same store beside each other', async () => {
  // F11, F13, P1, P6
  expect(existsSync(fileURLToPath(compiled)), 'npm test compiles it').toBe(true)
  const directory = storeDirectory()
  const store = await opened(directory)
  const each = 50
  const threads = ['a', 'b'].map((name) => thread(directory, name, each))
  for (let n = 0; n < each; n++) {
    await store.session('k').append({ by: 'main', n })
    await store.update('counter', (entry) => ({ n: ((entry as { n?: number } | undefined)?.n ?? 0) + 1 }))
  }
  expect(await Promise.all(threads.map(({ ended }) => ended))).toEqual([0, 0])
  const records = await recordsOf(store.session('k').read())
  expect(records).toHaveLength(3 * each)
  for (const name of ['a', 'b', 'main'])
    expect(records.filter(({ by }) => by === name).map(({ n }) => n)).toEqual(Array.from({ length: each }, (_, n) => n))
  expect((await store.get('counter'))!.n).toBe(3 * each)
})

test('a thread that is terminated at any moment loses nothing acknowledged and stops nobody', async () => {
  // F5, P1, P3: its process lives on, so a lock that it held is not a dead holder's; it runs out.
  expect(existsSync(fileURLToPath(compiled)), 'npm test compiles it').toBe(true)
  const directory = storeDirectory()
  const store = await opened(directory, { lock: { maxHoldMs: 250 } })
  const acknowledged: object[] = []
  for (let round = 0; round < 8; round++) {
    const running = thread(directory, `thread ${round}`, 100_000, 250)
    await new Promise((resolve) => running.worker.once('message', resolve))
    await new Promise((resolve) => setTimeout(resolve, 3 * round))
    await running.worker.terminate()
    await running.ended
    acknowledged.push(...running.acknowledged)
    await store.session('k').append({ by: 'main', n: round })
    acknowledged.push({ by: 'main', n: round })
    await store.update('counter', (entry) => ({ ...entry }))
  }
  const found = new Set((await recordsOf(store.session('k').read())).map((record) => JSON.stringify(record)))
  expect(acknowledged.length).toBeGreaterThanOrEqual(16)
  expect(acknowledged.filter((record) => !found.has(JSON.stringify(record)))).toEqual([])
  expect((await store.verify()).damage).toEqual([])
})

/** Files of the store that this process has open; undefined where nobody can tell. */
function openFilesOf(directory: string): string[] | undefined {
  if (!existsSync('/proc/self/fd')) return undefined
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return '' // The listing's own descriptor.
    }
  })
  return targets.filter((target) => target.startsWith(directory))
}

describe('after close', () => {
  test.each([...writes, ...reads])('%s is refused with STORE_CLOSED', async (_, call) => {
    // P7
    const store = await opened(storeDirectory())
    await store.session('k').append({ n: 1 })
    await store.close()
    expect(await refusal(() => call(store))).toMatchObject({ code: 'STORE_CLOSED', kind: 'misuse', effect: 'none', retryable: false })
    await store.close()
  })

  test('an iteration begun before it ends with STORE_CLOSED, and no file stays open', async () => {
    // P4, P7: short of an end, what was read would pass for everything.
    const directory = storeDirectory()
    const store = await opened(directory)
    for (let n = 0; n < 10; n++) await store.session(`k${n}`).append(Array.from({ length: 100 }, (_, m) => ({ m })))
    const session = store.session('k0')
    const begun = [session.read(), session.read({ after: 5 }), store.entries()].map((iterable) => iterable[Symbol.asyncIterator]())
    for (const iterator of begun) expect((await iterator.next()).done).toBe(false)
    const unbegun = [session.read(), store.entries()].map((iterable) => iterable[Symbol.asyncIterator]())
    await store.close()
    for (const iterator of [...begun, ...unbegun])
      expect(await refusal(() => iterator.next())).toMatchObject({ code: 'STORE_CLOSED', effect: 'none' })
    expect(openFilesOf(directory) ?? []).toEqual([])
  })

  // Found: a read that was begun and then left lying keeps its descriptor until its iterator is asked again, which may be never.
  test('an iteration that nobody goes on with keeps no file open', async () => {
    // P7: close lets go of every file.
    const directory = storeDirectory()
    const store = await opened(directory)
    await store.session('k').append(Array.from({ length: 100 }, (_, n) => ({ n })))
    const left = store.session('k').read()[Symbol.asyncIterator]()
    onTestFinished(async () => void (await left.return?.()))
    await left.next()
    await store.close()
    expect(openFilesOf(directory) ?? []).toEqual([])
  })

  test('what was called before it is finished first', async () => {
    // P1
    const directory = storeDirectory()
    const store = await opened(directory)
    const calls = [
      ...Array.from({ length: 10 }, (_, n) => store.session('k').append({ n })),
      ...Array.from({ length: 10 }, (_, n) => store.update(`e${n}`, () => ({ n }))),
    ]
    await store.close()
    expect((await Promise.allSettled(calls)).map(({ status }) => status)).toEqual(calls.map(() => 'fulfilled'))
    const again = await opened(directory, { readOnly: true })
    expect(await recordsOf(again.session('k').read())).toEqual(Array.from({ length: 10 }, (_, n) => ({ n })))
    expect(await entriesOf(again.entries())).toHaveLength(11)
  })
})

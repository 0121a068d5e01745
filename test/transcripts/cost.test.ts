/** What a call costs does not grow with the store or the transcript: bytes and calls are counted at the disk (P9). */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { openFileBackend } from '../../src/file/backend.js'
import type { Disk } from '../../src/file/durable.js'
import { type Host, systemHost } from '../../src/file/host.js'
import { checkKey } from '../../src/input.js'
import type { Durability } from '../../src/types.js'
import { storeDirectory } from '../metadata/store-directory.js'

interface Tally {
  bytesRead: number
  bytesWritten: number
  writes: number
  syncs: number
  directorySyncs: number
}

/** The machine, with a meter on its disk. */
function metered(): { host: Host; reset(): void; tally: Tally } {
  const zero: Tally = { bytesRead: 0, bytesWritten: 0, writes: 0, syncs: 0, directorySyncs: 0 }
  const tally = { ...zero }
  const host = systemHost()
  const { disk } = host
  const counting: Disk = {
    ...disk,
    read(fd, into, offset, length, position) {
      const count = disk.read(fd, into, offset, length, position)
      tally.bytesRead += count
      return count
    },
    write(fd, bytes) {
      const count = disk.write(fd, bytes)
      tally.writes++
      tally.bytesWritten += count
      return count
    },
    sync(fd) {
      tally.syncs++
      return disk.sync(fd)
    },
    syncDirectory(path) {
      tally.directorySyncs++
      return disk.syncDirectory(path)
    },
  }
  return { host: { ...host, disk: counting }, tally, reset: () => void Object.assign(tally, zero) }
}

async function opened(directory: string, durability: Durability, host = systemHost()): Promise<Backend> {
  const options = { durability, checkpoint: 'auto', waitMs: 10_000, maxHoldMs: 15_000, readOnly: false, checkKey } as const
  const backend = await openFileBackend(directory, options, host)
  onTestFinished(() => backend.close())
  return backend
}

const recordBytes = 2_000
const record = (n: number) => ({ json: JSON.stringify({ n, text: 'x'.repeat(recordBytes) }) })

/** A transcript of one batch a record, as an agent writes it. */
async function transcriptOf(count: number): Promise<{ directory: string; bytes: number }> {
  const directory = storeDirectory()
  const backend = await opened(directory, 'process')
  for (let n = 0; n < count; n++) await backend.append('long', [record(n)], {})
  const { sessionId } = (await backend.get('long'))!
  await backend.close()
  return { directory, bytes: statSync(join(directory, 'transcripts', `${sessionId}.jsonl`)).size }
}

describe('a transcript of 20 MB', () => {
  const count = 10_000
  let directory = ''
  let bytes = 0
  beforeEach(async () => {
    ;({ directory, bytes } = await transcriptOf(count))
    expect(bytes).toBeGreaterThan(20e6)
  })

  test('is appended to, and its last records are read, at the price of its tail', async () => {
    // F45, P9
    const small = await transcriptOf(count / 20)
    const price = async (of: string, call: (backend: Backend) => Promise<unknown>) => {
      const { host, tally } = metered()
      await call(await opened(of, 'power', host))
      return { ...tally }
    }
    for (const at of [directory, small.directory]) {
      const appending = await price(at, (backend) => backend.append('long', [record(count)], {}))
      expect(appending.bytesRead).toBeLessThan(128 << 10)
      expect(appending.bytesWritten).toBeLessThan(2 * recordBytes)
      const reading = await price(at, async (backend) => {
        const last = await backend.tail('long', 50)
        expect(last).toHaveLength(50)
        expect(last.at(-1)!.record.n).toBe(count)
      })
      expect(reading.bytesRead).toBeLessThan(512 << 10)
      const resuming = await price(at, async (backend) => {
        const [last] = await backend.tail('long', 1)
        const later: unknown[] = []
        for await (const { seq } of backend.read('long', { after: last!.seq - 10 })) later.push(seq)
        expect(later).toHaveLength(10)
      })
      expect(resuming.bytesRead).toBeLessThan(256 << 10)
    }
  })

  test('once open, costs an append nothing but its own bytes, and a handle that follows it what was added', async () => {
    // F45, F47, P9
    const { host, tally, reset } = metered()
    const writer = await opened(directory, 'process', host)
    const other = metered()
    const follower = await opened(directory, 'process', other.host)
    await writer.append('long', [record(count)], {})
    await follower.append('long', [record(count + 1)], {})
    reset()
    other.reset()
    for (let n = 0; n < 100; n++) await (n % 2 ? writer : follower).append('long', [record(n)], {})
    for (const each of [tally, other.tally]) {
      // What the other one wrote, each of its records once.
      expect(each.bytesRead).toBeLessThan(51 * (recordBytes + 200))
      expect(each.bytesWritten).toBeLessThan(50 * (recordBytes + 200))
      expect(each.writes).toBe(50)
    }
  })
})

/** A store with that many sessions, all folded into the snapshot, and a handle that has written to it before. */
async function storeOf(sessions: number) {
  const directory = storeDirectory()
  const { host, tally, reset } = metered()
  const backend = await opened(directory, 'power', host)
  await backend.commitMetadata((view) => {
    for (let n = 0; n < sessions; n++) view.set(`agent:${n}`, { model: 'model-1', label: `session ${n}`, tokens: n })
  }, {})
  await backend.checkpoint()
  await backend.commitMetadata((view) => view.patch('agent:1', { tokens: -1 }), {})
  reset()
  return { directory, backend, tally, reset }
}

test('one update among 10,000 sessions writes what it writes among 10: one line, one write, one sync', async () => {
  // F42, P9
  const written: number[] = []
  for (const sessions of [10, 10_000]) {
    const { backend, tally } = await storeOf(sessions)
    await backend.commitMetadata((view) => view.patch('agent:7', { model: 'model-2' }), {})
    expect(tally).toMatchObject({ writes: 1, syncs: 1, directorySyncs: 0 })
    expect(tally.bytesRead).toBeLessThan(4_096)
    written.push(tally.bytesWritten)
  }
  // Sequence numbers and revisions may be a digit longer.
  expect(Math.abs(written[1]! - written[0]!)).toBeLessThan(16)
  expect(written[1]).toBeLessThan(600)
})

test('a handle that follows another’s update among 10,000 sessions reads that update, not the store', async () => {
  // F42, P9
  const { directory, backend } = await storeOf(10_000)
  const { host, tally, reset } = metered()
  const follower = await opened(directory, 'power', host)
  expect((await follower.get('agent:7'))!.model).toBe('model-1')
  reset()
  await backend.commitMetadata((view) => view.patch('agent:7', { model: 'model-2' }), {})
  expect((await follower.get('agent:7'))!.model).toBe('model-2')
  expect(tally.bytesRead).toBeLessThan(4_096)
  expect(tally.writes).toBe(0)
})

test('64 updates at once, among 10,000 sessions, are one write and one sync', async () => {
  // F43, P9
  const { backend, tally, directory } = await storeOf(10_000)
  await Promise.all(
    Array.from({ length: 64 }, (_, n) => backend.commitMetadata((view) => view.patch(`agent:${n}`, { model: `changed-${n}` }), {})),
  )
  expect(tally).toMatchObject({ writes: 1, syncs: 1, directorySyncs: 0 })
  expect(tally.bytesWritten).toBeLessThan(64 * 600)
  const fresh = await opened(directory, 'power')
  for (let n = 0; n < 64; n++) expect((await fresh.get(`agent:${n}`))!.model).toBe(`changed-${n}`)
})

test('64 appends at once to one session are one write and one sync', async () => {
  // F43, P9
  const { host, tally, reset } = metered()
  const backend = await opened(storeDirectory(), 'power', host)
  await backend.append('k', [{ json: '{"n":-1}' }], {})
  reset()
  await Promise.all(Array.from({ length: 64 }, (_, n) => backend.append('k', [{ json: `{"n":${n}}` }], {})))
  expect(tally).toMatchObject({ writes: 1, syncs: 1, directorySyncs: 0 })
  expect((await backend.tail('k', 64)).map(({ record }) => record.n)).toEqual(Array.from({ length: 64 }, (_, n) => n))
})

test('appends that are awaited one after another and never wait for the disk leave room for timers', async () => {
  // F44
  const backend = await opened(storeDirectory(), 'process')
  let ticks = 0
  const timer = setInterval(() => ticks++, 5)
  const startedMs = performance.now()
  for (let n = 0; n < 200 || performance.now() - startedMs < 300; n++) await backend.append('k', [{ json: '{"a":1}' }], {})
  clearInterval(timer)
  console.info(`${ticks} ticks of 5 ms in ${Math.round(performance.now() - startedMs)} ms`)
  expect(ticks).toBeGreaterThan(3)
})

/** Real file systems that are full, read-only, of another kind, or have links where files should be (P1, P2, P5; F24, F26). */
import { execFileSync } from 'node:child_process'
import fs, {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Backend } from '../../src/backend.js'
import { isStoreError } from '../../src/errors.js'
import { openFileBackend } from '../../src/file/backend.js'
import { nodeDisk } from '../../src/file/durable.js'
import { systemHost } from '../../src/file/host.js'
import { careOf } from '../backend/care.js'
import { encoded, increment, storeOptions } from '../simulation/store-on-disk.js'
import { canMake, mayMount, mountImage, mountReadOnly, mountTmpfs, temporaryDirectory } from './mounts.js'

async function opened(directory: string, readOnly = false): Promise<Backend> {
  const store = await openFileBackend(directory, { ...storeOptions, readOnly })
  onTestFinished(async () => {
    await store.close().catch(() => {})
  })
  return store
}

async function names(store: Backend, key: string): Promise<string[]> {
  const found: string[] = []
  for await (const { record } of store.read(key, {})) found.push(String(record.name))
  return found
}

function refusal(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => expect.fail(`succeeded with ${JSON.stringify(value)}`),
    (error: unknown) => error,
  )
}

const root = mayMount()

describe.skipIf(!root)('a disk that is really full (needs root)', () => {
  /** Leaves about this many bytes. */
  function fill(mount: string, leftBytes: number): string {
    const filler = join(mount, 'filler')
    const { bavail, bsize } = statfsSync(mount)
    writeFileSync(filler, Buffer.alloc(Math.max(0, bavail * bsize - leftBytes)))
    return filler
  }

  test('refuses with DISK_FULL and effect none, keeps what it has, and goes on after space is freed', async () => {
    const mount = mountTmpfs('4m')
    const store = await opened(join(mount, 'store'))
    await store.append('one', encoded('a'), {})
    await increment(store, 'one')
    const filler = fill(mount, 0)
    const big = [{ json: JSON.stringify({ name: 'big', text: 'x'.repeat(100_000) }) }]
    for (const call of [
      () => store.append('one', big, {}),
      () => store.commitMetadata((s) => s.patch('one', { text: 'x'.repeat(100_000) }), {}),
    ]) {
      const error = await refusal(call())
      expect(isStoreError(error, 'DISK_FULL') && error.effect, String(error)).toBe('none')
    }
    expect(await names(store, 'one')).toEqual(['a'])
    expect((await store.get('one'))?.count).toBe(1)
    expect((await careOf(await opened(join(mount, 'store'), true)).verify({})).damage).toEqual([])
    rmSync(filler)
    await store.append('one', encoded('b'), {})
    expect(await increment(store, 'one')).toBe(2)
    await store.close()
    const next = await opened(join(mount, 'store'))
    expect(await names(next, 'one')).toEqual(['a', 'b'])
    expect((await next.get('one'))?.text).toBeUndefined()
    expect((await careOf(next).verify({})).damage).toEqual([])
  })

  test('a large append that does not fit fails alone; small ones of the same commit are written', async () => {
    const mount = mountTmpfs('4m')
    const store = await opened(join(mount, 'store'))
    await store.append('one', encoded('a'), {})
    fill(mount, 300_000)
    const big = [{ json: JSON.stringify({ name: 'big', text: 'x'.repeat(1_000_000) }) }]
    const results = await Promise.allSettled([
      store.append('one', encoded('b'), {}),
      store.append('one', big, {}),
      store.append('one', encoded('c'), {}),
      store.append('two', encoded('d'), {}),
    ])
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
    const { reason } = results[1] as PromiseRejectedResult
    expect(isStoreError(reason, 'DISK_FULL') && reason.effect, String(reason)).toBe('none')
    expect(await names(store, 'one')).toEqual(['a', 'b', 'c'])
    expect(await names(store, 'two')).toEqual(['d'])
  })

  test('a store that cannot even be made says so, and is made once there is space', async () => {
    const mount = mountTmpfs('256k')
    const filler = fill(mount, 0)
    const error = await refusal(opened(join(mount, 'store')))
    expect(isStoreError(error) && [error.code, error.effect], String(error)).toEqual(['DISK_FULL', 'none'])
    rmSync(filler)
    const store = await opened(join(mount, 'store'))
    await store.append('one', encoded('a'), {})
    expect(await names(store, 'one')).toEqual(['a'])
  })

  test('a checkpoint that does not fit leaves snapshot and journal as they were', async () => {
    const mount = mountTmpfs('2m')
    const store = await opened(join(mount, 'store'))
    for (let i = 0; i < 20; i++) await store.commitMetadata((s) => s.patch(`key ${i}`, { text: 'x'.repeat(20_000) }), {})
    const filler = fill(mount, 100_000)
    const error = await refusal(store.checkpoint())
    expect(isStoreError(error, 'DISK_FULL'), String(error)).toBe(true)
    await increment(store, 'key 0')
    rmSync(filler)
    await store.checkpoint()
    const next = await opened(join(mount, 'store'))
    expect((await next.get('key 0'))?.count).toBe(1)
    expect(String((await next.get('key 19'))?.text)).toHaveLength(20_000)
    expect((await careOf(next).verify({})).damage).toEqual([])
    const left = execFileSync('find', [join(mount, 'store', 'locks'), '-type', 'f'], { encoding: 'utf8' })
    expect(left, 'nothing staged stays behind').toBe('')
  })
})

describe.skipIf(!root)('a read-only mount (needs root)', () => {
  test('is read, and refuses to be written with a type', async () => {
    const directory = join(temporaryDirectory(), 'store')
    const writer = await opened(directory)
    await writer.append('one', encoded('a'), {})
    const mount = mountReadOnly(directory)
    const reader = await opened(mount, true)
    expect(await names(reader, 'one')).toEqual(['a'])
    expect((await careOf(reader).verify({})).ok).toBe(true)
    await writer.append('one', encoded('b'), {})
    expect(await names(reader, 'one'), 'beside a live writer').toEqual(['a', 'b'])
    const refused = await refusal(reader.append('one', encoded('c'), {}))
    expect(isStoreError(refused) && [refused.code, refused.effect], String(refused)).toEqual(['INVALID_OPTION', 'none'])
    const error = await refusal(opened(mount).then((store) => store.append('one', encoded('d'), {})))
    expect(isStoreError(error, 'IO_FAILED') && [error.effect, error.details.errno], String(error)).toEqual(['none', 'EROFS'])
    expect(await names(writer, 'one')).toEqual(['a', 'b'])
  })
})

describe.each(['xfs', 'btrfs', 'ext4'])('on %s', (kind) => {
  test.skipIf(!root || !canMake(kind))(
    `sessions are written, rotated, deleted, folded and found again (needs root and mkfs.${kind})`,
    async () => {
      const directory = join(mountImage(kind, 320 << 20), 'store')
      const stores = [await opened(directory), await opened(directory)]
      for (let round = 0; round < 10; round++) {
        await Promise.all(
          stores.flatMap((store, i) => [
            store.append('shared', encoded(`${round}-${i}`), {}),
            increment(store, 'shared'),
            store.append(`own ${i}`, encoded(`a${round}`, `b${round}`), {}),
          ]),
        )
        if (round === 5) await stores[0]!.rotate('shared', 'reset', {})
        if (round === 7) await stores[1]!.checkpoint()
      }
      await stores[0]!.delete('own 0', {})
      for (const store of stores) await store.close()
      const next = await opened(directory)
      expect((await next.get('shared'))?.count).toBe(20)
      expect((await names(next, 'shared')).sort()).toEqual([6, 7, 8, 9].flatMap((round) => [`${round}-0`, `${round}-1`]))
      expect(await names(next, 'own 1')).toHaveLength(20)
      expect(await next.get('own 0')).toBeUndefined()
      expect(readdirSync(join(directory, 'archive')).filter((name) => name.endsWith('.jsonl'))).toHaveLength(2)
      const report = await careOf(next).verify({})
      expect(report.damage).toEqual([])
      expect(report.files.reduce((sum, { records, kind }) => (kind === 'snapshot' || kind === 'journal' ? sum : sum + records), 0)).toBe(60)
    },
  )
})

describe('links and missing directories', () => {
  test('a store behind a symbolic link works, and the link stays one (F26)', async () => {
    const base = temporaryDirectory()
    mkdirSync(join(base, 'real'))
    symlinkSync(join(base, 'real'), join(base, 'link'))
    const store = await opened(join(base, 'link'))
    await store.append('one', encoded('a'), {})
    await increment(store, 'one')
    await store.checkpoint()
    await store.close()
    expect(readlinkSync(join(base, 'link'))).toBe(join(base, 'real'))
    expect(await names(await opened(join(base, 'real')), 'one')).toEqual(['a'])
  })

  test.each(['sessions.json', 'sessions.journal.jsonl'])('%s behind a symbolic link is refused and left alone (F26)', async (file) => {
    const base = temporaryDirectory()
    const directory = join(base, 'store')
    const store = await opened(directory)
    await increment(store, 'one')
    await store.close()
    renameSync(join(directory, file), join(base, file))
    symlinkSync(join(base, file), join(directory, file))
    const before = readFileSync(join(base, file))
    const error = await refusal(opened(directory).then((store) => increment(store, 'one')))
    expect(isStoreError(error) && [error.kind, error.effect], String(error)).toEqual(['damaged', 'none'])
    expect(readlinkSync(join(directory, file))).toBe(join(base, file))
    expect(readFileSync(join(base, file))).toEqual(before)
  })

  test('a transcript behind a symbolic link is refused and left alone; other sessions go on (F26)', async () => {
    const base = temporaryDirectory()
    const directory = join(base, 'store')
    const store = await opened(directory)
    const { sessionId } = await store.append('one', encoded('a'), {})
    await store.close()
    const file = `${sessionId}.jsonl`
    renameSync(join(directory, 'transcripts', file), join(base, file))
    symlinkSync(join(base, file), join(directory, 'transcripts', file))
    const before = readFileSync(join(base, file))
    const next = await opened(directory)
    for (const call of [() => next.append('one', encoded('b'), {}), () => names(next, 'one'), () => next.tail('one', 1)]) {
      const error = await refusal(call())
      expect(isStoreError(error) && [error.kind, error.effect], String(error)).toEqual(['damaged', 'none'])
    }
    await next.append('two', encoded('c'), {})
    expect(await names(next, 'two')).toEqual(['c'])
    expect(lstatSync(join(directory, 'transcripts', file)).isSymbolicLink()).toBe(true)
    expect(readFileSync(join(base, file))).toEqual(before)
    expect((await careOf(next).verify({})).damage.map(({ file }) => file)).toEqual([`transcripts/${file}`])
  })

  test('a store whose directories are missing is made, with those above it', async () => {
    const directory = join(temporaryDirectory(), 'a', 'b', 'store')
    const store = await opened(directory)
    await store.append('one', encoded('a'), {})
    expect(lstatSync(directory).mode & 0o777).toBe(0o700)
  })

  test('reading a store that is not there says NOT_FOUND and makes nothing', async () => {
    const directory = join(temporaryDirectory(), 'store')
    expect(await refusal(opened(directory, true))).toMatchObject({ code: 'NOT_FOUND', effect: 'none' })
    expect(fs.existsSync(directory)).toBe(false)
  })

  test('a store that is taken away while open refuses with a type, and does not come back empty (F19)', async () => {
    const base = temporaryDirectory()
    const directory = join(base, 'store')
    const store = await opened(directory)
    await store.append('one', encoded('a'), {})
    await increment(store, 'one')
    renameSync(directory, join(base, 'elsewhere'))
    for (const call of [
      () => store.append('one', encoded('b'), {}),
      () => increment(store, 'one'),
      () => store.append('two', encoded('c'), {}),
      () => store.get('one'),
    ]) {
      const error = await refusal(call())
      expect(isStoreError(error) && error.code !== 'INVARIANT' && error.effect, String(error)).toBe('none')
    }
    expect(fs.existsSync(join(directory, 'sessions.json'))).toBe(false)
    rmSync(directory, { recursive: true, force: true })
    renameSync(join(base, 'elsewhere'), directory)
    await store.append('one', encoded('d'), {})
    expect(await names(store, 'one')).toEqual(['a', 'd'])
  })
})

describe('an interrupted system call', () => {
  test('is made again (EINTR)', async () => {
    const directory = join(temporaryDirectory(), 'store')
    const interrupted = () => Object.assign(new Error('EINTR: interrupted system call'), { code: 'EINTR' })
    const spies = (['openSync', 'writeSync', 'readSync'] as const).map((name) => {
      const original = fs[name] as (...given: unknown[]) => number
      let calls = 0
      return vi.spyOn(fs, name).mockImplementation(((...given: unknown[]) => {
        if (calls++ % 2 === 0) throw interrupted()
        return original(...given)
      }) as never)
    })
    onTestFinished(() => {
      for (const spy of spies) spy.mockRestore()
    })
    const store = await openFileBackend(directory, storeOptions, { ...systemHost(), disk: nodeDisk })
    await store.append('one', encoded('a'), {})
    expect(await increment(store, 'one')).toBe(1)
    expect(await names(store, 'one')).toEqual(['a'])
    await store.close()
    for (const spy of spies) expect(spy.mock.calls.length).toBeGreaterThan(1)
  })
})

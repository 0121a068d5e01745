/** What a simulated power cut may and may not do (P1, F27): what was synced stays, the rest may be there, gone, torn or full of holes. */
import { describe, expect, test } from 'vitest'
import { type Disk, writeFully } from '../../src/file/durable.js'
import { powerCuts } from './power-cut.js'
import { processDisk } from './process-disk.js'
import { seededRandom } from './seeded-random.js'
import { SimulatedDisk } from './simulated-disk.js'

/** Each outcome as `path` or `path=contents`, sorted. */
async function outcomes(scenario: (disk: Disk) => Promise<void> | void, most = 400): Promise<Set<string>> {
  const disk = new SimulatedDisk()
  await scenario(processDisk(disk, 1))
  const { disks } = powerCuts(disk, { most, random: seededRandom(7) })
  return new Set(disks.map(described))
}

function described(disk: SimulatedDisk): string {
  return [...disk.listing()]
    .map(([path, node]) => (node.kind === 'file' ? `${path}=${node.bytes.toBuffer().toString('latin1')}` : path))
    .join(' ')
}

async function written(disk: Disk, path: string, text: string): Promise<number> {
  const fd = disk.open(path, 'append')
  writeFully(disk, fd, Buffer.from(text))
  await disk.sync(fd)
  return fd
}

describe('a simulated power cut', () => {
  test('keeps what was synced, name and bytes', async () => {
    const found = await outcomes(async (disk) => {
      await written(disk, '/a', 'one')
      await disk.syncDirectory('/')
    })
    expect(found).toEqual(new Set(['/a=one']))
  })

  test('may lose the name of a file whose bytes alone were synced', async () => {
    expect(await outcomes(async (disk) => void (await written(disk, '/a', 'one')))).toEqual(new Set(['', '/a=one']))
  })

  test('may keep, drop, cut anywhere or hollow out what was appended since', async () => {
    const found = await outcomes(async (disk) => {
      const fd = await written(disk, '/a', 'one')
      await disk.syncDirectory('/')
      disk.write(fd, Buffer.from('two\n'))
    })
    for (const tail of ['', 't', 'tw', 'two', 'two\n', '\0\0\0\0']) expect(found).toContain(`/a=one${tail}`)
    for (const outcome of found) expect(outcome).toMatch(/^\/a=one/)
  })

  test('may lose an early block and keep a later one', async () => {
    const found = await outcomes(async (disk) => {
      await written(disk, '/a', '')
      await disk.syncDirectory('/')
      disk.write(disk.open('/a', 'append'), Buffer.from('x'.repeat(512) + 'y'.repeat(10)))
    })
    expect(found).toContain(`/a=${'\0'.repeat(512)}${'y'.repeat(10)}`)
  })

  test('does not count what was written after a sync began', async () => {
    let go = () => {}
    const disk = new SimulatedDisk({ syncing: () => new Promise((resolve) => (go = resolve)) })
    const view = processDisk(disk, 1)
    const fd = view.open('/a', 'append')
    view.write(fd, Buffer.from('one'))
    const syncing = view.sync(fd)
    view.write(fd, Buffer.from('two'))
    expect(powerCuts(disk, { most: 500, random: seededRandom(7) }).disks.map(described)).toContain('/a=')
    go()
    await syncing
    const found = powerCuts(disk, { most: 500, random: seededRandom(7) }).disks.map(described)
    expect(found).toContain('/a=one')
    expect(found).not.toContain('/a=')
  })

  test('loses for good what a failed sync has dropped, although later syncs succeed', async () => {
    const disk = new SimulatedDisk()
    const view = processDisk(disk, 1)
    const fd = await written(view, '/a', 'one')
    await view.syncDirectory('/')
    view.write(fd, Buffer.from('two'))
    disk.failSync(1, fd)
    view.write(fd, Buffer.from('three'))
    await view.sync(fd)
    const into = Buffer.alloc(11)
    expect(into.toString('latin1', 0, view.read(fd, into, 0, 11, 0))).toBe('onetwothree')
    expect(powerCuts(disk, { most: 9, random: seededRandom(7) }).disks.map(described)).toEqual(['/a=one\0\0\0three'])
  })

  test('leaves the old file or the new one after a rename, each name on its own, never neither', async () => {
    const found = await outcomes(async (disk) => {
      await written(disk, '/a', 'old')
      await disk.syncDirectory('/')
      await written(disk, '/b', 'new')
      disk.rename('/b', '/a')
    })
    expect(found).toEqual(new Set(['/a=old', '/a=old /b=new', '/a=new', '/a=new /b=new']))
    const moved = await outcomes(async (disk) => {
      await written(disk, '/a', 'x')
      await disk.syncDirectory('/')
      disk.rename('/a', '/b')
    })
    expect(moved).toEqual(new Set(['/a=x', '/a=x /b=x', '/b=x']))
  })

  test('never leaves one directory under two names, nor none of a renamed one', async () => {
    const found = await outcomes(async (disk) => {
      disk.mkdir('/a')
      await disk.syncDirectory('/')
      disk.rename('/a', '/b')
      disk.rename('/b', '/c')
    })
    expect(found).toEqual(new Set(['/a', '/b', '/c']))
  })

  test('brings back a file that was unlinked, with what it held', async () => {
    const found = await outcomes(async (disk) => {
      disk.close(await written(disk, '/a', 'one'))
      await disk.syncDirectory('/')
      disk.unlink('/a')
    })
    expect(found).toEqual(new Set(['', '/a=one']))
  })
})

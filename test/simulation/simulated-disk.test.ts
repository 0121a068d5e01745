/** The simulated disk against the real one: what is proved on the first holds on the second only as far as these agree (P1, P5). */
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { type Disk, type FileStat, nodeDisk, type OpenFlags } from '../../src/file/durable.js'
import { processDisk } from './process-disk.js'
import { SimulatedDisk } from './simulated-disk.js'

const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9)
const soak = Number(process.env.HOLDFAST_SOAK ?? 0) > 0
const runs = soak ? 50_000 : 1_500
if (soak) vi.setConfig({ testTimeout: 3_600_000 })

const flags: OpenFlags[] = ['append', 'appendExisting', 'create', 'read']
const path = fc.constantFrom(
  'a',
  'b',
  'a/a',
  'a/b',
  'b/a',
  'a/a/a',
  'a/b/c',
  'c',
  'loop',
  'dangling',
  'into',
  'into/a',
  'into/b',
  'into/a/..',
  '.',
)
const slot = fc.nat({ max: 3 })
const operation = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constant('open' as const), path, fc.constantFrom(...flags)) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('write' as const), slot, fc.nat({ max: 9 })) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('rename' as const), path, path) },
  { weight: 2, arbitrary: fc.tuple(fc.constantFrom('mkdir' as const, 'unlink' as const), path) },
  fc.tuple(fc.constant('read' as const), slot, fc.nat({ max: 12 })),
  fc.tuple(fc.constant('link' as const), path, path),
  fc.tuple(fc.constantFrom('rmdir' as const, 'readdir' as const, 'stat' as const, 'syncDirectory' as const), path),
  fc.tuple(fc.constantFrom('close' as const, 'fstat' as const, 'sync' as const), slot),
)
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never

/** One disk under test, with the descriptors that the sequence has opened on it. */
class Subject {
  readonly fds: (number | undefined)[] = [undefined, undefined, undefined, undefined]
  constructor(
    readonly disk: Disk,
    readonly root: string,
  ) {}

  async apply(operation: Operation): Promise<unknown> {
    try {
      return await this.call(operation)
    } catch (error) {
      return { code: (error as NodeJS.ErrnoException).code }
    }
  }

  private async call([name, first, second]: Operation): Promise<unknown> {
    const { disk } = this
    const at = (path: unknown) => join(this.root, String(path))
    const fd = () => this.fds[Number(first)] ?? 9_999
    switch (name) {
      case 'open': {
        const opened = disk.open(at(first), second)
        const free = this.fds.indexOf(undefined)
        if (free < 0) disk.close(opened)
        else this.fds[free] = opened
        return free
      }
      case 'write':
        return disk.write(fd(), Buffer.from('abcdefghijkl').subarray(second))
      case 'read': {
        const into = Buffer.alloc(8)
        return [disk.read(fd(), into, 1, 6, second), into.toString('latin1')]
      }
      case 'rename':
        return disk.rename(at(first), at(second))
      case 'link':
        return disk.link(at(first), at(second))
      case 'close': {
        const closing = fd()
        this.fds[Number(first)] = undefined
        return disk.close(closing)
      }
      case 'fstat':
        return shown(disk.fstat(fd()))
      case 'sync':
        return disk.sync(fd())
      case 'stat':
        return shown(disk.stat(at(first)))
      case 'readdir':
        return disk.readdir(at(first)).sort()
      default:
        return disk[name](at(first))
    }
  }

  /** Everything there is, and which names and descriptors mean the same file. */
  state(): unknown {
    const found: [string, unknown][] = []
    const inos: number[] = []
    const note = (name: string, stat: FileStat | undefined) => {
      if (!stat) return
      if (!inos.includes(stat.ino)) inos.push(stat.ino)
      found.push([name, [inos.indexOf(stat.ino), shown(stat)]])
    }
    const walk = (directory: string) => {
      for (const name of this.disk.readdir(directory).sort()) {
        const stat = this.disk.stat(join(directory, name))
        note(join(directory, name).slice(this.root.length), stat)
        if (stat?.kind === 'directory') walk(join(directory, name))
      }
    }
    walk(this.root)
    for (const [slot, fd] of this.fds.entries()) if (fd !== undefined) note(`#${slot}`, this.disk.fstat(fd))
    return found
  }

  end(): void {
    for (const fd of this.fds) if (fd !== undefined) this.disk.close(fd)
  }
}

function shown(stat: FileStat | undefined): unknown {
  return stat && { kind: stat.kind, mode: stat.mode, size: stat.kind === 'file' ? stat.size : 0 }
}

function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-conformance-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

function simulated(): { disk: SimulatedDisk; view: Disk } {
  const disk = new SimulatedDisk()
  disk.mkdir(1, '/root')
  return { disk, view: processDisk(disk, 1) }
}

describe('the simulated disk', () => {
  test('answers every sequence of calls as the real one does', async () => {
    console.log(`seed ${seed}`)
    const base = temporary()
    let run = 0
    const property = fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 40 }), async (operations) => {
      const root = join(base, String(run++))
      nodeDisk.mkdir(root)
      const made = simulated()
      for (const [target, name] of [
        ['loop', 'loop'],
        ['nowhere', 'dangling'],
        ['a', 'into'],
      ] as const) {
        symlinkSync(target, join(root, name))
        made.disk.symlink(target, `/root/${name}`)
      }
      const real = new Subject(nodeDisk, root)
      const simulation = new Subject(made.view, '/root')
      try {
        for (const operation of operations) {
          expect(await simulation.apply(operation), JSON.stringify(operation)).toEqual(await real.apply(operation))
          expect(simulation.state(), JSON.stringify(operation)).toEqual(real.state())
        }
      } finally {
        real.end()
        rmSync(root, { recursive: true, force: true })
      }
    })
    await fc.assert(property, { seed, numRuns: runs })
  })

  test('changes the times of the same files as the real one', async () => {
    const directory = temporary()
    let nowMs = 1
    const disk = new SimulatedDisk({ nowMs: () => nowMs })
    disk.mkdir(1, '/root')
    const steps: ((disk: Disk, root: string) => void)[] = [
      (disk, root) => disk.mkdir(`${root}/d`),
      (disk, root) => disk.close(disk.open(`${root}/f`, 'append')),
      (disk, root) => disk.close(disk.open(`${root}/f`, 'append')),
      (disk, root) => {
        const fd = disk.open(`${root}/f`, 'append')
        disk.write(fd, Buffer.from('x'))
        disk.close(fd)
      },
      (disk, root) => disk.link(`${root}/f`, `${root}/d/g`),
      (disk, root) => disk.rename(`${root}/f`, `${root}/h`),
      (disk, root) => disk.unlink(`${root}/d/g`),
      (disk, root) => disk.close(disk.open(`${root}/i`, 'create')),
      (disk, root) => disk.rename(`${root}/i`, `${root}/h`),
      (disk, root) => disk.rename(`${root}/d`, `${root}/e`),
      (disk, root) => disk.rmdir(`${root}/e`),
    ]
    const names = ['', '/d', '/e', '/f', '/h', '/i', '/d/g']
    const times = (disk: Disk, root: string) => names.map((name) => disk.stat(root + name)?.ctimeMs)
    for (const step of steps) {
      const changed: boolean[][] = []
      for (const [subject, root] of [
        [nodeDisk, directory],
        [processDisk(disk, 1), '/root'],
      ] as const) {
        const before = times(subject, root)
        nowMs++
        await new Promise((resolve) => setTimeout(resolve, 25)) // Longer than a tick of the kernel's clock.
        step(subject, root)
        changed.push(times(subject, root).map((time, i) => time !== before[i]))
      }
      expect(changed[1], step.toString()).toEqual(changed[0])
    }
  })

  test('gives the number of a file that is gone to the next one, but not while somebody has it open', () => {
    const { disk, view } = simulated()
    const fd = view.open('/root/a', 'append')
    const { ino } = view.fstat(fd)
    view.unlink('/root/a')
    expect(view.fstat(view.open('/root/b', 'append')).ino).not.toBe(ino)
    view.close(fd)
    expect(view.fstat(view.open('/root/c', 'append')).ino).toBe(ino)
    disk.exit(1)
    expect(disk.openCount(1)).toBe(0)
  })

  test('a copy and its original never see what the other does', () => {
    const { disk, view } = simulated()
    const fd = view.open('/root/a', 'append')
    view.write(fd, Buffer.from('one'))
    const copy = disk.clone()
    const other = processDisk(copy, 1)
    view.write(fd, Buffer.from('two'))
    other.write(fd, Buffer.from('other'))
    view.unlink('/root/a')
    const into = Buffer.alloc(16)
    expect(into.toString('latin1', 0, view.read(fd, into, 0, 16, 0))).toBe('onetwo')
    expect(into.toString('latin1', 0, other.read(fd, into, 0, 16, 0))).toBe('oneother')
    expect(view.readdir('/root')).toEqual([])
    expect(other.readdir('/root')).toEqual(['a'])
    expect(copy.key()).not.toBe(disk.key())
  })
})

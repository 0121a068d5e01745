/** A file system in memory: POSIX names, inodes and descriptors as Linux has them, and what a power cut may do to them.
 *
 *  A disk is cheap to copy, so an explorer may keep one for every step. Processes see it through `processDisk(disk, pid)`.
 *
 *  Durability: every file remembers its contents at the last completed sync, every directory the names that its last sync made durable
 *  and every change of a name since. power-cut.ts turns that into the disks that may be found after a power cut. */
import type { FileStat, OpenFlags } from '../../src/file/durable.js'
import { FileBytes } from './file-bytes.js'
import { type DirectoryNode, type NameChange, type Node, settled, settledNames, statOf } from './node.js'
import { fdsMax, NodeTable, type OpenFile } from './node-table.js'
import { failure } from './posix-error.js'

interface Place {
  readonly parent: DirectoryNode
  readonly name: string
  readonly node: Node | undefined
}

export interface DiskSettings {
  /** The present time; constant by default, as it is within one tick of a real kernel. */
  readonly nowMs?: () => number
  /** Resolves when a sync that has begun is complete. By default at once. */
  readonly syncing?: () => Promise<void>
}

/** The tree of `SimulatedDisk.durable`: the same object under two paths is one file with two names. */
export type Planted =
  | { readonly kind: 'directory' }
  | { readonly kind: 'file'; readonly bytes: FileBytes }
  | { readonly kind: 'symlink'; readonly target: string }

const emptyDirectory = {
  kind: 'directory',
  names: new Map<string, number>(),
  synced: new Map<string, number>(),
  since: [],
  version: 0,
} as const

export class SimulatedDisk extends NodeTable {
  constructor(readonly settings: DiskSettings = {}) {
    super()
  }

  clone(): SimulatedDisk {
    const copy = new SimulatedDisk(this.settings)
    this.copyTo(copy)
    return copy
  }

  /** A disk on which everything is durable and nothing open: what is found after a power cut. Parents come before their children. */
  static durable(tree: ReadonlyMap<string, Planted>, settings: DiskSettings = {}): SimulatedDisk {
    const disk = new SimulatedDisk(settings)
    const paths = new Map<Planted, string>()
    for (const [path, planted] of tree) {
      const first = paths.get(planted)
      paths.set(planted, path)
      if (first !== undefined) disk.link(first, path)
      else if (planted.kind === 'directory') disk.mkdir(0, path)
      else disk.plant(path, planted)
    }
    disk.settle()
    return disk
  }

  /** The kernel has written everything back, as it does after a while. */
  settle(): void {
    for (const node of this.allNodes()) this.put(settled(node, node))
  }

  private plant(path: string, planted: Exclude<Planted, { kind: 'directory' }>): void {
    const place = this.freePlace('open', path)
    const node = this.make(
      0,
      (common) => ({ ...common, ...planted, ...(planted.kind === 'file' ? { synced: planted.bytes } : {}) }) as Node,
    )
    this.setName(place.parent.id, place.name, node.id)
  }

  symlink(target: string, path: string): void {
    this.plant(path, { kind: 'symlink', target })
  }

  /** Every path and what is there, parents before their children. */
  listing(): Map<string, Node> {
    const found = new Map<string, Node>()
    const walk = (directory: DirectoryNode, path: string) => {
      for (const [name, id] of [...directory.names].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const node = this.node(id)
        found.set(`${path}/${name}`, node)
        if (node.kind === 'directory') walk(node, `${path}/${name}`)
      }
    }
    walk(this.root(), '')
    return found
  }

  // The system calls.

  open(pid: number, path: string, flags: OpenFlags): number {
    const place = this.place('open', path)
    let node = place.node
    if (flags === 'create' && node) throw failure('EEXIST', 'open', path)
    if (node?.kind === 'symlink') throw failure('ELOOP', 'open', path)
    if (node?.kind === 'directory' && flags !== 'read') throw failure('EISDIR', 'open', path)
    if (!node) {
      if (flags === 'read' || flags === 'appendExisting') throw failure('ENOENT', 'open', path)
      const empty = { kind: 'file', bytes: FileBytes.empty, synced: FileBytes.empty } as const
      node = this.make(pid, (common) => ({ ...common, ...empty, ctimeMs: this.now() }))
      this.setName(place.parent.id, place.name, node.id)
    }
    let fd = 3
    while (this.openFile(pid, fd)) fd++
    this.setOpenFile(pid, fd, { node: node.id, flags, position: 0 })
    return fd
  }

  close(pid: number, fd: number): void {
    this.file(pid, fd, 'close')
    this.setOpenFile(pid, fd, undefined)
  }

  write(pid: number, fd: number, bytes: Uint8Array): number {
    const file = this.file(pid, fd, 'write')
    const node = this.node(file.node)
    if (file.flags === 'read' || node.kind !== 'file') throw failure('EBADF', 'write')
    if (bytes.length === 0) return 0
    if (file.flags === 'create') {
      this.put({ ...node, bytes: node.bytes.writeAt(file.position, bytes), ctimeMs: this.now() })
      this.setOpenFile(pid, fd, { ...file, position: file.position + bytes.length })
    } else this.put({ ...node, bytes: node.bytes.append(bytes), ctimeMs: this.now() })
    return bytes.length
  }

  read(pid: number, fd: number, into: Uint8Array, offset: number, length: number, position: number): number {
    const file = this.file(pid, fd, 'read')
    const node = this.node(file.node)
    if (length === 0) return 0
    if (file.flags === 'create') throw failure('EBADF', 'read')
    if (node.kind !== 'file') throw failure('EISDIR', 'read')
    return node.bytes.read(into, offset, length, position)
  }

  fstat(pid: number, fd: number): FileStat {
    return statOf(this.node(this.file(pid, fd, 'fstat').node))
  }

  stat(path: string): FileStat | undefined {
    try {
      if (path === '/') return statOf(this.root())
      const { node } = this.place('lstat', path)
      return node && statOf(node)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }

  rename(from: string, to: string): void {
    const fail = (code: string) => failure(code, 'rename', from, to)
    const source = this.place('rename', from, [from, to])
    const target = this.place('rename', to, [from, to])
    const moved = source.node
    if (!moved) throw fail('ENOENT')
    if (source.parent.id !== target.parent.id) {
      if (this.isAbove(moved.id, target.parent.id)) throw fail('EINVAL')
      if (target.node && this.isAbove(target.node.id, source.parent.id)) throw fail('ENOTEMPTY')
    }
    if (target.node?.id === moved.id) return
    if (target.node) {
      if (moved.kind === 'directory' && target.node.kind !== 'directory') throw fail('ENOTDIR')
      if (moved.kind !== 'directory' && target.node.kind === 'directory') throw fail('EISDIR')
      if (target.node.kind === 'directory' && target.node.names.size > 0) throw fail('ENOTEMPTY')
    }
    this.put({ ...moved, ctimeMs: this.now(), ...(moved.kind === 'directory' ? { parent: target.parent.id } : {}) } as Node)
    const version = this.setName(target.parent.id, target.name, moved.id)
    this.setName(source.parent.id, source.name, undefined, { directory: target.parent.id, name: target.name, version })
    if (target.node) this.dropLink(target.node.id, this.now())
  }

  link(from: string, to: string): void {
    const source = this.place('link', from, [from, to])
    if (!source.node) throw failure('ENOENT', 'link', from, to)
    const target = this.freePlace('link', to, [from, to])
    if (source.node.kind === 'directory') throw failure('EPERM', 'link', from, to)
    this.put({ ...source.node, links: source.node.links + 1, ctimeMs: this.now() })
    this.setName(target.parent.id, target.name, source.node.id)
  }

  unlink(path: string): void {
    const { parent, name, node } = this.place('unlink', path)
    if (!node) throw failure('ENOENT', 'unlink', path)
    if (node.kind === 'directory') throw failure('EISDIR', 'unlink', path)
    this.setName(parent.id, name, undefined)
    this.dropLink(node.id, this.now())
  }

  mkdir(pid: number, path: string): void {
    const place = this.freePlace('mkdir', path)
    const node = this.make(pid, (common) => ({ ...common, ...emptyDirectory, ctimeMs: this.now(), parent: place.parent.id }))
    this.setName(place.parent.id, place.name, node.id)
  }

  rmdir(path: string): void {
    const { parent, name, node } = this.place('rmdir', path)
    if (!node) throw failure('ENOENT', 'rmdir', path)
    if (node.kind !== 'directory') throw failure('ENOTDIR', 'rmdir', path)
    if (node.names.size > 0) throw failure('ENOTEMPTY', 'rmdir', path)
    this.setName(parent.id, name, undefined)
    this.dropLink(node.id, this.now())
  }

  readdir(path: string): string[] {
    const node = this.followed('scandir', path)
    if (node.kind !== 'directory') throw failure('ENOTDIR', 'scandir', path)
    return [...node.names.keys()].sort()
  }

  /** A sync has begun: calling what is returned completes it, and makes durable what there was when it began. */
  beginSync(pid: number, fd: number): () => void {
    const file = this.file(pid, fd, 'fdatasync')
    if (file.failed) {
      this.setOpenFile(pid, fd, { ...file, failed: false })
      throw failure('EIO', 'fdatasync')
    }
    return this.beginNodeSync(file.node)
  }

  /** A sync has failed (Rebello et al., ATC 2020): the bytes are still to be read, but will never be written. Whoever else has the file
   *  open is told by a failure of the next sync; whoever opens it later is not. */
  failSync(pid: number, fd: number): void {
    const { node: id } = this.file(pid, fd, 'fdatasync')
    const node = this.node(id)
    if (node.kind !== 'file' || node.bytes.length === node.synced.length) return
    this.put({ ...node, dropped: [...(node.dropped ?? []), [node.synced.length, node.bytes.length]] })
    this.changeOpenFiles((file, key) => (file.node === id && key !== pid * fdsMax + fd ? { ...file, failed: true } : file))
  }

  beginDirectorySync(path: string): () => void {
    return this.beginNodeSync(this.followed('open', path).id)
  }

  private beginNodeSync(id: number): () => void {
    const then = this.node(id)
    return () => {
      const node = this.node(id)
      const after = settled(node, then)
      this.put(after)
      if (node.kind !== 'directory' || after.kind !== 'directory') return
      // A rename is one transaction of the file system's journal: its other half is durable too.
      for (const { movedTo } of node.since.filter((change) => !after.since.includes(change))) {
        if (!movedTo) continue
        const other = this.node(movedTo.directory) as DirectoryNode
        this.put(settledNames(other, ({ name, version }) => name === movedTo.name && version <= movedTo.version))
      }
    }
  }

  // How paths are walked.

  /** Where a path leads; its last step is looked up, not followed.
   *  @param named  the paths that an error names */
  private place(call: string, path: string, named: readonly [string, string?] = [path]): Place {
    const steps = stepsOf(path)
    let directory = this.root()
    let links = 0
    for (;;) {
      const step = steps.shift()
      if (step === undefined) throw failure(call === 'mkdir' ? 'EEXIST' : 'EBUSY', call, ...named)
      const id = step === '..' ? directory.parent : directory.names.get(step)
      const node = id === undefined ? undefined : this.node(id)
      if (steps.length === 0) return { parent: directory, name: step, node }
      if (!node) throw failure('ENOENT', call, ...named)
      if (node.kind === 'file') throw failure('ENOTDIR', call, ...named)
      if (node.kind === 'symlink') {
        if (++links > 40) throw failure('ELOOP', call, ...named)
        steps.unshift(...stepsOf(node.target))
        if (node.target.startsWith('/')) directory = this.root()
      } else directory = node
    }
  }

  private freePlace(call: string, path: string, named: readonly [string, string?] = [path]): Place {
    const place = this.place(call, path, named)
    if (place.node) throw failure('EEXIST', call, ...named)
    return place
  }

  private followed(call: string, path: string, links = 0): Node {
    if (path === '/') return this.root()
    const { node } = this.place(call, path)
    if (!node) throw failure('ENOENT', call, path)
    if (node.kind !== 'symlink') return node
    if (links > 40) throw failure('ELOOP', call, path)
    return this.followed(
      call,
      node.target.startsWith('/') ? node.target : `${path.slice(0, path.lastIndexOf('/'))}/${node.target}`,
      links + 1,
    )
  }

  private isAbove(above: number, below: number): boolean {
    for (let at = below; ; at = (this.node(at) as DirectoryNode).parent) {
      if (at === above) return true
      if (at === 0) return false
    }
  }

  private file(pid: number, fd: number, call: string): OpenFile {
    const file = this.openFile(pid, fd)
    if (!file) throw failure('EBADF', call)
    return file
  }

  /** Returns the directory's new version. */
  private setName(directory: number, name: string, id: number | undefined, movedTo?: NameChange['movedTo']): number {
    const node = this.node(directory) as DirectoryNode
    const names = new Map(node.names)
    if (id === undefined) names.delete(name)
    else names.set(name, id)
    const version = node.version + 1
    const change = { name, id, version, ...(movedTo && { movedTo }) }
    this.put({ ...node, names, version, since: [...node.since, change], ctimeMs: this.now() })
    return version
  }

  private now(): number {
    return this.settings.nowMs?.() ?? 0
  }
}

function stepsOf(path: string): string[] {
  return path.split('/').filter((step) => step !== '' && step !== '.')
}

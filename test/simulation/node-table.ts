/** The nodes and open files of a simulated disk, cheap to copy: two copies share everything until one of them changes something. */
import type { OpenFlags } from '../../src/file/durable.js'
import { type DirectoryNode, durabilityKeyOf, keyOf, type Node, type NodeCommon } from './node.js'

export interface OpenFile {
  readonly node: number
  readonly flags: OpenFlags
  readonly position: number
  /** A sync of the file has failed for somebody else since; this one has not been told. */
  readonly failed?: boolean
}

export const fdsMax = 4096
/** Inode numbers are handed out per creating process, so that two orders of the same steps lead to the same disk. */
const inosPerProcess = 100_000

export class NodeTable {
  private nodes = new Map<number, Node>()
  /** By pid and descriptor. */
  private opened = new Map<number, OpenFile>()
  /** How many nodes each process has made. */
  private made = new Map<number, number>()
  /** Numbers of inodes that are gone; the smallest is used first, as ext4 does. */
  private free: readonly number[] = []
  private shared = false
  #key: string | undefined

  constructor() {
    const nothing = { names: new Map<string, number>(), synced: new Map<string, number>(), since: [] }
    this.nodes.set(0, { id: 0, ino: 2, kind: 'directory', links: 1, ctimeMs: 0, parent: 0, version: 0, ...nothing })
  }

  protected copyTo(copy: NodeTable): void {
    copy.nodes = this.nodes
    copy.opened = this.opened
    copy.made = this.made
    copy.free = this.free
    copy.#key = this.#key
    copy.shared = true
    this.shared = true
  }

  /** Equal for disks that no running program can tell apart; what is durable is not part of it. */
  key(): string {
    if (this.#key !== undefined) return this.#key
    const parts: string[] = []
    for (const node of this.nodes.values()) if (this.inUse(node)) parts.push(keyOf(node))
    for (const [key, file] of this.opened) parts.push(`${key}=${file.node},${file.position}`)
    this.#key = `${parts.sort().join(' ')} ${this.free.join(',')}`
    return this.#key
  }

  /** Equal for disks of which the same would be left by a power cut. */
  durabilityKey(): string {
    return [...this.nodes.values()]
      .map(durabilityKeyOf)
      .filter((key) => key !== '')
      .sort()
      .join(' ')
  }

  root(): DirectoryNode {
    return this.nodes.get(0) as DirectoryNode
  }

  node(id: number): Node {
    return this.nodes.get(id)!
  }

  protected allNodes(): Node[] {
    return [...this.nodes.values()]
  }

  protected put(node: Node): void {
    this.own()
    this.nodes.set(node.id, node)
  }

  protected make(pid: number, build: (common: NodeCommon) => Node): Node {
    this.own()
    const count = (this.made.get(pid) ?? 0) + 1
    this.made.set(pid, count)
    const fresh = pid * inosPerProcess + count + 2
    const [ino = fresh, ...free] = this.free
    this.free = free
    const node = build({ id: fresh, ino, links: 1, ctimeMs: 0 })
    this.put(node)
    return node
  }

  /** One name less. Contents stay although nobody can reach them: a power cut may bring an old name back. */
  protected dropLink(id: number, ctimeMs: number): void {
    const node = this.node(id)
    this.put({ ...node, links: node.links - 1, ctimeMs })
    this.reap(id)
  }

  protected openFile(pid: number, fd: number): OpenFile | undefined {
    return this.opened.get(pid * fdsMax + fd)
  }

  protected setOpenFile(pid: number, fd: number, file: OpenFile | undefined): void {
    this.own()
    const before = this.openFile(pid, fd)
    if (file) this.opened.set(pid * fdsMax + fd, file)
    else this.opened.delete(pid * fdsMax + fd)
    if (before && !file) this.reap(before.node)
  }

  protected changeOpenFiles(change: (file: OpenFile, key: number) => OpenFile): void {
    this.own()
    for (const [key, file] of this.opened) this.opened.set(key, change(file, key))
  }

  /** The process is gone: what it had open is closed. */
  exit(pid: number): void {
    for (const key of [...this.opened.keys()]) if (Math.floor(key / fdsMax) === pid) this.setOpenFile(pid, key % fdsMax, undefined)
  }

  openCount(pid: number): number {
    return [...this.opened.keys()].filter((key) => Math.floor(key / fdsMax) === pid).length
  }

  private reap(id: number): void {
    const node = this.node(id)
    if (!this.inUse(node)) this.free = [...this.free, node.ino].sort((a, b) => a - b)
  }

  private inUse(node: Node): boolean {
    if (node.links > 0) return true
    for (const file of this.opened.values()) if (file.node === node.id) return true
    return false
  }

  private own(): void {
    this.#key = undefined
    if (!this.shared) return
    this.nodes = new Map(this.nodes)
    this.opened = new Map(this.opened)
    this.made = new Map(this.made)
    this.shared = false
  }
}

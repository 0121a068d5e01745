/** What a simulated disk is made of. Nodes are values: a change makes a new one under the same id. */
import type { FileStat } from '../../src/file/durable.js'
import type { FileBytes } from './file-bytes.js'

export interface NodeCommon {
  /** The simulation's own, never used twice. `ino` is what programs see, and is. */
  readonly id: number
  readonly ino: number
  readonly links: number
  readonly ctimeMs: number
}
export interface FileNode extends NodeCommon {
  readonly kind: 'file'
  readonly bytes: FileBytes
  /** What the last completed sync made durable. */
  readonly synced: FileBytes
  /** Stretches whose sync has failed: the kernel counts them as written, and no later sync writes them again. */
  readonly dropped?: readonly (readonly [from: number, to: number])[]
}
export interface DirectoryNode extends NodeCommon {
  readonly kind: 'directory'
  readonly parent: number
  readonly names: ReadonlyMap<string, number>
  /** What the last completed sync made durable. */
  readonly synced: ReadonlyMap<string, number>
  /** Every change of a name since, oldest first. */
  readonly since: readonly NameChange[]
  /** How many changes there have been in all. */
  readonly version: number
}
export interface NameChange {
  readonly name: string
  readonly id: number | undefined
  readonly version: number
  /** Of the name that a rename took away: the name that it gave instead. A journal writes both or neither. */
  readonly movedTo?: { readonly directory: number; readonly name: string; readonly version: number }
}
export interface SymlinkNode extends NodeCommon {
  readonly kind: 'symlink'
  readonly target: string
}
export type Node = FileNode | DirectoryNode | SymlinkNode

const modes = { file: 0o100600, directory: 0o040700, symlink: 0o120777 }

export function statOf(node: Node): FileStat {
  const size = node.kind === 'file' ? node.bytes.length : node.kind === 'directory' ? 4096 : node.target.length
  return { dev: 1, ino: node.ino, size, ctimeMs: node.ctimeMs, mode: modes[node.kind], kind: node.kind }
}

const keys = new WeakMap<Node, string>()

/** Equal for nodes that no program can tell apart. */
export function keyOf(node: Node): string {
  let key = keys.get(node)
  if (key === undefined) {
    key = describedKey(node)
    keys.set(node, key)
  }
  return key
}

function describedKey(node: Node): string {
  const front = `${node.id}:${node.ino}:${node.links}:${node.ctimeMs}:`
  if (node.kind === 'file') return `${front}f${node.bytes.digest}`
  if (node.kind === 'symlink') return `${front}s${node.target}`
  const names = [...node.names].map(([name, id]) => `${name}=${id}`)
  return `${front}d${names.sort().join(',')}`
}

/** Equal for nodes of which the same is durable. */
export function durabilityKeyOf(node: Node): string {
  if (node.kind === 'file') return node.bytes === node.synced ? '' : `${node.id}:${node.synced.digest}`
  if (node.kind === 'symlink' || node.since.length === 0) return ''
  return `${node.id}:${[...node.synced].map(([name, id]) => `${name}=${id}`).sort()}:${node.since.map(({ name, id }) => `${name}=${id}`)}`
}

/** A directory or file once the sync that began when it was `then` has completed. */
export function settled(node: Node, then: Node): Node {
  if (node.kind === 'file' && then.kind === 'file') {
    if (then.bytes.length < node.synced.length) return node
    return { ...node, synced: (then.dropped ?? []).reduce((bytes, [from, to]) => bytes.writeAt(from, Buffer.alloc(to - from)), then.bytes) }
  }
  if (node.kind !== 'directory' || then.kind !== 'directory') return node
  return settledNames(node, ({ version }) => version <= then.version)
}

/** A directory of which those changes are durable now. */
export function settledNames(node: DirectoryNode, durable: (change: NameChange) => boolean): DirectoryNode {
  const names = new Map(node.synced)
  for (const { name, id } of node.since.filter(durable)) {
    if (id === undefined) names.delete(name)
    else names.set(name, id)
  }
  return { ...node, synced: names, since: node.since.filter((change) => !durable(change)) }
}

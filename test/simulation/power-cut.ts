/** What may be found on a disk after the power went off: everything that was synced, and of the rest whatever the kernel happened to
 *  have written. For every name changed since its directory was synced one of the values it has had, each on its own (but a rename
 *  never leaves neither name: journals write both halves at once); for every file any part of the bytes since its last sync. */
import { FileBytes } from './file-bytes.js'
import type { DirectoryNode, FileNode } from './node.js'
import { type Planted, SimulatedDisk } from './simulated-disk.js'

/** Picks one of `options` (0 to options - 1). The first is always to keep everything, the last to lose all that was not synced.
 *  `path` is the directory or the file that it is about. */
export type Choose = (options: number, path: string) => number

/** How far a name has come: how many of its changes are on the disk. */
type Progress = Map<string, number>

export function powerCut(disk: SimulatedDisk, choose: Choose): SimulatedDisk {
  const names = chosenNames(disk, choose)
  const tree = new Map<string, Planted>()
  const files = new Map<number, Planted>()
  const walk = (directory: number, path: string) => {
    for (const [name, id] of [...(names.get(directory) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const node = disk.node(id)
      if (node.kind === 'directory') {
        tree.set(`${path}/${name}`, { kind: 'directory' })
        walk(id, `${path}/${name}`)
      } else if (node.kind === 'symlink') tree.set(`${path}/${name}`, { kind: 'symlink', target: node.target })
      else {
        const planted = files.get(id) ?? { kind: 'file', bytes: chosenBytes(node, (options) => choose(options, `${path}/${name}`)) }
        files.set(id, planted)
        tree.set(`${path}/${name}`, planted)
      }
    }
  }
  walk(disk.root().id, '')
  return SimulatedDisk.durable(tree)
}

/** The names of every directory that can be reached. */
function chosenNames(disk: SimulatedDisk, choose: Choose): Map<number, Map<string, number>> {
  const progress = new Map<number, Progress>()
  const reach = (id: number, path: string) => {
    const node = disk.node(id)
    if (node.kind !== 'directory' || progress.has(id)) return
    const done: Progress = new Map()
    progress.set(id, done)
    for (const [name, changes] of changesOf(node)) done.set(name, changes.length - choose(changes.length + 1, path))
    for (const [name, child] of possibleChildren(node)) reach(child, `${path}/${name}`)
  }
  reach(disk.root().id, '')
  completeRenames(disk, progress)

  const names = new Map([...progress].map(([id, done]) => [id, namesOf(disk.node(id) as DirectoryNode, done)] as const))
  placeDirectoriesOnce(disk, names, choose)
  return names
}

function changesOf(node: DirectoryNode): Map<string, DirectoryNode['since'][number][]> {
  const changes = new Map<string, DirectoryNode['since'][number][]>()
  for (const change of node.since) changes.set(change.name, [...(changes.get(change.name) ?? []), change])
  return changes
}

function possibleChildren(node: DirectoryNode): [name: string, id: number][] {
  return [...node.synced, ...node.since.flatMap(({ name, id }): [string, number][] => (id === undefined ? [] : [[name, id]]))]
}

/** Where a name has gone by a rename, the name it went to has come. */
function completeRenames(disk: SimulatedDisk, progress: ReadonlyMap<number, Progress>): void {
  for (let changed = true; changed; ) {
    changed = false
    for (const [id, done] of progress) {
      for (const [name, changes] of changesOf(disk.node(id) as DirectoryNode)) {
        for (const { movedTo } of changes.slice(0, done.get(name))) {
          const other = movedTo && progress.get(movedTo.directory)
          if (!movedTo || !other) continue
          const target = changesOf(disk.node(movedTo.directory) as DirectoryNode).get(movedTo.name) ?? []
          const needed = target.findIndex(({ version }) => version === movedTo.version) + 1
          if ((other.get(movedTo.name) ?? 0) >= needed) continue
          other.set(movedTo.name, needed)
          changed = true
        }
      }
    }
  }
}

function namesOf(node: DirectoryNode, done: Progress): Map<string, number> {
  const names = new Map(node.synced)
  for (const [name, changes] of changesOf(node)) {
    const last = changes[(done.get(name) ?? 0) - 1]
    if (last?.id !== undefined) names.set(name, last.id)
    else if (last) names.delete(name)
  }
  return names
}

/** A file may have two names for a while; no file system leaves a directory with two. */
function placeDirectoriesOnce(disk: SimulatedDisk, names: ReadonlyMap<number, Map<string, number>>, choose: Choose): void {
  const places = new Map<number, [parent: number, name: string][]>()
  for (const [parent, children] of names)
    for (const [name, id] of children) if (disk.node(id).kind === 'directory') places.set(id, [...(places.get(id) ?? []), [parent, name]])
  for (const found of places.values()) {
    if (found.length < 2) continue
    const kept = found.length - 1 - choose(found.length, '')
    for (const [i, [parent, name]] of found.entries()) if (i !== kept) names.get(parent)!.delete(name)
  }
}

const blockSizes = [512, 4096]

/** The fates of what was written since the last sync, each a way to lose some of it. */
function chosenBytes(node: FileNode, choose: (options: number) => number): FileBytes {
  const { bytes, synced } = node
  const length = bytes.length - synced.length
  if (length <= 0) return node.dropped ? synced : bytes
  const all = Buffer.concat([synced.toBuffer(), bytes.toBuffer().subarray(synced.length)])
  for (const [from, to] of node.dropped ?? []) all.fill(0, from, to)
  const cutAt = (count: number) => FileBytes.of(all.subarray(0, synced.length + count))
  switch (choose(8)) {
    case 0:
      return FileBytes.of(all)
    case 1:
      return withoutBlocks(all, synced.length, blockSizes[choose(2)]!, () => choose(2) === 1)
    case 2: // Everything but the newline.
      return cutAt(length - 1)
    case 3:
      return cutAt(Math.ceil(length / 2))
    case 4:
      return cutAt(choose(length))
    case 5: // The size is there, the bytes are not.
      return FileBytes.of(Buffer.concat([synced.toBuffer(), Buffer.alloc(length)]))
    case 6: // An early block is missing, later ones are there.
      return withoutBlocks(all, synced.length, blockSizes[choose(2)]!, (block) => block === 0)
    default:
      return synced
  }
}

function withoutBlocks(all: Buffer, from: number, blockSize: number, missing: (block: number) => boolean): FileBytes {
  const first = Math.floor(from / blockSize)
  for (let block = first; block * blockSize < all.length; block++) {
    if (missing(block - first)) all.fill(0, Math.max(from, block * blockSize), Math.min(all.length, (block + 1) * blockSize))
  }
  return FileBytes.of(all)
}

export interface PowerCutOptions {
  /** How many to return. */
  readonly most: number
  readonly random: () => number
  /** What is not worth trying in all combinations; at random it is. */
  readonly dull?: (path: string) => boolean
}

/** Disks that may be found, all different: every one where there are at most `most`; else everything kept, everything lost, and a
 *  random choice of those between.
 *  @returns `all` when every combination of what is not dull was tried. */
export function powerCuts(
  disk: SimulatedDisk,
  { most, random, dull = () => false }: PowerCutOptions,
): { all: boolean; disks: SimulatedDisk[] } {
  const found = new Map<string, SimulatedDisk>()
  const add = (choose: Choose) => {
    const after = powerCut(disk, choose)
    found.set(after.key(), after)
  }
  const all = everyChoice(most * 8, (choose) => {
    add((options, path) => (dull(path) ? 0 : choose(options, path)))
    return found.size <= most
  })
  if (!all || found.size > most) found.clear()
  add(() => 0)
  add((options) => options - 1)
  for (let tried = 0; tried < most * 8 && found.size < most; tried++) {
    // Now and then all of one kind: mostly kept, mostly lost.
    const leaning = random()
    add((options) => (random() < leaning ? Math.floor(random() * options) : random() < 0.5 ? 0 : options - 1))
  }
  return { all, disks: [...found.values()] }
}

/** Every way to answer, each once. False when `most` were not enough or the attempt had enough. */
function everyChoice(most: number, attempt: (choose: Choose) => boolean): boolean {
  const taken: { options: number; choice: number }[] = []
  for (let tried = 0; tried < most; tried++) {
    let at = 0
    const go = attempt((options) => {
      taken[at] ??= { options, choice: 0 }
      return taken[at++]!.choice
    })
    if (!go) return false
    taken.length = at
    while (taken.length > 0 && taken.at(-1)!.choice + 1 >= taken.at(-1)!.options) taken.pop()
    const last = taken.at(-1)
    if (!last) return true
    last.choice++
  }
  return false
}

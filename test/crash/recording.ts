/** A scenario on a simulated disk, with the disk as it was after each of its operations, and what had been acknowledged by then. */
import type { Disk } from '../../src/file/durable.js'
import { processDisk } from '../simulation/process-disk.js'
import type { SimulatedDisk } from '../simulation/simulated-disk.js'
import type { Fact } from '../simulation/state.js'

export interface Cut {
  /** The operation that was the last to be done. */
  readonly after: string
  readonly disk: SimulatedDisk
  readonly facts: readonly Fact[]
}

export interface Recording {
  readonly disk: Disk
  note(fact: string): void
  cuts(): Cut[]
}

/** Records what the process `pid` does to the disk. A sync is two operations: until it has ended, it may have done nothing. */
export function recording(disk: SimulatedDisk, pid: number): Recording {
  const view = processDisk(disk, pid)
  const facts: Fact[] = []
  const done: { after: string; disk: SimulatedDisk; facts: number }[] = [{ after: 'nothing', disk: disk.clone(), facts: 0 }]
  // What becomes true before the next operation is true at the cut in front of it.
  const settle = () => Object.assign(done.at(-1)!, { facts: facts.length })
  const record = <T>(after: string, call: () => T): T => {
    settle()
    try {
      return call()
    } finally {
      done.push({ after, disk: disk.clone(), facts: facts.length })
    }
  }
  const recordLater = async (after: string, call: () => Promise<void>): Promise<void> => {
    await call()
    record(after, () => {})
  }
  return {
    note: (fact) => facts.push({ process: 0, fact }),
    cuts() {
      settle()
      return done.map(({ after, disk, facts: count }) => ({ after, disk, facts: facts.slice(0, count) }))
    },
    disk: {
      ...view,
      open: (path, flags) =>
        flags === 'read' || flags === 'appendExisting' ? view.open(path, flags) : record(`open ${path}`, () => view.open(path, flags)),
      write: (fd, bytes) => record(`write ${fd} ${bytes.length}`, () => view.write(fd, bytes)),
      rename: (from, to) => record(`rename ${from} ${to}`, () => view.rename(from, to)),
      link: (from, to) => record(`link ${from} ${to}`, () => view.link(from, to)),
      unlink: (path) => record(`unlink ${path}`, () => view.unlink(path)),
      mkdir: (path) => record(`mkdir ${path}`, () => view.mkdir(path)),
      rmdir: (path) => record(`rmdir ${path}`, () => view.rmdir(path)),
      sync: (fd) => recordLater(`sync ${fd}`, () => view.sync(fd)),
      syncDirectory: (path) => recordLater(`syncDirectory ${path}`, () => view.syncDirectory(path)),
    },
  }
}

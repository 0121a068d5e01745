/** Three ways to count in a file, for testing the explorer: the first two lose counts, the third is the shape of the real thing. */
import { errnoOf } from '../../src/errors.js'
import { type Disk, readFully, writeFully } from '../../src/file/durable.js'
import type { SimulatedProcess } from './machine.js'

export type Counter = (process: SimulatedProcess) => Promise<number>

const file = '/store/counter'

function readCount(disk: Disk): number {
  const fd = disk.open(file, 'read')
  const text = readFully(disk, fd, 0, disk.fstat(fd).size).toString()
  disk.close(fd)
  return Number(text)
}

function writeCount(disk: Disk, stage: string, count: number): void {
  const fd = disk.open(stage, 'create')
  writeFully(disk, fd, Buffer.from(String(count)))
  disk.close(fd)
  disk.rename(stage, file)
}

export function emptyCounter(disk: Disk): void {
  disk.mkdir('/store')
  disk.mkdir('/store/free')
  const fd = disk.open(file, 'create')
  writeFully(disk, fd, Buffer.from('0'))
  disk.close(fd)
}

/** Read, add one, write the whole file: no lock at all. */
export const nakedCounter: Counter = async ({ host }) => {
  const count = readCount(host.disk) + 1
  writeCount(host.disk, `/store/new.${host.identity.pid}`, count)
  return count
}

/** One winner at every acquisition and every takeover, but a holder that was taken over still replaces the file. */
export const unfencedCounter: Counter = async (process) =>
  locked(process, (held) => {
    const count = readCount(process.host.disk) + 1
    writeCount(process.host.disk, `/store/new.${held.slice(held.lastIndexOf('.') + 1)}`, count)
    return count
  })

/** The same with the new file staged inside the directory that is the lock: a takeover carries it off. */
export const fencedCounter: Counter = async (process) =>
  locked(process, (held) => {
    const count = readCount(process.host.disk) + 1
    writeCount(process.host.disk, `${held}/new`, count)
    return count
  })

async function locked(process: SimulatedProcess, work: (held: string) => number): Promise<number> {
  const { disk, identity, clock } = process.host
  const mine = `/store/held.${identity.pid}`
  for (;;) {
    try {
      const holder = disk.readdir('/store').find((name) => /^(free|held)/.test(name))
      const pid = holder?.startsWith('held.') ? Number(holder.slice(5)) : undefined
      if (holder === undefined || (pid !== undefined && process.host.probe(pid).exists)) {
        await clock.sleep(1)
        continue
      }
      disk.rename(`/store/${holder}`, mine)
      for (const staged of disk.readdir(mine)) disk.unlink(`${mine}/${staged}`)
      const count = work(mine)
      release(disk, mine)
      return count
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
}

function release(disk: Disk, mine: string): void {
  try {
    disk.rename(mine, '/store/free')
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error // Lost, but what was committed stands.
  }
}

/** A lock file made with O_EXCL that names its holder: pid, start time, when and for how long at most. What a contender does with a stale one
 *  is what the three rivals built on it differ in. Asynchronous throughout, as those in use are. */
import { randomUUID } from 'node:crypto'
import fs from 'node:fs/promises'
import type { SubjectOptions } from '../../../src/cli/stress/subject.js'
import { probeProcess } from '../../../src/file/lock/identity.js'
import { poll, type RivalLock } from './whole-file.js'

interface Owner {
  readonly pid: number
  readonly startTime: string | undefined
  readonly createdAt: number
  readonly maxHoldMs: number
  readonly nonce: string
}

/** @param text  the lock file's content when it was judged stale */
export type RemoveStale = (path: string, text: string) => Promise<void>

export function lockFile(path: string, { maxHoldMs, waitMs }: SubjectOptions, removeStale: RemoveStale): RivalLock {
  const takeovers = { dead: 0, expired: 0 }
  const { startTime } = startOf(process.pid)
  return {
    takeovers,
    acquire: () =>
      poll(waitMs, async () => {
        const owner: Owner = { pid: process.pid, startTime, createdAt: Date.now(), maxHoldMs, nonce: randomUUID() }
        if (await create(path, JSON.stringify(owner))) return () => release(path, owner)
        const text = await read(path)
        const verdict = text === undefined ? undefined : judge(text)
        if (text === undefined || verdict === undefined) return undefined
        takeovers[verdict]++
        await removeStale(path, text)
        return undefined
      }),
  }
}

async function create(path: string, text: string): Promise<boolean> {
  try {
    await fs.writeFile(path, text, { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Lets go of its own lock only, as far as looking before can tell. */
async function release(path: string, { nonce }: Owner): Promise<void> {
  if ((await read(path))?.includes(nonce)) await remove(path)
}

function judge(text: string): 'dead' | 'expired' | undefined {
  const owner = parse(text)
  // Somebody is about to write it: the careful ones wait.
  if (!owner) return undefined
  const probe = startOf(owner.pid)
  if (!probe.exists || (probe.startTime !== undefined && probe.startTime !== owner.startTime)) return 'dead'
  return Date.now() - owner.createdAt > owner.maxHoldMs ? 'expired' : undefined
}

function parse(text: string): Owner | undefined {
  try {
    return JSON.parse(text) as Owner
  } catch {
    return undefined
  }
}

function startOf(pid: number): { exists: boolean; startTime?: string | undefined } {
  const probe = probeProcess(pid)
  return probe.exists && !probe.zombie ? { exists: true, startTime: probe.startTime } : { exists: false }
}

export async function read(path: string): Promise<string | undefined> {
  try {
    return await fs.readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

export async function remove(path: string): Promise<void> {
  await fs.rm(path, { force: true })
}

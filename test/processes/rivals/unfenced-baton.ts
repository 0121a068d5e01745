/** Rival: Holdfast's own way of taking a lock, by renaming its one entry, so that exactly one contender takes over; but the commit is a plain
 *  rename that does not ask whether the lock is still held (F1). This is what the fence is for. */
import { randomUUID } from 'node:crypto'
import fs from 'node:fs'
import { join } from 'node:path'
import { probeProcess } from '../../../src/file/lock/identity.js'
import { nowMs, openRival, poll } from './whole-file.js'

export const { openSubject } = openRival((path, { maxHoldMs, waitMs }) => {
  const takeovers = { dead: 0, expired: 0 }
  create(path)

  /** `<state>.<n>.<pid>.<acquired at>.<nonce>`. One winner: for everybody else the old name is gone. */
  function attempt(): (() => void) | undefined {
    const [entry] = fs.readdirSync(path)
    if (entry === undefined) return undefined
    const [state, n, pid, at] = entry.split('.')
    const verdict = state === 'free' ? 'free' : judge(Number(pid), Number(at), maxHoldMs)
    if (verdict === undefined) return undefined
    const mine = `held.${Number(n) + 1}.${process.pid}.${Math.round(nowMs())}.${randomUUID()}`
    if (!rename(join(path, entry), join(path, mine))) return undefined
    if (verdict !== 'free') takeovers[verdict]++
    return () => void rename(join(path, mine), join(path, `free.${Number(n) + 1}`))
  }

  return { takeovers, acquire: () => poll(waitMs, attempt) }
})

function create(path: string): void {
  const made = `${path}.${randomUUID()}`
  fs.mkdirSync(join(made, 'free.0'), { recursive: true })
  // Only the first one finds nothing there; an occupied directory is not replaced.
  if (!rename(made, path)) fs.rmSync(made, { recursive: true })
}

function judge(pid: number, at: number, maxHoldMs: number): 'dead' | 'expired' | undefined {
  const probe = probeProcess(pid)
  if (!probe.exists || probe.zombie) return 'dead'
  return nowMs() - at > maxHoldMs ? 'expired' : undefined
}

function rename(from: string, to: string): boolean {
  try {
    fs.renameSync(from, to)
    return true
  } catch (error) {
    if (['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
    throw error
  }
}

/** What the rivals have in common: one JSON file with everything in it, read, changed and replaced by tmp + rename under a lock. Only the
 *  lock differs. Each is the careful version of what is in use: the content is read after locking, the new file is complete before it gets
 *  its name. What they lack is a commit that fails when the lock is gone. */
import { randomUUID } from 'node:crypto'
import fs from 'node:fs'
import { join } from 'node:path'
import { nowUs } from '../../../src/cli/stress/ledger.js'
import type { Fields, StoredLine, Subject, SubjectModule, SubjectOptions } from '../../../src/cli/stress/subject.js'

export interface RivalLock {
  /** Resolves with the way to let go. Throws when it takes longer than waitMs. */
  acquire(): Promise<() => void | Promise<void>>
  readonly takeovers: { dead: number; expired: number }
}

export type MakeLock = (lockPath: string, options: SubjectOptions) => RivalLock

/** What a rival's module exports. */
export function openRival(makeLock: MakeLock): Pick<SubjectModule, 'openSubject'> {
  return { openSubject: async (dir, options) => openWholeFile(dir, options, makeLock) }
}

/** The monotonic clock that all processes share. */
export function nowMs(): number {
  return nowUs() / 1_000
}

function openWholeFile(dir: string, options: SubjectOptions, makeLock: MakeLock): Subject {
  fs.mkdirSync(dir, { recursive: true })
  const dataPath = join(dir, 'data.json')
  const lock = makeLock(join(dir, 'data.json.lock'), options)
  let commits = 0

  async function locked<R>(work: () => R): Promise<R> {
    const release = await lock.acquire()
    try {
      return work()
    } finally {
      await release()
    }
  }

  return {
    update: (keys, change) =>
      locked(() => {
        const entries = readEntries(dataPath)
        for (const key of keys) entries[key] = change(key, entries[key])
        replace(dataPath, JSON.stringify(entries))
        commits++
      }),
    get: async (key) => readEntries(dataPath)[key],
    append: (key, records) =>
      locked(() => {
        const path = join(dir, `${key.replaceAll(':', '.')}.jsonl`)
        const before = readLines(path).length
        fs.appendFileSync(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
        commits++
        return { sessionId: key, seq: before + records.length }
      }),
    async *read(key): AsyncGenerator<StoredLine> {
      for (const [index, line] of readLines(join(dir, `${key.replaceAll(':', '.')}.jsonl`)).entries())
        yield { seq: index + 1, record: JSON.parse(line) as Record<string, unknown> }
    },
    counters: () => ({ commits, reruns: 0, takeoversDead: lock.takeovers.dead, takeoversExpired: lock.takeovers.expired }),
    verify: async () => ({ damage: [], voidLines: 0 }),
    close: async () => {},
  }
}

function readEntries(path: string): Record<string, Fields> {
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8')) as Record<string, Fields>
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
}

function readLines(path: string): string[] {
  return fs.existsSync(path) ? fs.readFileSync(path, 'utf8').split('\n').slice(0, -1) : []
}

function replace(path: string, text: string): void {
  const temporary = `${path}.${randomUUID()}.tmp`
  fs.writeFileSync(temporary, text)
  fs.renameSync(temporary, path)
}

/** Tries until it works or the time is up; `attempt` gives undefined while somebody else holds the lock. */
export async function poll<T>(waitMs: number, attempt: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const deadline = nowMs() + waitMs
  for (;;) {
    const result = await attempt()
    if (result !== undefined) return result
    if (nowMs() > deadline) throw Object.assign(new Error('the lock stayed held'), { code: 'LOCK_TIMEOUT' })
    await new Promise((resolve) => setTimeout(resolve, 1 + Math.random() * 4))
  }
}

/** The usual construction, by the letter: proper-lockfile around reading the whole file, changing it, and writing it with write-file-atomic.
 *  Calls of one process queue in memory first, as careful users of that library do; without this they poll each other. */
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { entryFields, type Fields, sessionKey } from '../harness/data.js'
import { countOf, loadPeer, type Peer, whyMissing } from './peer.js'

interface ProperLockfile {
  lock(
    file: string,
    options: {
      stale: number
      realpath: boolean
      retries: { retries: number; factor: number; minTimeout: number; maxTimeout: number; randomize: boolean }
      onCompromised: (error: Error) => void
    },
  ): Promise<() => Promise<void>>
}
type WriteFileAtomic = (file: string, data: string) => Promise<void>

const fileOf = (dir: string) => join(dir, 'sessions.json')

/** Runs `work` under the lock of `file`; one at a time within the process. */
export function underLock(file: string, staleMs: number): <R>(work: () => Promise<R>) => Promise<R> {
  const { lock } = loadPeer<ProperLockfile>('proper-lockfile')
  const retries = { retries: 10_000, factor: 1.5, minTimeout: 1, maxTimeout: 50, randomize: true }
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const run = last.then(async () => {
      // Its default handler throws from a timer and ends the process; going on is what most users of it do, knowingly or not.
      const release = await lock(file, { stale: staleMs, realpath: false, retries, onCompromised: () => {} })
      try {
        return await work()
      } finally {
        await release().catch(() => {}) // "Lock is not acquired/owned by you": it was taken away meanwhile.
      }
    })
    last = run.catch(() => {})
    return run
  }
}

export const designCard: Peer = {
  name: 'design card',
  promise: 'power',
  rewrites: true,
  missing: () => whyMissing('proper-lockfile') ?? whyMissing('write-file-atomic'),
  async seed(dir, count) {
    const all: Record<string, Fields> = {}
    for (let index = 0; index < count; index++) all[sessionKey(index)] = entryFields(index)
    await writeFile(fileOf(dir), JSON.stringify(all))
  },
  async sessions(dir, options) {
    const write = loadPeer<WriteFileAtomic>('write-file-atomic')
    const locked = underLock(fileOf(dir), options?.staleMs ?? 10_000)
    const read = async () => JSON.parse(await readFile(fileOf(dir), 'utf8')) as Record<string, Fields>
    return {
      update: (key, change) =>
        locked(async () => {
          const all = await read()
          all[key] = change(all[key] ?? {})
          await write(fileOf(dir), JSON.stringify(all))
        }),
      get: async (key) => (await read())[key],
      close: () => {},
    }
  },
  async counters(dir) {
    const all = JSON.parse(await readFile(fileOf(dir), 'utf8')) as Record<string, Fields>
    return new Map(Object.entries(all).map(([key, fields]) => [key, countOf(fields)]))
  },
  async transcripts(dir) {
    const files = new Map<string, { fd: number; locked: ReturnType<typeof underLock> }>()
    const fileFor = (session: string) => {
      const path = join(dir, `${session.replaceAll(':', '-')}.jsonl`)
      const file = files.get(session) ?? { fd: openSync(path, 'a'), locked: underLock(path, 10_000) }
      files.set(session, file)
      return file
    }
    const write = (session: string, text: string) => {
      const { fd, locked } = fileFor(session)
      return locked(async () => {
        writeSync(fd, text)
        fsyncSync(fd)
      })
    }
    return {
      append: (session, record) => write(session, `${JSON.stringify(record)}\n`),
      appendMany: (session, records) => write(session, records.map((record) => `${JSON.stringify(record)}\n`).join('')),
      close: () => {
        for (const { fd } of files.values()) closeSync(fd)
      },
    }
  },
  async recordCount(dir, session) {
    const text = await readFile(join(dir, `${session.replaceAll(':', '-')}.jsonl`), 'utf8')
    return text.split('\n').length - 1
  },
}

/** Brings an archived transcript back as a session of its own. The archive stays as it is.
 *
 *  1 copy its records to a file in `locks/prepared`, sync it    crash: a stray, swept by maintenance
 *  2 lock the new session, rename the file to its name, sync    crash: a transcript that no key names; its records are in the archive all the same
 *  3 commit to the metadata: the key names it, if it names none crash: as 2, or done
 *  No turn goes on in it: what was active is interrupted, what waited is withdrawn. Who waited then has been answered by the session that came
 *  next, or by nobody. */
import type { RestoreOptions, RestoreReceipt } from '../../archives.js'
import type { EntryFrom } from '../../backend.js'
import { errnoOf, StoreError } from '../../errors.js'
import { type ArchiveFile, archiveBytes, feedAll } from '../../file/archives/archive-bytes.js'
import type { Inside } from '../../file/backend.js'
import { makeDirectories, writeFully } from '../../file/durable.js'
import type { Held } from '../../file/lock/baton.js'
import { Chain } from '../../file/log/chain.js'
import { logCorrupt } from '../../file/log/log-file.js'
import { Rechain } from '../../file/log/rechain.js'
import {
  type Header,
  headerPrefix,
  isSystemOnly,
  type LineMark,
  type Seal,
  sealPrefix,
  startsWith,
  systemBody,
} from '../../file/log/record.js'
import { assertNoMark, changed } from '../../file/metadata/view.js'
import { preparedName, removePrepared } from '../../file/transcripts/compaction.js'
import { TurnLog } from '../../file/transcripts/turn-log.js'
import { locate } from './place.js'

const triesMax = 5

export async function restoreArchive(
  inside: Inside,
  archive: string,
  options: RestoreOptions,
  entryFrom: EntryFrom,
): Promise<RestoreReceipt> {
  inside.vital.assertWritable()
  const { key } = options
  if (await inside.metadata.get(key)) throw taken(key)
  const sessionId = inside.host.mintId()
  for (let tries = 0; tries < triesMax; tries++) {
    const file = await locate(inside, archive)
    const records = await withPrepared(inside, sessionId, async (path, fd) => {
      const { records, seal } = await copyOf(inside, file, fd, sessionId, options)
      const entry = entryFrom(seal?.entry) as Record<string, unknown>
      assertNoMark(key, entry)
      await inside.host.disk.sync(fd)
      const work = () =>
        inside.transcripts.pinned(sessionId, key, ({ committer }) =>
          committer.exclusively('restore', options, (held) => put(inside, held, path, sessionId, key, entry)),
        )
      return (await work()) ? records : undefined
    })
    if (records !== undefined) return { key, sessionId, archive, records }
  }
  throw new StoreError('LOCK_LOST', `the lock of the new session of ${JSON.stringify(key)} is lost again and again.`, {
    hint: 'Nothing was written. Try again.',
  })
}

async function withPrepared<R>({ host, places }: Inside, sessionId: string, work: (path: string, fd: number) => Promise<R>): Promise<R> {
  const { disk } = host
  const directory = `${places.locks}/prepared`
  makeDirectories(disk, directory)
  const path = `${directory}/${preparedName(host, sessionId)}`
  const fd = disk.open(path, 'create')
  try {
    return await work(path, fd)
  } finally {
    disk.close(fd)
    removePrepared(disk, path)
  }
}

/** Step 1. How many records it holds that are not the store's own, and what closed it. */
async function copyOf(
  inside: Inside,
  file: ArchiveFile,
  into: number,
  sessionId: string,
  { key, signal, onProgress }: RestoreOptions,
): Promise<{ readonly records: number; readonly seal: Seal | undefined }> {
  const { host, tag } = inside
  const copy = new RestoredLog(sessionId, key, tag + host.nonce(8), host.clock.wallMs())
  const chain = new Chain(tag)
  const total = host.disk.stat(file.path)?.size ?? 0
  let written = 0
  const write = () => {
    for (const made of copy.take()) {
      writeFully(host.disk, into, made)
      written += made.length
    }
  }
  for await (const fed of feedAll(archiveBytes(file, signal), chain, copy.sink(chain))) {
    write()
    onProgress?.(Math.min(fed, total), total)
  }
  if (chain.damage) throw logCorrupt(file.label, chain.damage)
  copy.end(chain)
  write()
  const { size } = host.disk.fstat(into)
  if (size !== written)
    throw new StoreError('IO_FAILED', `a copy has ${size} bytes instead of ${written}.`, { details: { size, bytes: written } })
  onProgress?.(total, total)
  return { records: copy.records, seal: chain.seal }
}

/** Steps 2 and 3. False when the lock was lost before anything was there. */
async function put(
  inside: Inside,
  held: Held,
  from: string,
  sessionId: string,
  key: string,
  entry: Record<string, unknown>,
): Promise<boolean> {
  const { host, places, metadata, transcripts, options } = inside
  const { disk } = host
  const path = transcripts.pathOf(sessionId)
  const staged = `${held.stage}/${host.nonce(12)}`
  held.used = true
  try {
    disk.rename(from, staged)
    disk.rename(staged, path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
  await disk.syncDirectory(places.transcripts)
  const tools = { mintId: () => host.mintId(), nowMs: () => host.clock.wallMs(), checkKey: options.checkKey }
  let refused = false
  await metadata.commitOwn((cellOf) => {
    refused = cellOf(key) !== undefined
    return refused ? [] : [changed(key, undefined, entry, tools, {}, sessionId)]
  }, {})
  if (refused) {
    // Nobody has ever been told of it.
    disk.unlink(path)
    throw taken(key)
  }
  await metadata.durable(true)
  return true
}

function taken(key: string): StoreError {
  return new StoreError('INVALID_KEY', `${JSON.stringify(key)} names a session already.`, {
    details: { key },
    hint: 'Nothing was written. Name a key that no session has; rotate or delete that session first if its key is wanted.',
  })
}

/** The new log, as the old one goes by. */
class RestoredLog {
  records = 0
  #sessionId: string
  #key: string
  #writer: string
  #nowMs: number
  #rechain: Rechain | undefined
  #turns: TurnLog
  #foreign: string[] = []

  constructor(sessionId: string, key: string, writer: string, nowMs: number) {
    this.#sessionId = sessionId
    this.#key = key
    this.#writer = writer
    this.#nowMs = nowMs
    this.#turns = new TurnLog(sessionId)
  }

  sink(chain: Chain) {
    return {
      record: (mark: LineMark, bytes: Buffer, start: number) => {
        this.#turns.note(mark, bytes, start)
        if (mark.prev === 0 && startsWith(bytes, start, headerPrefix)) this.#begin(chain.header!, mark.seq, chain.foreign.lines)
        else if (!startsWith(bytes, start, sealPrefix)) {
          this.#rechain!.add(bytes, start, mark)
          if (!isSystemOnly(bytes, start)) this.records++
        }
      },
      foreignLine: (json: string) => void this.#foreign.push(json),
    }
  }

  take(): Buffer[] {
    return this.#rechain?.take() ?? []
  }

  /** Nothing is active in it, and nothing waits. */
  end(chain: Chain): void {
    if (!this.#rechain) this.#begin({ log: 'transcript', version: 1, createdAt: this.#nowMs }, chain.foreign.lines + 1, chain.foreign.lines)
    const { active, pending } = this.#turns
    const at = this.#nowMs
    if (active)
      this.#rechain!.addBody(systemBody({ turn: { event: 'end', n: active.n, request: active.request, outcome: 'interrupted', at } }))
    else for (const request of pending.keys()) this.#rechain!.addBody(systemBody({ turn: { event: 'withdraw', request, at } }))
  }

  #begin({ ids, turns, sessionId }: Header, seq: number, foreign: number): void {
    const header: Header = {
      log: 'transcript',
      version: 1,
      key: this.#key,
      sessionId: this.#sessionId,
      ...(sessionId !== undefined && { previous: sessionId }),
      ...(ids && { ids }),
      ...(turns && { turns }),
      createdAt: this.#nowMs,
    }
    this.#rechain = new Rechain({ header, seq: foreign > 0 ? 0 : seq, writer: this.#writer })
    if (foreign === 0) return
    // Records of another program: here they are records like any other, and something stands in the place of the header behind them.
    for (const json of this.#foreign.slice(0, foreign)) this.#rechain.addBody(ownText(json))
    this.records += foreign
    this.#rechain.addBody(systemBody({ compacted: { from: 1, at: this.#nowMs } }))
  }
}

/** As one of ours: without white space around it, and without the names that are the log's own. */
function ownText(json: string): string {
  const record = JSON.parse(json) as Record<string, unknown>
  return JSON.stringify(Object.hasOwn(record, '$$') ? { record } : record)
}

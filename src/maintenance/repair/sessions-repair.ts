/** Brings transcripts and metadata together again. Each of these is one rename or one commit. */
import { errnoOf, StoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import type { Held } from '../../file/lock/baton.js'
import { encodeLine, type Header, systemBody } from '../../file/log/record.js'
import { cellOf, deepFreeze, passingEntryOf } from '../../file/metadata/cells.js'
import { replaceFile } from '../../file/stage.js'
import { bringUpToDate } from '../../file/transcripts/care.js'
import type { RepairAction, RepairWork } from '../../repair-plan.js'
import type { Entry } from '../../types.js'
import { changed } from './log-repair.js'
import { assertSame } from './metadata-repair.js'

export type SessionWork = Extract<
  RepairWork,
  { kind: 'finish-work' | 'attach-transcript' | 'archive-transcript' | 'restore-transcript' | 'begin-anew' }
>

export async function repairSession(inside: Inside, action: RepairAction, work: SessionWork, signal?: AbortSignal): Promise<void> {
  for (const requirement of action.requires) assertSame(inside, requirement)
  if (work.kind === 'finish-work') await finish(inside, action, signal)
  else if (work.kind === 'archive-transcript') await archive(inside, action, signal)
  else if (work.kind === 'attach-transcript') await attach(inside, action, JSON.parse(work.entry) as Entry, signal)
  else await underLock(inside, action, (held) => putBack(inside, held, action, work))
}

async function finish(inside: Inside, { key, sessionId }: RepairAction, signal?: AbortSignal): Promise<void> {
  const { transcripts, metadata, options } = inside
  const wait = { waitMs: options.waitMs, signal }
  if (key !== undefined && (await metadata.sessionIdOf(key)) === sessionId) await bringUpToDate(transcripts, key, wait)
  else await transcripts.archiveDropped([{ key: key ?? '', dropped: sessionId }], wait)
}

async function archive({ transcripts, metadata, options }: Inside, { file, key = '', sessionId }: RepairAction, signal?: AbortSignal) {
  for (const cell of (await metadata.cells()).values())
    if (passingEntryOf(cell).sessionId === sessionId) throw changed(file, 'a key names it by now')
  await transcripts.archiveDropped([{ key, dropped: sessionId }], { waitMs: options.waitMs, signal })
}

/** @throws SEQ_CONFLICT  the key names a session by now. Effect none. */
function attach({ metadata, options }: Inside, { file, key }: RepairAction, entry: Entry, signal?: AbortSignal): Promise<void> {
  if (key === undefined) throw changed(file, 'the plan does not say whose it is')
  const json = JSON.stringify(entry)
  return metadata.commitOwn(
    (of) => {
      if (of(key)) throw changed(file, `${JSON.stringify(key)} names a session by now`)
      return [{ key, cell: cellOf(deepFreeze(entry), json), json, dropped: undefined }]
    },
    { waitMs: options.waitMs, signal },
  )
}

async function underLock(inside: Inside, { sessionId }: RepairAction, work: (held: Held) => Promise<void>): Promise<void> {
  const { host, transcripts, options } = inside
  const baton = transcripts.slots.of(sessionId ?? '')
  const held = await baton.acquire({
    does: 'repair',
    waitMs: options.waitMs,
    deadlineMs: host.clock.monotonicMs() + options.waitMs,
  })
  try {
    await work(held)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    throw new StoreError('LOCK_LOST', 'the lock of the transcript was taken over in the middle of it.', {
      hint: 'Nothing was changed. Try again.',
    })
  } finally {
    baton.release(held)
  }
}

/** Where there is none: a copy that was moved away, or a new one. */
async function putBack(
  { host, places, tag }: Inside,
  held: Held,
  { file }: RepairAction,
  work: Extract<SessionWork, { kind: 'restore-transcript' | 'begin-anew' }>,
): Promise<void> {
  const { disk } = host
  const path = `${places.store}/${file}`
  if (disk.stat(path)) throw changed(file, 'it is there')
  if (work.kind === 'restore-transcript') {
    held.used = true
    const staged = `${held.stage}/${host.nonce(12)}`
    disk.rename(`${places.store}/${work.from}`, staged)
    disk.rename(staged, path)
    await disk.syncDirectory(places.transcripts)
    await disk.syncDirectory(places.archive)
    return
  }
  const header = work.header as unknown as Header
  const mark = { seq: work.headerSeq, left: 0, synced: work.headerSeq - 1, writer: tag + host.nonce(8), prev: 0 }
  await replaceFile(host, held, path, [Buffer.from(encodeLine(systemBody({ header }), mark).line)])
  await disk.syncDirectory(places.transcripts)
}

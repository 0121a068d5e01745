/** Puts rebuilt metadata in place.
 *
 *  1 make the new files' bytes again from what the plan was made from   other bytes than planned: refused
 *  2 keep the old files, in quarantine, synced                          crash: a folder too many
 *  3 take the lock, look again, stage the new files                     crash: strays in the stage, emptied by the next holder
 *  4 seal the old journal                                               crash: damaged as before, and closed
 *  5 rename the snapshot, sync the directory                            crash: damaged still: the same plan is made again, from the new snapshot
 *  6 rename the journal, sync the directory                             crash: the new metadata
 *  7 the same with the generation before                                crash: an older generation before
 *
 *  The seal is no checkpoint's: whoever has the old metadata in memory loads the new ones. */
import { crc32 } from 'node:zlib'
import { errnoOf, StoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { readFully } from '../../file/durable.js'
import type { Held } from '../../file/lock/baton.js'
import { encodeLine, type Header, type Seal, systemBody } from '../../file/log/record.js'
import { newJournal } from '../../file/metadata/checkpoint.js'
import { stageFile } from '../../file/stage.js'
import type { MetadataRebuild, RepairAction, RepairPlan, Requirement } from '../../repair-plan.js'
import { changed } from './log-repair.js'
import { type MetadataDraft, planMetadata } from './metadata-plan.js'
import { Quarantine } from './quarantine.js'

export async function repairMetadata(
  inside: Inside,
  plan: RepairPlan,
  action: RepairAction,
  work: MetadataRebuild,
): Promise<string | undefined> {
  const { host, places, metadataBaton: baton, options } = inside
  const again = await planMetadata(inside)
  if (!again) throw changed(action.file, 'the metadata are sound')
  const found = again.draft.work as MetadataRebuild
  if (found.hash !== work.hash || found.how !== work.how) throw changed(action.file, 'something else would come out')
  const quarantine = new Quarantine(host, places.quarantine)
  try {
    await keepOld(inside, plan, action, quarantine)
    const held = await baton.acquire({ does: 'repair', waitMs: options.waitMs, deadlineMs: host.clock.monotonicMs() + options.waitMs })
    try {
      for (const requirement of action.requires) assertSame(inside, requirement)
      if (work.how === 'exact') await replaceSnapshot(inside, held, again, quarantine)
      else await replacePair(inside, held, again, work, quarantine)
    } catch (error) {
      throw errnoOf(error) === 'ENOENT' ? lockLost(quarantine.needed) : error
    } finally {
      baton.release(held)
    }
    await inside.metadata.reload()
    return action.quarantines.length > 0 ? quarantine.label : undefined
  } finally {
    quarantine.discard()
  }
}

function lockLost(begun: boolean): StoreError {
  return new StoreError('LOCK_LOST', 'the lock of the metadata was taken over in the middle of it.', {
    effect: begun ? 'unknown' : 'none',
    hint: 'The old files are in quarantine. Plan anew, and try again.',
  })
}

function pathOf({ places }: Inside, file: string): string {
  return `${places.store}/${file}`
}

async function keepOld(inside: Inside, plan: RepairPlan, action: RepairAction, quarantine: Quarantine): Promise<void> {
  const { disk } = inside.host
  const files: Record<string, { file: string; ranges: readonly { from: number; to: number }[] }> = {}
  for (const { file, ranges } of action.quarantines) {
    const fd = disk.open(pathOf(inside, file), 'read')
    try {
      await quarantine.keep(file, fd, ranges)
    } finally {
      disk.close(fd)
    }
    files[file] = { file, ranges }
  }
  if (action.quarantines.length > 0) await quarantine.note(plan, action, files)
}

/** Whether the file is still what the plan was made from. @throws SEQ_CONFLICT  it is not; effect none. */
export function assertSame(inside: Inside, { file, bytes, crc, mayGrow }: Requirement): void {
  const { disk } = inside.host
  const path = pathOf(inside, file)
  if (!disk.stat(path)) {
    if (bytes === undefined) return
    throw changed(file, 'it is not there any more')
  }
  if (bytes === undefined) throw changed(file, 'it was not there then')
  const fd = disk.open(path, 'read')
  try {
    const { size } = disk.fstat(fd)
    if (size < bytes || (size > bytes && !mayGrow) || crc32(readFully(disk, fd, 0, bytes)) !== crc)
      throw changed(file, 'its bytes are others')
  } finally {
    disk.close(fd)
  }
}

async function replaceSnapshot({ host, places }: Inside, held: Held, { slices }: MetadataDraft, quarantine: Quarantine): Promise<void> {
  const staged = await stageFile(host, held, slices)
  host.disk.rename(staged, places.snapshot)
  quarantine.needed = quarantine.noted
  await host.disk.syncDirectory(places.store)
}

async function replacePair(
  inside: Inside,
  held: Held,
  { draft, slices, last }: MetadataDraft,
  work: MetadataRebuild,
  quarantine: Quarantine,
): Promise<void> {
  const journalBytes = draft.requires.find(({ file }) => file === 'sessions.journal.jsonl')?.bytes
  const { host, places, tag } = inside
  const { disk } = host
  const at = host.clock.wallMs()
  const writer = () => tag + host.nonce(8)
  const snapshot = await stageFile(host, held, slices)
  const journal = await stageFile(host, held, [newJournal(work.hash, work.seq, at, writer())])
  const olderSnapshot = await stageFile(host, held, slices)
  const olderJournal = await stageFile(host, held, [emptyGeneration(work, at, writer())])
  sealOld(inside, last, journalBytes, at)
  disk.rename(snapshot, places.snapshot)
  quarantine.needed = quarantine.noted
  await disk.syncDirectory(places.store)
  disk.rename(journal, places.journal)
  await disk.syncDirectory(places.store)
  disk.rename(olderSnapshot, places.previousSnapshot)
  disk.rename(olderJournal, places.previousJournal)
  await disk.syncDirectory(places.store)
}

/** A journal with nothing in it that leads from the new snapshot to itself. */
function emptyGeneration({ hash, seq }: MetadataRebuild, at: number, writer: string): Buffer {
  const header: Header = { log: 'journal', version: 1, base: hash, createdAt: at }
  const seal: Seal = { reason: 'checkpoint', next: hash, at }
  const first = encodeLine(systemBody({ header }), { seq: seq - 2, left: 1, synced: seq - 3, writer, prev: 0 })
  const second = encodeLine(systemBody({ seal }), { seq: seq - 1, left: 0, synced: seq - 3, writer, prev: first.crc })
  return Buffer.from(first.line + second.line)
}

/** Nothing chains behind a seal: whoever was frozen in the middle of a commit finds that it is void, and commits to the new journal. */
function sealOld({ host, places, tag }: Inside, last: MetadataDraft['last'], planned: number | undefined, at: number): void {
  const { disk } = host
  if (!last || !disk.stat(places.journal)) return
  const fd = disk.open(places.journal, 'appendExisting')
  try {
    const { size } = disk.fstat(fd)
    // Staging took its time: somebody who had lost the lock may have committed meanwhile, and been told so.
    if (size !== planned) throw changed('sessions.journal.jsonl', 'somebody is writing to it')
    const end = readFully(disk, fd, Math.max(0, size - 1), 1)
    const body = systemBody({ seal: { reason: 'suspect', why: 'repair', at } })
    const mark = { seq: last.seq + 1, left: 0, synced: -1, writer: tag + host.nonce(8), prev: last.crc }
    const { line } = encodeLine(body, mark)
    const bytes = Buffer.from(size === 0 || end[0] === 0x0a ? line : `#\n${line}`)
    const wrote = disk.write(fd, bytes)
    if (wrote !== bytes.length) throw Object.assign(new Error('ENOSPC: the disk took a part of a seal, write'), { code: 'ENOSPC' })
    if (disk.fstat(fd).size !== size + bytes.length) throw changed('sessions.journal.jsonl', 'somebody is writing to it')
  } finally {
    disk.close(fd)
  }
}

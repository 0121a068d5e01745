/** Archives a session that nobody wants any more, if it is still as it was when that was decided. Nobody has asked for it by name, unlike with a
 *  deletion: so all that speaks against it is looked at once more, under the locks of the transcript and of the metadata, taken in that order.
 *
 *  1 lock the transcript, look: same file, same length, no turn, no input that waits    crash: nothing has happened
 *  2 commit to the metadata, if the entry is the very same: the key is gone              crash: a transcript that no key names; it is archived
 *                                                                                        by the next maintenance
 *  3 sync the metadata, seal the transcript, sync it                                     the same
 *  4 rename it into the archive, sync both directories                                   done
 *
 *  The key first, unlike with a rotation: a seal is never undone, and whether the entry was changed at the last moment only its own lock tells.
 *  Whoever appends meanwhile waits for the transcript's lock, and then finds that the key is gone, as after any deletion. */
import { isStoreError } from '../../errors.js'
import type { Entry, WaitOptions } from '../../types.js'
import type { Committer } from '../commit.js'
import type { Host } from '../host.js'
import { Preparation } from '../job.js'
import type { Held } from '../lock/baton.js'
import type { LogFile } from '../log/log-file.js'
import { encodeLine, type Header, type Seal, systemBody } from '../log/record.js'
import { type Cell, entryOf } from '../metadata/cells.js'
import type { Metadata } from '../metadata/metadata.js'
import type { Change } from '../metadata/view.js'
import { replaceFile } from '../stage.js'
import { decided } from './receipts.js'
import { isMoved, type Transcript } from './transcript.js'

/** What was decided, and on what. */
export interface Retirement<W extends string> {
  readonly key: string
  readonly sessionId: string
  readonly revision: number
  /** Of the transcript's file then; undefined when there was none. */
  readonly bytes: number | undefined
  readonly why: string
  /** What speaks against it after all. Synchronous; called under both locks, and again when it has to be done over. */
  refuses(entry: Entry): W | undefined
}

export type Retired<W extends string> = 'archived' | 'changed' | 'damaged' | 'unfinished' | 'busy' | 'active-turn' | 'pending-input' | W

export interface RetiringTools {
  readonly host: Host
  readonly metadata: Metadata
  readonly tag: string
  /** The directory. */
  readonly archive: string
  /** Renames the transcript into it, and syncs. */
  moveAway(): Promise<void>
}

const preparationsMax = 20
/** The transcript's lock is held meanwhile: rather another time. */
const metadataWaitMs = 500
const sealTriesMax = 8

export async function retireSession<W extends string>(
  tools: RetiringTools,
  { transcript, committer }: { readonly transcript: Transcript; readonly committer: Committer },
  retirement: Retirement<W>,
  wait: WaitOptions,
): Promise<Retired<W>> {
  for (let tries = 0; tries < preparationsMax; tries++) {
    try {
      return await committer.exclusively('retain', wait, (held) => retireHeld(tools, transcript, committer, retirement, held))
    } catch (error) {
      if (error instanceof Preparation) {
        // A suspect file, that the next writer writes anew: then it is looked at again.
        if (error.need === 'locked') return 'unfinished'
        await transcript.prepare('unlocked', undefined)
      } else if (isMoved(error)) return 'changed'
      else if (isStoreError(error, 'LOG_CORRUPT')) return 'damaged'
      else if (isStoreError(error, 'LOCK_TIMEOUT')) return 'busy'
      else throw error
    }
  }
  return 'changed'
}

async function retireHeld<W extends string>(
  tools: RetiringTools,
  transcript: Transcript,
  committer: Committer,
  retirement: Retirement<W>,
  held: Held,
): Promise<Retired<W>> {
  const log = openedAsIs(tools, transcript, retirement)
  if (log === 'changed') return log
  const waiting = log && refusalOf(transcript)
  if (waiting) return waiting
  const refusal = await dropKey(tools, transcript, log, retirement)
  if (refusal) return refusal
  const { key, why } = retirement
  const seal: Seal = { reason: 'deleted', key, why, at: tools.host.clock.wallMs() }
  try {
    // Before the archive has it: a power cut must not leave a key whose session is gone.
    await tools.metadata.durable(true)
    if (log) {
      await sealed(committer, log, seal)
      await tools.moveAway()
    } else await archiveNothing(tools, transcript, seal, held)
  } catch (error) {
    throw decided(error)
  }
  return 'archived'
}

/** Its log; undefined when it has none. */
function openedAsIs<W extends string>(
  { host }: RetiringTools,
  transcript: Transcript,
  { bytes }: Retirement<W>,
): LogFile | undefined | 'changed' {
  const there = host.disk.stat(transcript.place.path)
  if (there?.size !== bytes) return 'changed'
  if (!there) {
    transcript.assertNotMissing()
    return undefined
  }
  const log = transcript.refresh()
  return log.size === bytes ? log : 'changed'
}

/** A request that nobody has answered yet; one whose process has died, too, is somebody's message. */
function refusalOf({ turns }: Transcript): 'pending-input' | undefined {
  return turns.pending.size > 0 ? 'pending-input' : undefined
}

/** Step 2. What speaks against it; undefined when the key is gone. */
async function dropKey<W extends string>(
  { host, metadata }: RetiringTools,
  transcript: Transcript,
  log: LogFile | undefined,
  { key, sessionId, revision, refuses }: Retirement<W>,
): Promise<Retired<W> | undefined> {
  let refusal: Retired<W> | undefined
  const decide = (cellOf: (key: string) => Cell | undefined): Change[] => {
    const cell = cellOf(key)
    const entry = cell && entryOf(cell)
    // Compared whole: a session id that begins like another's is another.
    if (entry?.sessionId !== sessionId || entry.revision !== revision) refusal = 'changed'
    else refusal = refuses(entry)
    // Last: were the transcript's lock lost meanwhile, its next holder may have written.
    if (refusal === undefined && (log ? log.refresh() !== 'current' : host.disk.stat(transcript.place.path))) refusal = 'changed'
    return refusal === undefined ? [{ key, cell: undefined, json: '', dropped: sessionId }] : []
  }
  await metadata.commitOwn(decide, { waitMs: metadataWaitMs })
  return refusal
}

/** Step 3. Void only when the lock was lost, to somebody who has found that the key is gone. */
async function sealed(committer: Committer, log: LogFile, seal: Seal): Promise<void> {
  for (let tries = 0; tries < sealTriesMax && !log.chain.seal; tries++) {
    try {
      if (committer.appendHeld(log, [systemBody({ seal })])) break
    } catch (error) {
      // On a full disk it is archived without: a rename takes no room.
      if (isStoreError(error, 'DISK_FULL')) return
      throw error
    }
    log.readOn()
  }
  await log.durable(log.chain.seq)
}

/** It never had a transcript: a record of why it is gone, at least. */
async function archiveNothing({ host, tag, archive }: RetiringTools, { sessionId }: Transcript, seal: Seal, held: Held) {
  const header: Header = { log: 'transcript', version: 1, key: seal.key!, sessionId, createdAt: seal.at }
  const writer = tag + host.nonce(8)
  const first = encodeLine(systemBody({ header }), { seq: 0, left: 0, synced: -1, writer, prev: 0 })
  const last = encodeLine(systemBody({ seal }), { seq: 1, left: 0, synced: -1, writer: tag + host.nonce(8), prev: first.crc })
  await replaceFile(host, held, `${archive}/${sessionId}.jsonl`, [Buffer.from(first.line + last.line)])
  await host.disk.syncDirectory(archive)
}

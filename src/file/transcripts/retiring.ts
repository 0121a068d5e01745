/** Closes a session that nobody wants any more, if it is still as it was when that was decided. Nobody has asked for it by name, unlike with a
 *  deletion: so all that speaks against it is looked at once more, under the locks of the transcript and of the metadata, taken in that order.
 *
 *  1 lock the transcript, look: same file, same length, no input that waits             crash: nothing has happened
 *  2 lock the metadata, look: the very same entry, not in use, nobody objects           the same
 *  3 seal the transcript with `deleted`, sync it                                        crash: decided; whoever comes next does the rest, as of
 *                                                                                       any deletion
 *  4 remove the key, under the same lock of the metadata                                the same
 *  5 release both; archive it (transcripts.ts)                                          done
 *
 *  The metadata's lock is held for the sync of the seal, so that no change of the entry comes between 2 and 4: a seal is never undone. Were a lock
 *  lost meanwhile, 3 finds that it is void, or 4 is left to 5, which removes the key all the same. */
import { errnoOf, isStoreError } from '../../errors.js'
import type { Entry, WaitOptions } from '../../types.js'
import type { Committer } from '../commit.js'
import type { Host } from '../host.js'
import { Preparation } from '../job.js'
import type { Held } from '../lock/baton.js'
import type { LogFile } from '../log/log-file.js'
import { encodeLine, type Header, type Seal, systemBody } from '../log/record.js'
import { encodeOp } from '../metadata/journal.js'
import type { Metadata } from '../metadata/metadata.js'
import { replaceFile } from '../stage.js'
import { deletedSeal } from './open.js'
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

/** archived: as good as; the seal stands, and what it says is to be done. */
export type Retired<W extends string> = 'archived' | 'changed' | 'damaged' | 'unfinished' | 'busy' | 'active-turn' | 'pending-input' | W

export interface RetiringTools {
  readonly host: Host
  readonly metadata: Metadata
  readonly tag: string
}

const preparationsMax = 20
/** The transcript's lock is held meanwhile: rather another time. */
const metadataWaitMs = 500

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
  const { metadata, host } = tools
  return metadata.committer.exclusively('retain', { waitMs: metadataWaitMs }, async (heldMetadata) => {
    await upToDate(metadata, heldMetadata)
    const refusal = refusalNow(tools, transcript, log, retirement)
    if (refusal) return refusal
    const { key, sessionId, why } = retirement
    const seal = deletedSeal(key, metadata.lastKnown(key), host.clock.wallMs(), why)
    if (!(await closed(tools, transcript, committer, log, seal, held))) return 'changed'
    metadata.committer.appendHeld(metadata.refresh(), [encodeOp({ key, cell: undefined, json: '', dropped: sessionId })])
    return 'archived'
  })
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

async function upToDate(metadata: Metadata, held: Held): Promise<void> {
  for (let tries = 0; tries < preparationsMax; tries++) {
    try {
      metadata.refresh()
      return
    } catch (error) {
      if (!(error instanceof Preparation)) throw error
      await metadata.prepare(error.need, held)
    }
  }
}

/** Step 2. The metadata are up to date, and the caller holds their lock. */
function refusalNow<W extends string>(
  { host, metadata }: RetiringTools,
  transcript: Transcript,
  log: LogFile | undefined,
  { key, sessionId, revision, refuses }: Retirement<W>,
): Retired<W> | undefined {
  const entry = metadata.lastKnown(key)
  // Compared whole: a session id that begins like another's is another.
  if (entry?.sessionId !== sessionId || entry.revision !== revision) return 'changed'
  const refusal = refuses(entry)
  if (refusal) return refusal
  // Last: were the transcript's lock lost meanwhile, its next holder may have written.
  return (log ? log.refresh() !== 'current' : host.disk.stat(transcript.place.path)) ? 'changed' : undefined
}

/** Step 3. False when the lock was lost, and nothing happened. */
async function closed(
  { host, tag }: RetiringTools,
  transcript: Transcript,
  committer: Committer,
  log: LogFile | undefined,
  seal: Seal,
  held: Held,
): Promise<boolean> {
  if (log) {
    // A log in which there is no record yet begins with its header: a seal without one would be damage.
    if (!committer.appendHeld(log, [...transcript.beginBatch(log), systemBody({ seal })])) return false
    await log.durable(log.chain.seq)
    return true
  }
  // It never had a transcript: now it has one that says why it is gone.
  const header: Header = { log: 'transcript', version: 1, key: transcript.key, sessionId: transcript.sessionId, createdAt: seal.at }
  const first = encodeLine(systemBody({ header }), { seq: 0, left: 0, synced: -1, writer: tag + host.nonce(8), prev: 0 })
  const last = encodeLine(systemBody({ seal }), { seq: 1, left: 0, synced: -1, writer: tag + host.nonce(8), prev: first.crc })
  try {
    await replaceFile(host, held, transcript.place.path, [Buffer.from(first.line + last.line)])
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
  await host.disk.syncDirectory(transcript.directory)
  try {
    transcript.refresh()
  } catch (error) {
    if (!isMoved(error)) throw error // As it should be: it is opened, and sealed.
  }
  return true
}

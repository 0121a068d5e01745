/** Transcripts whose keys are deleted, says the journal, and that whoever deleted them has not closed: it died before it could. They are sealed
 *  and archived, as it would have done. Any other transcript that no key names is left for `verify` to tell of: it may be the metadata that
 *  has lost something. */
import type { Inside } from '../../file/backend.js'
import { readFully } from '../../file/durable.js'
import type { Pace } from '../pace.js'
import { namedSessions } from './place.js'

export interface Deleted {
  readonly key: string
  readonly sessionId: string
}

const waitMs = 2_000
const deletion = /^\{"op":"del","key":("(?:[^"\\]|\\.)*"),"sessionId":"([0-9a-f-]{36})","\$":"[^"]*"\}$/gm

export async function* archiveDeleted(inside: Inside, pace: Pace): AsyncGenerator<Deleted> {
  const { host, transcripts, vital } = inside
  vital.assertWritable()
  const left = deletions(inside).filter(({ sessionId }) => host.disk.stat(transcripts.pathOf(sessionId)))
  if (left.length === 0) return
  const named = await namedSessions(inside)
  for (const { key, sessionId } of left) {
    await pace.breathe()
    if (named.has(sessionId)) continue
    await transcripts.archiveDropped([{ key, dropped: sessionId }], { waitMs, signal: pace.signal })
    yield { key, sessionId }
  }
}

/** As far as the journals go back. */
function deletions({ host, places }: Inside): Deleted[] {
  const found = new Map<string, string>()
  for (const path of [places.previousJournal, places.journal]) {
    if (!host.disk.stat(path)) continue
    const fd = host.disk.open(path, 'read')
    try {
      const text = readFully(host.disk, fd, 0, host.disk.fstat(fd).size).toString('utf8')
      for (const [, key, sessionId] of text.matchAll(deletion)) found.set(sessionId!, JSON.parse(key!) as string)
    } finally {
      host.disk.close(fd)
    }
  }
  return [...found].map(([sessionId, key]) => ({ key, sessionId }))
}

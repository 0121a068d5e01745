/** Reads on in a transcript that a rotation or a deletion has closed, wherever it lies by now: its records after `after`, then, as the
 *  generator's return value, the session id in which the conversation goes on (undefined: nowhere, or the file is gone). */
import { resolve } from 'node:path'
import { errnoOf } from '../errors.js'
import { nodeDisk } from '../file/durable.js'
import { readIdentity } from '../file/lock/identity.js'
import { bootTag } from '../file/log/chain.js'
import { openTail } from '../file/log/tail.js'
import { readRange, type Source } from '../file/transcripts/reading.js'
import type { StoredRecord } from '../index.js'

export async function* readClosed(store: string, sessionId: string, after: number): AsyncGenerator<StoredRecord, string | undefined> {
  const tag = bootTag(readIdentity().boot)
  // Archiving is a rename: a file that was in neither place when looked for has moved between the looks.
  for (const folder of ['transcripts', 'archive', 'transcripts', 'archive']) {
    const label = `${folder}/${sessionId}.jsonl`
    const source: Source = { disk: nodeDisk, path: `${resolve(store)}/${label}`, label, tag, readers: new Set() }
    if (yield* readRange(source, { after, limit: Number.POSITIVE_INFINITY })) return nextOf(store, sessionId, tag)
  }
  return undefined
}

/** What the seal at the end says. */
function nextOf(store: string, sessionId: string, tag: string): string | undefined {
  for (const folder of ['transcripts', 'archive']) {
    try {
      const fd = nodeDisk.open(`${resolve(store)}/${folder}/${sessionId}.jsonl`, 'read')
      try {
        return openTail(nodeDisk, fd, nodeDisk.fstat(fd).size, tag, { records: 1 }).seal?.next
      } finally {
        nodeDisk.close(fd)
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
  return undefined
}

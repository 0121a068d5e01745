/** What verify has to know of an entry, found without parsing it: an entry's own members come first, its high-water mark last. */
import { stringAt, stringEnd } from '../../file/metadata/cells.js'
import { type HighWaterMark, markAt } from '../../file/metadata/mark.js'

export interface NamedSession {
  readonly sessionId: string
  /** How far its transcript is known to be on the disk. */
  readonly mark: HighWaterMark | undefined
}

/** Of every key, at one moment. */
export type NamedSessions = Map<string, NamedSession>

const front = '{"sessionId":"'
const idLength = 36
const idPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

export function isSessionId(text: string): boolean {
  return idPattern.test(text)
}

/** The entry between two places; why it is none, in words.
 *  @param whole  its end is in `bytes`, too */
export function readEntry(bytes: Buffer, start: number, end: number, whole: boolean): NamedSession | string {
  const at = start + front.length
  if (bytes.toString('latin1', start, at) === front && bytes[at + idLength] === 0x22) {
    const sessionId = bytes.toString('latin1', at, at + idLength)
    if (!idPattern.test(sessionId)) return 'its session id is none'
    if (!whole) return { sessionId, mark: undefined }
    return bytes[end - 1] === 0x7d ? { sessionId, mark: markAt(bytes, start, end)?.mark } : 'it does not end as an object does'
  }
  return whole ? parseEntry(bytes.toString('utf8', start, end)) : 'it does not begin as an entry does'
}

/** The same, to the last byte; for whoever looks for what is wrong. */
export function parseEntry(json: string): NamedSession | string {
  let entry: Record<string, unknown> | null
  try {
    entry = JSON.parse(json) as Record<string, unknown> | null
  } catch {
    return 'it is no JSON'
  }
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return 'it is no object'
  const { sessionId } = entry
  if (typeof sessionId !== 'string' || !idPattern.test(sessionId)) return 'its session id is none'
  const lacking = ['createdAt', 'updatedAt', 'revision'].find((name) => !Number.isFinite(entry[name]))
  if (lacking) return `its ${lacking} is no number`
  const bytes = Buffer.from(json)
  return { sessionId, mark: markAt(bytes, 0, bytes.length)?.mark }
}

/** The key that begins at `start`, and where it ends; undefined when it is no JSON string. */
export function readKey(bytes: Buffer, start: number): { key: string; end: number } | undefined {
  if (bytes[start] !== 0x22) return undefined
  const found = stringEnd(bytes, start)
  if (found.end < 0) return undefined
  try {
    return { key: stringAt(bytes, start, found), end: found.end }
  } catch {
    return undefined
  }
}

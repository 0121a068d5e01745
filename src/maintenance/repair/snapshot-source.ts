/** What is left of a snapshot: entry by entry, as the text that stands there. */
import { hashOf } from '../../file/metadata/snapshot.js'

export interface StoredEntry {
  readonly sessionId: string
  readonly createdAt: number
  readonly updatedAt: number
  readonly revision: number
  /** As it is stored: with the store's own field `$` where it has one. */
  readonly json: string
}

export interface SnapshotSource {
  readonly hash: string
  /** Every entry of it could be read. */
  readonly whole: boolean
  readonly entries: Map<string, StoredEntry>
  /** Keys whose entries cannot be read. */
  readonly broken: readonly string[]
  /** Lines of which not even the key can be read. */
  readonly unreadable: number
}

const sessionIdPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const linePattern = /^\s*("(?:[^"\\]|\\.)*")\s*:\s*(\{.*\})\s*,?\s*$/
const keyPattern = /^\s*("(?:[^"\\]|\\.)*")\s*:/

export function snapshotSource(bytes: Buffer): SnapshotSource {
  const text = bytes.toString('utf8')
  const hash = hashOf(bytes)
  const lines = lineByLine(text)
  // As the store writes it; else any layout will do, if only it is an object.
  if (text.startsWith('{\n') && text.endsWith('}\n') && lines.broken.length + lines.unreadable === 0) return { hash, whole: true, ...lines }
  const parsed = objectIn(text)
  if (!parsed) return { hash, whole: false, ...lines }
  const entries = new Map<string, StoredEntry>()
  const broken: string[] = []
  for (const [key, value] of Object.entries(parsed)) {
    const entry = storedEntry(value)
    if (entry) entries.set(key, entry)
    else broken.push(key)
  }
  return { hash, whole: broken.length === 0, entries, broken, unreadable: 0 }
}

function objectIn(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

/** The store writes one entry a line, so damage of one leaves the others. */
function lineByLine(text: string): Pick<SnapshotSource, 'entries' | 'broken' | 'unreadable'> {
  const entries = new Map<string, StoredEntry>()
  const broken: string[] = []
  let unreadable = 0
  for (const line of text.split('\n')) {
    if (/^[\s{}\0]*$/.test(line)) {
      if (line.includes('\0')) unreadable++
      continue
    }
    const found = linePattern.exec(line)
    const key = stringIn(found?.[1] ?? keyPattern.exec(line)?.[1])
    const entry = found && storedEntry(objectIn(found[2]!))
    if (key !== undefined && entry) entries.set(key, entry)
    else if (key !== undefined) broken.push(key)
    else unreadable++
  }
  return { entries, broken, unreadable }
}

function stringIn(json: string | undefined): string | undefined {
  try {
    return json === undefined ? undefined : (JSON.parse(json) as string)
  } catch {
    return undefined
  }
}

/** undefined for what names no session: that is what an entry is for. */
export function storedEntry(value: unknown): StoredEntry | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  const { sessionId, createdAt, updatedAt, revision, ...rest } = value as Record<string, unknown>
  if (typeof sessionId !== 'string' || !sessionIdPattern.test(sessionId)) return undefined
  // Somebody's own editing may have left out what only the store needs.
  const created = finite(createdAt) ?? finite(updatedAt) ?? 0
  const facts = { sessionId, createdAt: created, updatedAt: finite(updatedAt) ?? created, revision: finite(revision) ?? 1 }
  return { ...facts, json: JSON.stringify({ ...facts, ...rest }) }
}

function finite(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** An OpenClaw sessions directory: sessions.json maps session key → `{ sessionId, updatedAt, sessionFile?, … }`, transcripts lie beside it
 *  as `<sessionId>.jsonl` (a Telegram topic's as `<sessionId>-topic-<thread>.jsonl`), in pi's format. */
import type { Described } from './source.js'

export type SessionsJson =
  | { readonly kind: 'sessions'; readonly described: readonly Described[]; readonly refused: readonly { key: string; why: string }[] }
  | { readonly kind: 'damaged'; readonly why: string }

/** What the store itself keeps in an entry, and what only made sense where the old transcript lay. */
const ownNames = new Set(['sessionId', 'createdAt', 'updatedAt', 'revision', 'sessionFile', 'imported'])

export function parseSessionsJson(text: string): SessionsJson {
  if (text.trim() === '') return { kind: 'damaged', why: 'it is empty' }
  let value: unknown
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ''))
  } catch (error) {
    return { kind: 'damaged', why: text.includes('\0') ? 'it holds NUL bytes' : `it is not JSON (${(error as Error).message})` }
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { kind: 'damaged', why: 'it is not a JSON object' }
  const described: Described[] = []
  const refused: { key: string; why: string }[] = []
  for (const [key, entry] of Object.entries(value)) {
    const found = describe(key, entry)
    if (typeof found === 'string') refused.push({ key, why: found })
    else described.push(found)
  }
  return { kind: 'sessions', described, refused }
}

function describe(key: string, entry: unknown): Described | string {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) return 'its entry in sessions.json is not an object'
  const { sessionId, updatedAt, sessionFile } = entry as Record<string, unknown>
  if (typeof sessionId !== 'string' || sessionId === '') return 'its entry in sessions.json has no sessionId'
  // A name, never a path: what sessions.json says must not lead out of its directory.
  if (/[/\\\0]/.test(sessionId) || sessionId.startsWith('.')) return `its sessionId ${JSON.stringify(sessionId)} cannot be a file name`
  return {
    key,
    sessionId,
    fileNames: fileNames(sessionId, key, sessionFile),
    fields: Object.fromEntries(Object.entries(entry).filter(([name]) => !ownNames.has(name))),
    updatedAt: typeof updatedAt === 'number' ? updatedAt : undefined,
  }
}

/** `sessionFile` is often an absolute path of the machine it was written on; transcripts lie directly beside sessions.json. */
function fileNames(sessionId: string, key: string, sessionFile: unknown): string[] {
  const named = typeof sessionFile === 'string' ? sessionFile.trim().split(/[/\\]/).at(-1) : undefined
  const topic = /:topic:([^:]+)$/.exec(key)?.[1]
  return [
    ...(named?.endsWith('.jsonl') ? [named] : []),
    ...(topic === undefined ? [] : [`${sessionId}-topic-${encodeURIComponent(topic)}.jsonl`]),
    `${sessionId}.jsonl`,
  ]
}

const archived = /\.(?:reset|deleted|bak)\.\d{4}-\d{2}-\d{2}T[\d.-]+Z(?:\.\w+)?$/
const checkpoint = /\.checkpoint\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.jsonl$/i

/** live: a conversation, whether or not a key still names it · reset: one that a reset put aside · other: copies, traces, deleted ones. */
export function judgeFileName(name: string): 'live' | 'reset' | 'other' {
  if (/\.jsonl\.reset\.\d{4}-/.test(name) && archived.test(name) && name.endsWith('Z')) return 'reset'
  if (!name.endsWith('.jsonl') || name.endsWith('.trajectory.jsonl') || checkpoint.test(name)) return 'other'
  return 'live'
}

/** The session id in the name of a transcript that no key names. */
export function idOfFileName(name: string): string {
  return name.replace(/\.jsonl(?:\.reset\..*)?$/, '')
}

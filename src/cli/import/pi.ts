/** pi session files, versions 1 to 3: a header line, then one entry a line.
 *  1: no `version`, no ids · 2: `id` and `parentId`, a tree · 3: the role `hookMessage` is called `custom`.
 *  Every line is kept as it is, the header as the first record; nothing is migrated. */
import { basename } from 'node:path'
import type { Imported } from './source.js'

type Fields = Readonly<Record<string, unknown>>

export interface PiIdentity {
  /** The session key it gets unless somebody names another. */
  readonly key: string
  readonly imported: Imported
  readonly headless: boolean
}

export type PiVerdict = { readonly kind: 'pi'; readonly identity: PiIdentity } | { readonly kind: 'refused'; readonly why: string }

const versionMax = 3
/** Types that pi and OpenClaw write. A file that lost its header is known by the first one. */
const entryTypes = new Set([
  'message',
  'thinking_level_change',
  'model_change',
  'compaction',
  'branch_summary',
  'custom',
  'custom_message',
  'label',
  'session_info',
  'context_transform',
  'ephemeral',
])

/** Judges a file by its first readable line.
 *  @param first  that line's object, undefined when no line could be read */
export function identifyPi(first: Fields | undefined, path: string): PiVerdict {
  const file = basename(path)
  if (!first) return { kind: 'refused', why: 'no line of it could be read, so it is not taken for a session' }
  if (first.type === 'session') return identifyHeader(first, file)
  if (typeof first.type === 'string' && entryTypes.has(first.type)) {
    const sessionId = idFromName(file)
    return { kind: 'pi', identity: { key: keyOf(stem(file), sessionId), imported: { format: 'pi', sessionId, file }, headless: true } }
  }
  return { kind: 'refused', why: 'not a pi session file: its first line is neither a session header nor an entry' }
}

function identifyHeader(header: Fields, file: string): PiVerdict {
  const version = header.version ?? 1
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1 || version > versionMax)
    return { kind: 'refused', why: `its header says version ${JSON.stringify(version)}; this release reads 1 to ${versionMax}` }
  const sessionId = typeof header.id === 'string' && header.id !== '' ? header.id : idFromName(file)
  const cwd = text(header.cwd)
  const startedAt = text(header.timestamp)
  const parentSession = text(header.parentSession) ?? text(header.branchedFrom)
  const imported: Imported = {
    format: 'pi',
    sessionId,
    file,
    version,
    ...(cwd === undefined ? {} : { cwd }),
    ...(startedAt === undefined ? {} : { startedAt }),
    ...(parentSession === undefined ? {} : { parentSession }),
  }
  return { kind: 'pi', identity: { key: keyOf(cwd === undefined ? stem(file) : lastPart(cwd), sessionId), imported, headless: false } }
}

/** `pi:<directory or file>:<session id>`: the project is what a person looks for, the id makes it one of a kind. */
function keyOf(place: string, sessionId: string): string {
  const clean = (part: string, lengthMax: number) => part.replace(/[\p{Cc}\p{Cs}\p{Z}:]+/gu, '-').slice(0, lengthMax)
  const where = clean(place, 64)
  const id = clean(sessionId, 200)
  return where === '' || where === id ? `pi:${id}` : `pi:${where}:${id}`
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** Of a path of any system. */
function lastPart(path: string): string {
  return path.split(/[/\\]/).filter(Boolean).at(-1) ?? ''
}

function stem(file: string): string {
  return file.replace(/\.jsonl$/i, '')
}

/** pi names files `<time>_<session id>.jsonl`. */
function idFromName(file: string): string {
  return /_([0-9a-f]{8}-[0-9a-f-]{27})$/i.exec(stem(file))?.[1] ?? stem(file)
}

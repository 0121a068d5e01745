/** Files that are no logs in use, compared by their content. */
import { createHash } from 'node:crypto'
import type { FileRow } from '../repository/repository.js'
import type { Side } from './sides.js'

export interface FileChange {
  readonly path: string
  readonly what: 'added' | 'removed' | 'changed'
  /** Bytes that are never written again have changed, or the metadata is gone. */
  readonly alarming: boolean
}

const mainLog = /^(?:transcripts|archive)\/[0-9a-f-]{36}\.jsonl(?:\.gz)?$/
/** Written all the time; whether they fit together is looked at when they are read. */
const restless = /^sessions\.(prev\.)?(journal\.jsonl|json)$/
const vital = ['sessions.json', 'sessions.journal.jsonl', 'holdfast.json']

export async function changedFiles(then: Side, now: Side): Promise<FileChange[]> {
  const [before, after] = [then, now].map(byPath) as [Map<string, FileRow>, Map<string, FileRow>]
  const seesIncluded = now.rows.some(({ role }) => role === 'included')
  const changes: FileChange[] = []
  for (const [path, row] of before) {
    const other = after.get(path)
    if (row.role === 'included' && !seesIncluded) continue
    if (!other) {
      if (!isCompressedNow(path, after)) changes.push({ path, what: 'removed', alarming: vital.includes(path) })
    } else if (!restless.test(path) && !(await isSame(then, row, now, other)))
      changes.push({ path, what: 'changed', alarming: path === 'holdfast.json' || row.role === 'archive' })
  }
  for (const path of after.keys()) if (!before.has(path)) changes.push({ path, what: 'added', alarming: false })
  return changes.sort((a, b) => Number(b.alarming) - Number(a.alarming) || (a.path < b.path ? -1 : 1))
}

function byPath({ rows }: Side): Map<string, FileRow> {
  return new Map(rows.filter(({ path, type }) => type !== 'directory' && !mainLog.test(path)).map((row) => [row.path, row]))
}

function isCompressedNow(path: string, after: ReadonlyMap<string, FileRow>): boolean {
  return path.endsWith('.jsonl') && after.has(`${path}.gz`)
}

async function isSame(then: Side, a: FileRow, now: Side, b: FileRow): Promise<boolean> {
  if (a.type !== b.type || a.bytes !== b.bytes || a.linkTo !== b.linkTo) return false
  if (a.type !== 'file') return true
  if (a.chunks.length > 0 && a.chunks.length === b.chunks.length && a.chunks.every(([name], at) => name === b.chunks[at]![0])) return true
  return (await hashOf(then, a)) === (await hashOf(now, b))
}

async function hashOf(side: Side, row: FileRow): Promise<string> {
  if (row.sha256 !== undefined) return row.sha256
  const hash = createHash('sha256')
  for await (const piece of side.bytes(row)) hash.update(piece)
  return hash.digest('hex')
}

/** The manifest of a snapshot: a root object under the snapshot's name, and the list of its files, one line of JSON each, cut into chunks
 *  like a file's content, so that a snapshot in which little has changed costs little. */
import { z } from 'zod'
import { StoreError } from '../../errors.js'
import type { ChunkRef, FileRow, Manifest, SnapshotInfo } from './repository.js'
import { mismatch, openText, sealText, snapshotName, timeOfSnapshot, type Vault } from './vault.js'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const count = z.int().min(0)
const chunkRef = z.tuple([hex64, count])

const isPlainPath = (path: string) => path.split('/').every((part) => part !== '' && part !== '.' && part !== '..') && !path.includes('\0')

const filePath = z.string().min(1).max(4096).refine(isPlainPath, 'must be relative, without empty parts, . and ..')

const rowSchema = z
  .object({
    path: filePath,
    role: z.enum(['metadata', 'transcript', 'archive', 'quarantine', 'included']),
    type: z.enum(['file', 'directory', 'symlink']),
    mode: z.int().min(0).max(0o7777),
    mtimeMs: z.number(),
    linkTo: z.string().max(4096).optional(),
    identity: z.object({ dev: z.number(), ino: z.number(), size: z.number(), ctimeMs: z.number() }).optional(),
    session: z
      .object({
        key: z.string().max(512).optional(),
        sessionId: z.string().max(64),
        lastSeq: z.int().min(-1),
        lastCrc: z.string().regex(/^[0-9a-f]{8}$/),
        headerCrc: z
          .string()
          .regex(/^[0-9a-f]{8}$/)
          .optional(),
        settledBytes: count,
      })
      .optional(),
    findings: z.array(z.string()).max(100).optional(),
    bytes: count,
    sha256: hex64.optional(),
    chunks: z.array(chunkRef),
  })
  .refine(({ bytes, chunks }) => chunks.reduce((sum, [, length]) => sum + length, 0) === bytes, 'chunks must add up to the file')

const infoShape = {
  id: z.string(),
  time: z.number(),
  storeId: z.string().max(256),
  host: z.string().max(256),
  source: z.array(z.string().max(4096)).max(1000),
  damaged: z.boolean(),
  findings: z.array(z.string()).max(1000),
  files: count,
  sessions: count,
  bytes: count,
  addedBytes: count,
  extra: z.record(z.string(), z.unknown()),
}

const rootSchema = z.object({
  format: z.literal(1),
  repository: z.string(),
  ...infoShape,
  listing: z.object({ bytes: count, chunks: z.array(chunkRef) }),
})
export type Root = z.infer<typeof rootSchema>

/** The chunks of the list of files, and its length. */
export interface Listing {
  readonly bytes: number
  readonly chunks: readonly ChunkRef[]
}

/** Stands where a manifest would: a prune has given the backup up, and it can no longer commit. */
const abandonedSchema = z.object({
  format: z.literal(1),
  repository: z.string(),
  id: z.string(),
  abandoned: z.object({ time: z.number() }),
})

export interface StandsForNothing {
  readonly abandoned: true
}

/** What cannot be read again must not be written. @throws INVALID_OPTION */
export function checkedRow(row: FileRow): FileRow {
  const { success, error } = rowSchema.safeParse(row)
  if (!success) throw new StoreError('INVALID_OPTION', `${JSON.stringify(row.path)} cannot stand in a snapshot: ${z.prettifyError(error)}.`)
  return row
}

export function encodeRow(row: FileRow): string {
  return JSON.stringify(row)
}

export const encodeRoot = (vault: Vault, info: SnapshotInfo, listing: Listing): Promise<Buffer> => {
  const { unreadable: _, ...facts } = info
  return sealText(vault, [JSON.stringify({ format: 1, repository: vault.repositoryId, ...facts, listing })])
}

export const encodeAbandoned = (vault: Vault, id: string, time: number): Promise<Buffer> =>
  sealText(vault, [JSON.stringify({ format: 1, repository: vault.repositoryId, id, abandoned: { time } })])

/** @throws BACKUP_MISMATCH  not what was stored under this name in this repository. */
export async function decodeRoot(vault: Vault, id: string, bytes: Buffer): Promise<Root | StandsForNothing> {
  const object = snapshotName(vault, id)
  const [line = ''] = await openText(vault, bytes, object)
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    throw mismatch(vault, object, 'it is no JSON', error)
  }
  const abandoned = abandonedSchema.safeParse(value)
  const root = rootSchema.safeParse(value)
  const found = abandoned.data ?? root.data
  if (!found) throw mismatch(vault, object, 'it is not of the form of a manifest', root.error)
  // Sealed, so somebody with the key made it, but for another place: an object has been put where another belongs.
  if (found.id !== id || found.repository !== vault.repositoryId) throw mismatch(vault, object, 'it is the manifest of another snapshot')
  return 'abandoned' in found ? { abandoned: true } : (root.data as Root)
}

export function infoOf({ format: _, repository: __, listing: ___, ...info }: Root): SnapshotInfo {
  return info
}

export function unreadableInfo(id: string, why: string): SnapshotInfo {
  const nothing = { storeId: '', host: '', source: [], findings: [], files: 0, sessions: 0, bytes: 0, addedBytes: 0, extra: {} }
  return { id, time: timeOfSnapshot(id), damaged: true, ...nothing, unreadable: why }
}

/** @param listing  the text of the list, whole. */
export function decodeListing(vault: Vault, root: Root, listing: Buffer): Manifest {
  const object = snapshotName(vault, root.id)
  const lines = listing.length === 0 ? [] : listing.toString('utf8').slice(0, -1).split('\n')
  if (lines.length !== root.files) throw mismatch(vault, object, `it lists ${lines.length} files instead of ${root.files}`)
  const files = lines.map((line) => {
    const row = rowSchema.safeParse(JSON.parse(line))
    if (!row.success) throw mismatch(vault, object, 'a row of its list is not of the form that it should have', row.error)
    return row.data as FileRow
  })
  return { info: infoOf(root), files }
}

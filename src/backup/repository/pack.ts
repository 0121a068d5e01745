/** A pack: many chunks in one object, since a hundred thousand small objects would take hours to send and a call each to read.
 *
 *      chunk chunk … chunk table trailer
 *
 *  Each chunk is a gzip member of its own, and so is the table: one line of JSON that says where each of them is. The trailer is 16 bytes:
 *  the length of the table's member in decimal digits, and a newline. With encryption the whole of it is one age file. The index has the
 *  same lines; should it be lost, the tables are enough. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Compartment } from '../encryption/keyring.js'
import { compressed, decompressed, mismatch, type Vault } from './vault.js'

const trailerBytes = 16
const tableBytesMax = 64 << 20

const hex32 = z.string().regex(/^[0-9a-f]{32}$/)
const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const count = z.int().min(0)

/** Name, offset in the pack, stored length, length before compression. */
const chunkPlace = z.tuple([hex64, count, count, count])
export type ChunkPlace = z.infer<typeof chunkPlace>

const tableSchema = z.object({
  pack: hex32,
  of: z.enum(['contents', 'catalogue']),
  /** The snapshot, or the prune, that wrote it. */
  by: z.string().max(64),
  chunks: z.array(chunkPlace),
})

/** A line of the index. */
export const packLineSchema = tableSchema.extend({
  /** Of the object, as it stands on the target. */
  bytes: count,
  sha256: hex64,
})
export type PackLine = z.infer<typeof packLineSchema>

export interface OpenPack {
  readonly pack: string
  readonly of: Compartment
  readonly by: string
  readonly parts: Buffer[]
  readonly chunks: ChunkPlace[]
  bytes: number
}

export interface FinishedPack {
  readonly object: Buffer
  readonly line: PackLine
}

export function addToPack(pack: OpenPack, name: string, member: Buffer, bytes: number): void {
  pack.chunks.push([name, pack.bytes, member.length, bytes])
  pack.parts.push(member)
  pack.bytes += member.length
}

export async function finishPack(vault: Vault, { pack, of, by, parts, chunks }: OpenPack): Promise<FinishedPack> {
  const table = await compressed(Buffer.from(`${JSON.stringify({ pack, of, by, chunks })}\n`))
  const trailer = Buffer.from(`${String(table.length).padStart(trailerBytes - 1, '0')}\n`)
  const object = await vault.keyring.wrap(Buffer.concat([...parts, table, trailer]), of)
  const sha256 = createHash('sha256').update(object).digest('hex')
  return { object, line: { pack, of, by, chunks, bytes: object.length, sha256 } }
}

/** What a pack says of itself, where the index does not know it.
 *  @param stored  the object. @param opened  the same, decrypted. */
export async function tableOf(vault: Vault, pack: string, stored: Buffer, opened: Buffer): Promise<PackLine> {
  const object = `pack ${pack}`
  const length = Number(/^(\d{15})\n$/.exec(opened.subarray(-trailerBytes).toString('latin1'))?.[1] ?? Number.NaN)
  const end = opened.length - trailerBytes
  if (!(length > 0 && length <= end)) throw mismatch(vault, object, 'it has no trailer')
  try {
    const text = await decompressed(opened.subarray(end - length, end), tableBytesMax)
    const table = tableSchema.parse(JSON.parse(text.toString('utf8')))
    if (table.pack !== pack) throw new Error(`it calls itself ${table.pack}`)
    return { ...table, bytes: stored.length, sha256: createHash('sha256').update(stored).digest('hex') }
  } catch (error) {
    throw mismatch(vault, object, 'its table cannot be read', error)
  }
}

/** A chunk out of its pack. @throws BACKUP_MISMATCH */
export async function chunkOf(vault: Vault, pack: string, member: Uint8Array, [name, , , bytes]: ChunkPlace): Promise<Buffer> {
  let chunk: Buffer
  try {
    chunk = await decompressed(member, Math.max(1, bytes))
  } catch (error) {
    throw mismatch(vault, `chunk ${name} of pack ${pack}`, 'it does not unpack', error)
  }
  if (chunk.length !== bytes || vault.keyring.nameOf(chunk) !== name)
    throw mismatch(vault, `chunk ${name} of pack ${pack}`, 'its content is another')
  return chunk
}

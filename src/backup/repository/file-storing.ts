/** One file on its way into a snapshot: which chunks of the snapshot before stay, which bytes are read, what is new. */
import { createHash, type Hash } from 'node:crypto'
import type { Keyring } from '../encryption/keyring.js'
import { chunksOf, fileChunks } from './chunker.js'
import type { Packing } from './packing.js'
import type { ChunkRef, FileRow, PreviousFile, StoredFile } from './repository.js'

/** A file that grows a little between any two snapshots gets a small chunk each time. So many are left alone; then they are joined. */
const smallChunksMax = 16

/** @returns the chunks of the earlier snapshot that are taken over unread. */
export function keptChunks({ row, keepBytes, whole = false }: PreviousFile, has: (name: string) => boolean): ChunkRef[] {
  const kept: ChunkRef[] = []
  let bytes = 0
  for (const ref of row.chunks) {
    if (bytes + ref[1] > keepBytes || !has(ref[0])) break
    kept.push(ref)
    bytes += ref[1]
  }
  if (whole && bytes === keepBytes) return kept
  let small = 0
  while (small < kept.length && kept[kept.length - 1 - small]![1] < fileChunks.bytesMin) small++
  return small > smallChunksMax ? kept.slice(0, -small) : kept
}

export interface FileStoring {
  readonly packing: Packing
  readonly keyring: Keyring
}

/** What a file's bytes come to in its row. */
export type FileContent = Pick<FileRow, 'bytes' | 'sha256' | 'chunks'>

export interface StoredContent extends Omit<StoredFile, 'row'> {
  readonly content: FileContent
}

export const nothingRead = { readFrom: undefined, readBytes: 0, newBytes: 0, changed: undefined }

export async function storeFile(
  { packing, keyring }: FileStoring,
  bytesFrom: ((from: number) => AsyncIterable<Uint8Array>) | undefined,
  previous: PreviousFile | undefined,
): Promise<StoredContent> {
  const rereads = previous?.reread ? previous : undefined
  const kept = previous && !rereads ? keptChunks(previous, (name) => packing.has(name)) : []
  const keptBytes = lengthOf(kept)
  const isCovered = previous?.whole && !rereads && keptBytes === previous.keepBytes
  if (!bytesFrom || isCovered) {
    const sha256 = isCovered && keptBytes === previous.row.bytes ? previous.row.sha256 : undefined
    return { content: { bytes: keptBytes, ...(sha256 ? { sha256 } : {}), chunks: kept }, ...nothingRead }
  }
  const whole = keptBytes === 0 ? createHash('sha256') : undefined
  const reading = { keyring, packing, chunks: [...kept], readBytes: 0, newBytes: 0, whole }
  const source = pulled(bytesFrom(keptBytes))
  let changed: StoredFile['changed']
  try {
    if (rereads) changed = await rereadChunks(reading, source, rereads)
    for await (const chunk of chunksOf(source.rest(), keyring.gear, fileChunks)) await storeChunk(reading, chunk)
  } finally {
    await source.close()
  }
  const { chunks, readBytes, newBytes } = reading
  const content = { bytes: keptBytes + readBytes, ...(whole ? { sha256: whole.digest('hex') } : {}), chunks }
  return { content, readFrom: keptBytes, readBytes, newBytes, changed }
}

interface Reading {
  readonly keyring: Keyring
  readonly packing: Packing
  readonly chunks: ChunkRef[]
  readonly whole: Hash | undefined
  readBytes: number
  newBytes: number
}

async function storeChunk(reading: Reading, chunk: Uint8Array, name = reading.keyring.nameOf(chunk)): Promise<void> {
  reading.whole?.update(chunk)
  reading.readBytes += chunk.length
  reading.chunks.push([name, chunk.length])
  if (await reading.packing.add(name, chunk, 'contents')) reading.newBytes += chunk.length
}

/** Cuts where the earlier snapshot has cut, so that what is the same has the same name. Where it is not, the bytes are stored as they
 *  are now, and the range is told. */
async function rereadChunks(reading: Reading, source: Pulled, { row, keepBytes }: PreviousFile): Promise<StoredFile['changed']> {
  let changed: { from: number; to: number } | undefined
  let at = 0
  for (const [name, length] of row.chunks) {
    if (at + length > keepBytes) break
    const chunk = await source.take(length)
    if (chunk.length === 0) {
      changed = { from: changed?.from ?? at, to: keepBytes }
      break
    }
    const found = reading.keyring.nameOf(chunk)
    if (found !== name) changed = { from: changed?.from ?? at, to: at + length }
    await storeChunk(reading, chunk, found)
    at += length
  }
  return changed
}

interface Pulled {
  /** The next so many bytes; fewer at the end. */
  take(bytes: number): Promise<Uint8Array>
  rest(): AsyncIterable<Uint8Array>
  close(): Promise<void>
}

function pulled(source: AsyncIterable<Uint8Array>): Pulled {
  const iterator = source[Symbol.asyncIterator]()
  let over: Uint8Array | undefined
  const next = async (): Promise<Uint8Array | undefined> => {
    if (over) {
      const piece = over
      over = undefined
      return piece
    }
    const { done, value } = await iterator.next()
    return done ? undefined : value
  }
  return {
    async take(bytes) {
      const pieces: Uint8Array[] = []
      let missing = bytes
      while (missing > 0) {
        const piece = await next()
        if (!piece) break
        pieces.push(piece.subarray(0, missing))
        if (piece.length > missing) over = piece.subarray(missing)
        missing -= Math.min(missing, piece.length)
      }
      return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
    },
    async *rest() {
      for (let piece = await next(); piece; piece = await next()) yield piece
    },
    async close() {
      await iterator.return?.()
    },
  }
}

const lengthOf = (chunks: readonly ChunkRef[]) => chunks.reduce((sum, [, bytes]) => sum + bytes, 0)

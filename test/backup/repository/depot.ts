/** Repositories to try things on. */
import { createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import type {
  FileFacts,
  FileRow,
  ManifestFacts,
  PreviousFile,
  Repository,
  SnapshotInfo,
  StoredFile,
} from '../../../src/backup/repository/repository.js'

export function temporaryDirectory(): string {
  return fs.mkdtempSync(join(os.tmpdir(), 'holdfast-depot-'))
}

export const plainFacts: ManifestFacts = { source: ['/somewhere'], damaged: false, findings: [] }

export function factsOf(path: string, more: Partial<FileFacts> = {}): FileFacts {
  return { path, role: 'transcript', type: 'file', mode: 0o600, mtimeMs: 1, ...more }
}

/** In pieces of at most 64 KiB. */
export function piecesOf(bytes: Uint8Array): (from: number) => AsyncIterable<Uint8Array> {
  return async function* (from) {
    for (let at = from; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
  }
}

/** A snapshot of these files. */
export async function snapshotOf(
  repository: Repository,
  files: Readonly<Record<string, Uint8Array>>,
  options: { readonly facts?: Partial<ManifestFacts>; readonly time?: number; readonly previous?: ReadonlyMap<string, PreviousFile> } = {},
): Promise<{ info: SnapshotInfo; stored: Map<string, StoredFile> }> {
  const writer = await repository.begin({ storeId: 'a store', host: 'here', time: options.time })
  const stored = new Map<string, StoredFile>()
  for (const [path, bytes] of Object.entries(files))
    stored.set(path, await writer.file(factsOf(path), piecesOf(bytes), options.previous?.get(path)))
  const info = await writer.commit({ ...plainFacts, ...options.facts })
  return { info, stored }
}

export async function readAll(repository: Repository, row: FileRow, from = 0): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of repository.read(row, { from })) parts.push(part)
  return Buffer.concat(parts)
}

/** Every file of a snapshot, digested: comparing megabytes one by one takes vitest seconds. */
export async function contentsOf(repository: Repository, id: string): Promise<Record<string, string>> {
  const { files } = await repository.manifest(id)
  const contents: Record<string, Buffer> = {}
  for (const row of files) contents[row.path] = await readAll(repository, row)
  return digested(contents)
}

export function digested(files: Readonly<Record<string, Uint8Array>>): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([path, bytes]) => [path, digest(bytes)]))
}

export const digest = (bytes: Uint8Array): string => `${bytes.length} ${createHash('sha256').update(bytes).digest('hex')}`

/** JSON lines, somewhat like a transcript: words that repeat, numbers that do not. */
export function transcript(bytes: number, seed = 1): Buffer {
  let state = seed
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  const words = 'the session was written by another process while a backup read what stood on the disk at one moment'.split(' ')
  const lines: string[] = []
  let length = 0
  for (let seq = 0; length < bytes; seq++) {
    const text = Array.from({ length: 20 }, () => `${words[Math.floor(random() * words.length)]}${Math.floor(random() * 100)}`).join(' ')
    const line = `{"type":"message","text":"${text}","$":"${seq}.${Math.floor(random() * 2 ** 32).toString(16)}"}\n`
    lines.push(line)
    length += line.length
  }
  return Buffer.from(lines.join('')).subarray(0, bytes)
}

export const noise = (bytes: number): Buffer => randomBytes(bytes)

/** Objects of a directory target, by name. */
export function objectsIn(directory: string, prefix = ''): string[] {
  return fs
    .readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .filter((name) => name.startsWith(prefix))
    .sort()
}

/** The objects of one repository on its target: how they are called, and how a text becomes an object and back.
 *
 *  A text object is lines of JSON, the last of them its seal, gzipped, then encrypted for those who may read the catalogue. The seal says
 *  that the lines are whole and, with encryption, that somebody wrote them who holds the repository's key. */
import { randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import { StoreError } from '../../errors.js'
import type { Keyring } from '../encryption/keyring.js'
import type { Target } from '../targets/target.js'

const gzip = promisify<zlib.InputType, zlib.ZlibOptions, Buffer>(zlib.gzip)
const gunzip = promisify<zlib.InputType, zlib.ZlibOptions, Buffer>(zlib.gunzip)

/** The fastest: on transcripts level 6 takes twice the time for 3 % less. */
const level = 1

/** zlib hands its output over in pieces of that size, each by way of another thread: one piece is best, and 16 KiB, its default, slow. */
const pieceBytes = (bytes: number) => Math.max(1024, Math.min(1 << 20, bytes + 64))

export const compressed = (bytes: Uint8Array): Promise<Buffer> => gzip(bytes, { level, chunkSize: pieceBytes(bytes.length) })

/** @param bytesMax  more is refused: a few bytes can be made to unpack to gigabytes. */
export const decompressed = (bytes: Uint8Array, bytesMax: number): Promise<Buffer> =>
  gunzip(bytes, { maxOutputLength: bytesMax, chunkSize: pieceBytes(Math.min(bytesMax, bytes.length * 8)) })

/** Of a text object, unpacked. */
const textBytesMax = 64 << 20
const sealPattern = /\{"seal":"([0-9a-f]{64})"\}\n$/

export interface Vault {
  readonly repositoryId: string
  readonly target: Target
  readonly keyring: Keyring
  /** Stored bytes after which a pack is closed. */
  readonly packBytes: number
}

export const freshName = (): string => randomBytes(16).toString('hex')

export const packName = (vault: Vault, pack: string): string => `packs/${pack.slice(0, 2)}/${pack}.pack${vault.keyring.suffix}`
export const packPattern = /^packs\/([0-9a-f]{2})\/(\1[0-9a-f]{30})\.pack(?:\.age)?$/
export const indexName = (vault: Vault, index: string): string => `index/${index}.jsonl.gz${vault.keyring.suffix}`
export const indexPattern = /^index\/([0-9a-f]{32})\.jsonl\.gz(?:\.age)?$/
export const snapshotName = (vault: Vault, id: string): string => `snapshots/${id}.json.gz${vault.keyring.suffix}`
export const snapshotPattern = /^snapshots\/(\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8})\.json\.gz(?:\.age)?$/
export const runningName = (id: string): string => `running/${id}`
export const runningPattern = /^running\/(\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8})$/
export const markName = (vault: Vault, mark: string): string => `condemned/${mark}.json.gz${vault.keyring.suffix}`
export const markPattern = /^condemned\/([0-9a-f]{32})\.json\.gz(?:\.age)?$/
/** Who was running when the mark stood. */
export const witnessName = (vault: Vault, mark: string): string => `condemned/${mark}.running.json.gz${vault.keyring.suffix}`
export const witnessPattern = /^condemned\/([0-9a-f]{32})\.running\.json\.gz(?:\.age)?$/

/** `20261121T184022.123Z-5f0c2a91`: sorts by time. */
export function freshSnapshotId(timeMs: number): string {
  return `${new Date(timeMs).toISOString().replace(/[-:]/g, '')}-${randomBytes(4).toString('hex')}`
}

export function timeOfSnapshot(id: string): number {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3})Z/.exec(id) ?? []
  return Date.parse(`${y}-${mo}-${d}T${h}:${mi}:${s}Z`)
}

/** @param lines  JSON, none of them with a newline. */
export async function sealText(vault: Vault, lines: readonly string[]): Promise<Buffer> {
  const text = Buffer.from(lines.map((line) => `${line}\n`).join(''))
  const seal = Buffer.from(`{"seal":"${vault.keyring.sealOf(text)}"}\n`)
  return vault.keyring.wrap(await compressed(Buffer.concat([text, seal])), 'catalogue')
}

/** @throws BACKUP_MISMATCH  it is not what was stored. */
export async function openText(vault: Vault, bytes: Buffer, object: string): Promise<string[]> {
  const packed = await vault.keyring.unwrap(bytes, 'catalogue', object)
  let text: Buffer
  try {
    text = await decompressed(packed, textBytesMax)
  } catch (error) {
    throw mismatch(vault, object, 'it does not unpack', error)
  }
  const [line, seal] = sealPattern.exec(text.subarray(-78).toString('latin1')) ?? []
  const body = text.subarray(0, text.length - (line?.length ?? 0))
  if (!line || vault.keyring.sealOf(body) !== seal) throw mismatch(vault, object, 'its seal does not fit')
  return body.length === 0 ? [] : body.toString('utf8').slice(0, -1).split('\n')
}

export function mismatch(vault: Vault, object: string, why: string, cause?: unknown): StoreError {
  return new StoreError('BACKUP_MISMATCH', `${object} in ${vault.target.place} is not what was stored: ${why}.`, {
    ...(cause === undefined ? {} : { cause }),
    details: { object, place: vault.target.place, why },
    hint: 'Run `holdfast backup check --deep` to see which snapshots are whole.',
  })
}

/** What a repository does with its bytes on the way to the target and back: names, seals, encryption. One for plain repositories, one for
 *  encrypted ones; nobody else knows which it is. */
import { createHash, createHmac } from 'node:crypto'

/** contents: what files contain · catalogue: their names and chunks, the index, manifests, marks. Who only adds snapshots reads the
 *  catalogue, never the contents. */
export type Compartment = 'contents' | 'catalogue'

export interface Keyring {
  /** What names of objects end in. */
  readonly suffix: '' | '.age'
  readonly canReadContents: boolean
  /** The name of a chunk: 64 hex digits. */
  nameOf(chunk: Uint8Array): string
  /** What a text must be followed by to be taken for one of this repository: 64 hex digits. */
  sealOf(text: Uint8Array): string
  /** 256 numbers that decide where files are cut into chunks. */
  readonly gear: Int32Array
  wrap(bytes: Buffer, compartment: Compartment): Promise<Buffer>
  /** @param object  its name, for the error.
   *  @throws BACKUP_MISMATCH  truncated, altered, or not made for this key. Never a part of the plaintext. */
  unwrap(bytes: Buffer, compartment: Compartment, object: string): Promise<Buffer>
  /** @throws INVALID_OPTION  to be encrypted for recipients that nobody here has vouched for. */
  assertMayWrite(): void
}

export function gearOf(key: Uint8Array): Int32Array {
  const gear = new Int32Array(256)
  for (let byte = 0; byte < 256; byte++) gear[byte] = createHmac('sha256', key).update(Uint8Array.of(byte)).digest().readInt32BE(0)
  return gear
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Without encryption, a name and a seal are plain SHA-256: `sha256sum` checks them. */
export function plainKeyring(): Keyring {
  return {
    suffix: '',
    canReadContents: true,
    nameOf: sha256,
    sealOf: sha256,
    gear: gearOf(Buffer.from('holdfast backup')),
    wrap: async (bytes) => bytes,
    unwrap: async (bytes) => bytes,
    assertMayWrite() {},
  }
}

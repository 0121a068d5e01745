/** The contents of a simulated file: a value. Appending makes a new value and shares the old one's memory, so that a thousand snapshots
 *  of a growing file cost what the file costs. */
import { createHash } from 'node:crypto'

interface Block {
  buffer: Buffer
  /** How much of it some value already claims; only the value that ends here may grow in place. */
  used: number
}

export class FileBytes {
  static readonly empty = new FileBytes({ buffer: Buffer.alloc(0), used: 0 }, 0)
  #digest: string | undefined

  private constructor(
    private readonly block: Block,
    readonly length: number,
  ) {}

  static of(bytes: Uint8Array): FileBytes {
    return FileBytes.empty.append(bytes)
  }

  append(bytes: Uint8Array): FileBytes {
    const length = this.length + bytes.length
    if (this.block.used === this.length && this.block.buffer.length >= length) {
      this.block.buffer.set(bytes, this.length)
      this.block.used = length
      return new FileBytes(this.block, length)
    }
    const buffer = Buffer.alloc(Math.max(256, length * 2))
    this.block.buffer.copy(buffer, 0, 0, this.length)
    buffer.set(bytes, this.length)
    return new FileBytes({ buffer, used: length }, length)
  }

  writeAt(position: number, bytes: Uint8Array): FileBytes {
    if (position === this.length) return this.append(bytes)
    const buffer = Buffer.alloc(Math.max(this.length, position + bytes.length))
    this.block.buffer.copy(buffer, 0, 0, this.length)
    buffer.set(bytes, position)
    return new FileBytes({ buffer, used: buffer.length }, buffer.length)
  }

  read(into: Uint8Array, offset: number, length: number, position: number): number {
    const count = Math.max(0, Math.min(length, this.length - position))
    into.set(this.block.buffer.subarray(position, position + count), offset)
    return count
  }

  toBuffer(): Buffer {
    return Buffer.from(this.block.buffer.subarray(0, this.length))
  }

  equals(other: FileBytes): boolean {
    return this.length === other.length && this.block.buffer.subarray(0, this.length).equals(other.block.buffer.subarray(0, other.length))
  }

  /** Equal contents have equal digests. */
  get digest(): string {
    this.#digest ??= createHash('md5').update(this.block.buffer.subarray(0, this.length)).digest('base64')
    return this.#digest
  }
}

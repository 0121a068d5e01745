/** A line that is too long to be held: what the chain has to know of it, found while it goes by. */
import { crc32 } from 'node:zlib'
import { type ForeignFacts, type Line, type OddLine, wasRecord, weldSearchBytesMax } from './chain.js'
import { suffixCrc } from './crc.js'
import { claimedMark, isSystemOnly } from './record.js'

/** Room for a mark, and for one more that ends right before the last `{"`. */
const tailBytes = 512
const headBytes = 4 << 10
/** Records of the store's own are kept whole; larger ones it does not write. */
const systemBytesMax = 64 << 20
/** No more can be searched: places lie two bytes apart or more, and the sum of what follows each is bounded. */
const weldsMax = Math.ceil(Math.sqrt(weldSearchBytesMax))

/** A place where another's line may begin, behind a killed writer's beginning. */
interface Weld {
  readonly at: number
  /** Of the bytes before it. */
  readonly crc: number
  readonly afterRecord: boolean
}

export class LongLine {
  readonly byte: number
  /** So far; its newline does not count. */
  length = 0
  nuls: { from: number; to: number } | undefined
  #head: Buffer[] = []
  #headBytesMax = headBytes
  #headBytes = 0
  /** The last bytes, and the crc of all that is before them. */
  #tail = Buffer.alloc(0)
  #crc = 0
  #foreignCrc: number | undefined
  #welds: Weld[] = []

  /** @param prefixCrc  of everything before it in the file, where no record has been */
  constructor(byte: number, prefixCrc: number | undefined) {
    this.byte = byte
    this.#foreignCrc = prefixCrc
  }

  /** The next bytes of it; they may be overwritten afterwards. */
  take(piece: Buffer): void {
    if (this.length === 0 && isSystemOnly(piece, 0)) this.#headBytesMax = systemBytesMax
    if (this.#headBytes < this.#headBytesMax) {
      const part = Buffer.from(piece.subarray(0, this.#headBytesMax - this.#headBytes))
      this.#head.push(part)
      this.#headBytes += part.length
    }
    const nul = piece.indexOf(0)
    if (nul >= 0) {
      const start = this.byte + this.length
      this.nuls = { from: this.nuls?.from ?? start + nul, to: start + piece.lastIndexOf(0) + 1 }
    }
    if (this.#foreignCrc !== undefined) this.#foreignCrc = crc32(piece, this.#foreignCrc)
    const bytes = Buffer.concat([this.#tail, piece])
    this.#findWelds(bytes)
    const before = Math.max(0, bytes.length - tailBytes)
    this.#crc = crc32(bytes.subarray(0, before), this.#crc)
    this.#tail = Buffer.from(bytes.subarray(before))
    this.length += piece.length
  }

  #findWelds(bytes: Buffer): void {
    const start = this.length - this.#tail.length
    let crc = this.#crc
    let summed = 0
    // One that lies on the seam has not been seen before.
    for (let at = bytes.indexOf('{"', Math.max(this.#tail.length - 1, 1)); at > 0; at = bytes.indexOf('{"', at + 1)) {
      if (this.#welds.length >= weldsMax) return
      const claimed = claimedMark(bytes, 0, at - 1)
      const afterRecord = claimed !== undefined && crc32(bytes.subarray(0, at - 11), this.#crc) === claimed.crc
      crc = crc32(bytes.subarray(summed, at), crc)
      summed = at
      this.#welds.push({ at: start + at, crc, afterRecord })
    }
  }

  /** Its newline has come. */
  end(): { line: Line; odd?: undefined } | { line?: undefined; odd: OddLine; facts: ForeignFacts | undefined } {
    const tail = this.#tail
    const { byte, length } = this
    const found = claimedMark(tail, 0, tail.length)
    const claimed = found && { ...found, bodyBytes: found.bodyBytes + length - tail.length }
    const stemCrc = crc32(tail.subarray(0, tail.length - 10), this.#crc)
    const head = Buffer.concat(this.#head)
    if (claimed?.crc === stemCrc && (this.#headBytesMax === headBytes || head.length === length))
      return { line: { mark: claimed, byte, length: length + 1, bytes: head, start: 0, end: head.length } }
    const odd: OddLine = {
      byte,
      length: length + 1,
      claimed,
      welded: claimed !== undefined && this.#isWelded(claimed.crc, stemCrc),
      wasRecord: wasRecord(tail, 0, tail.length),
      broken: tail[tail.length - 1] === 0x23,
      nuls: this.nuls,
    }
    const crc = this.#foreignCrc
    // Nobody parses as much as this; whoever reads it will find out.
    const foreign = head[0] === 0x7b && tail[tail.length - 1] === 0x7d && !this.nuls
    return { odd, facts: crc === undefined ? undefined : { foreign, crc: crc32('\n', crc) } }
  }

  /** As for a line that is held whole (chain.ts), from what was noted as it went by. */
  #isWelded(claimedCrc: number, stemCrc: number): boolean {
    let searched = 0
    for (const { at, crc, afterRecord } of this.#welds) {
      searched += this.length - at
      if (searched > weldSearchBytesMax) return false
      if (suffixCrc(stemCrc, crc, this.length - 10 - at) === claimedCrc) return !afterRecord
    }
    return false
  }
}

/** sessions.json, looked at in a window of fixed size: its hash, its entries, and the lines that are none. */
import { createHash } from 'node:crypto'
import { newBreath } from '../../file/breath.js'
import type { ByteSource, ScanOptions } from '../../file/log/scan.js'
import type { Range } from '../../findings.js'
import { type NamedSession, type NamedSessions, parseEntry, readEntry, readKey } from './entries.js'

export interface BadLine {
  readonly bytes: Range
  /** Where that can be read. */
  readonly key: string | undefined
  readonly why: string
}

export interface ScannedSnapshot {
  readonly bytes: number
  /** SHA-256 of the whole. */
  readonly hash: string
  readonly sessions: NamedSessions
  readonly bad: readonly BadLine[]
}

const pieceBytes = 256 << 10
const lineBytesMax = 1 << 20
const badMax = 1_000

/** @param thorough  parses every entry, to find what a hash says is somewhere */
export async function scanSnapshot(
  source: ByteSource,
  thorough: boolean,
  { signal, breath = newBreath() }: ScanOptions = {},
): Promise<ScannedSnapshot> {
  const scanning = new SnapshotScan(thorough)
  const hash = createHash('sha256')
  const piece = Buffer.allocUnsafeSlow(pieceBytes)
  for (;;) {
    signal?.throwIfAborted()
    const got = await source.read(piece, 0, pieceBytes)
    if (got <= 0) break
    hash.update(piece.subarray(0, got))
    for (const _ of scanning.take(piece.subarray(0, got))) {
      const rest = breath.breathe()
      if (rest) await rest
    }
  }
  scanning.end()
  return { bytes: scanning.bytes, hash: hash.digest('hex'), sessions: scanning.sessions, bad: scanning.bad }
}

class SnapshotScan {
  readonly sessions: NamedSessions = new Map()
  readonly bad: BadLine[] = []
  bytes = 0
  #thorough: boolean
  /** Of the line that has not ended yet: its bytes, or of a long one its beginning. */
  #held: Buffer = Buffer.alloc(0)
  #lineStart = 0
  #line = 0
  #closed = false
  /** The line before ended with a comma: another has to follow. */
  #open = true

  constructor(thorough: boolean) {
    this.#thorough = thorough
  }

  /** Line by line, so that others may have their turn in between. */
  *take(piece: Buffer): Generator<void> {
    let at = 0
    for (let end = piece.indexOf(0x0a); end >= 0; end = piece.indexOf(0x0a, at)) {
      this.#hold(piece.subarray(at, end))
      this.#endLine(this.bytes + end)
      at = end + 1
      this.#lineStart = this.bytes + at
      if ((this.#line & 15) === 0) yield
    }
    this.#hold(piece.subarray(at))
    this.bytes += piece.length
  }

  #hold(part: Buffer): void {
    const room = lineBytesMax - this.#held.length
    if (this.#held.length === 0) this.#held = Buffer.from(part.subarray(0, room))
    else if (room > 0 && part.length > 0) this.#held = Buffer.concat([this.#held, part.subarray(0, room)])
  }

  #endLine(end: number): void {
    const text = this.#held
    this.#held = Buffer.alloc(0)
    const bytes = { from: this.#lineStart, to: end + 1 }
    const number = this.#line++
    if (number === 0) {
      if (text.toString('latin1') !== '{') this.#wrong(bytes, undefined, 'it does not begin as this library writes it')
    } else if (text.toString('latin1') === '}' && !this.#closed) {
      this.#closed = true
      if (this.#open && this.sessions.size > 0) this.#wrong(bytes, undefined, 'an entry is missing in front of its end')
    } else this.#entry(text, bytes)
  }

  #entry(text: Buffer, bytes: Range): void {
    const whole = text.length === bytes.to - 1 - bytes.from
    const comma = text[text.length - 1] === 0x2c
    const named = readKey(text, 0)
    const end = comma && whole ? text.length - 1 : text.length
    const found = !named || text[named.end + 1] !== 0x3a ? 'it does not begin with a key' : this.#read(text, named.end + 2, end, whole)
    if (typeof found === 'string') this.#wrong(bytes, named?.key, found)
    else if (!this.#open || this.#closed) this.#wrong(bytes, named?.key, 'it stands where the file should have ended')
    else if (this.sessions.has(named!.key)) this.#wrong(bytes, named?.key, 'its key stands there twice')
    else this.sessions.set(named!.key, found)
    this.#open = comma || !whole
  }

  #read(text: Buffer, start: number, end: number, whole: boolean): NamedSession | string {
    return this.#thorough && whole ? parseEntry(text.toString('utf8', start, end)) : readEntry(text, start, end, whole)
  }

  #wrong(bytes: Range, key: string | undefined, why: string): void {
    const last = this.bad[this.bad.length - 1]
    if (this.bad.length < badMax) this.bad.push({ bytes, key, why })
    else if (last) this.bad[this.bad.length - 1] = { ...last, bytes: { from: last.bytes.from, to: bytes.to }, why: 'and what follows' }
  }

  /** All has been read. */
  end(): void {
    const rest = { from: this.#lineStart, to: this.bytes }
    if (rest.to > rest.from) this.#wrong(rest, readKey(this.#held, 0)?.key, 'it breaks off')
    else if (!this.#closed && this.bad.length === 0) this.#wrong(rest, undefined, this.bytes === 0 ? 'it is empty' : 'it breaks off')
  }
}

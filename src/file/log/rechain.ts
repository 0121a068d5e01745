/** Makes a log anew from records of an old one, whose lines change places: void lines are gone, or old records, or what was damaged is mended.
 *
 *  Every record keeps its sequence number and its JSON text. What is new is the mark: prev and crc chain the lines as they stand now, each is
 *  a batch of its own, and each claims that the one before it is on the disk. That is true from the moment anybody can see the file: it is
 *  synced in the stage, before it is renamed into place. So a line that goes missing later is damage, not the remains of a power cut.
 *
 *  The bytes are a function of the header, the writer's name and the records: two who make them make the same. The writer's name begins with
 *  the boot in which the file is decided on (chain.ts asks for it), so it stands in the seal rather than being drawn by whoever finishes. */
import { crc32 } from 'node:zlib'
import type { ChainSink } from './chain.js'
import { type Header, headerPrefix, hex8, type LineMark, lineOverheadMax, sealPrefix, startsWith, systemBody, writeLine } from './record.js'

export interface RechainStart {
  readonly header: Header
  /** The header's own sequence number: the one before the first record that stays; with foreign lines, their number + 1. */
  readonly seq: number
  /** 12 digits: four of a boot, eight of anything that nobody else has. */
  readonly writer: string
  /** Takes the bytes at once and does not keep them: then the same memory is used again and again. Else they wait for `take`. */
  readonly write?: ((bytes: Buffer) => void) | undefined
}

/** How many earlier files of a session a header names. */
const replacedKept = 16
const roomBytes = 256 << 10
const brace = 0x7b

export class Rechain {
  /** Of the last line. */
  seq: number
  crc = 0
  /** Made so far, taken or not; foreign lines are not counted. */
  bytes = 0
  readonly #writer: string
  readonly #write: ((bytes: Buffer) => void) | undefined
  #room = Buffer.allocUnsafe(roomBytes)
  #used = 0
  #made: Buffer[] = []

  constructor({ header, seq, writer, write }: RechainStart) {
    this.seq = seq - 1
    this.#writer = writer
    this.#write = write
    this.addBody(systemBody({ header }))
  }

  /** A record as it stands in its old place, without its old mark. It gets the next sequence number. */
  add(line: Buffer, start: number, mark: Pick<LineMark, 'bodyBytes'>): void {
    const { bodyBytes } = mark
    this.#makeRoom(bodyBytes + lineOverheadMax)
    const from = this.#used
    line.copy(this.#room, from, start, start + bodyBytes)
    const empty = bodyBytes === 1 && line[start] === brace
    const seq = ++this.seq
    const stem = `${empty ? '' : ','}"$":"${seq}.0.${seq - 1}.${this.#writer}.${hex8(this.crc)}.`
    const end = from + bodyBytes + this.#room.write(stem, from + bodyBytes, 'latin1')
    this.crc = crc32(this.#room.subarray(from, end))
    this.#used = end + this.#room.write(`${hex8(this.crc)}"}\n`, end, 'latin1')
    this.bytes += this.#used - from
  }

  /** The same from a JSON text, `{…}`: a record of the store's own. */
  addBody(body: string): void {
    this.#makeRoom(Buffer.byteLength(body) + lineOverheadMax)
    const seq = ++this.seq
    const mark = { seq, left: 0, synced: seq - 1, writer: this.#writer, prev: this.crc }
    const { end, crc } = writeLine(this.#room, this.#used, body, mark)
    this.crc = crc
    this.bytes += end - this.#used
    this.#used = end
  }

  /** Hands on what has not been handed on yet. */
  flush(): void {
    if (this.#used > 0) this.#write?.(this.#room.subarray(0, this.#used))
    this.#used = 0
  }

  /** The bytes made since the last call, in order. They are the taker's own. */
  take(): Buffer[] {
    if (this.#used > 0) this.#made.push(this.#room.subarray(0, this.#used))
    this.#room = this.#room.subarray(this.#used)
    this.#used = 0
    const made = this.#made
    this.#made = []
    return made
  }

  #makeRoom(bytes: number): void {
    if (this.#used + bytes <= this.#room.length) return
    if (this.#write) this.flush()
    if (this.#write && bytes <= this.#room.length) return
    if (this.#used > 0) this.#made.push(this.#room.subarray(0, this.#used))
    this.#room = Buffer.allocUnsafe(Math.max(roomBytes, bytes))
    this.#used = 0
  }
}

/** Hands the records of a log that are to stay, as the chain rule accepts them, to a new one: not the header, not the seal, nothing void. */
export function keeping(into: Rechain, from: number): Required<Pick<ChainSink, 'record'>> {
  return {
    record(mark, bytes, start) {
      if (mark.seq < from || startsWith(bytes, start, sealPrefix)) return
      if (mark.prev === 0 && startsWith(bytes, start, headerPrefix)) return
      into.add(bytes, start, mark)
    },
  }
}

/** What a header has to carry over from the file that its own replaces. */
export interface Carried {
  /** As in the old header, where nothing that has an id, or says what became of a request, is removed. */
  readonly ids?: Header['ids']
  readonly turns?: Header['turns']
  /** The lines before the header stay. */
  readonly foreign?: Header['foreign']
}

/** The header of the file that replaces the one that began with `old`, whose crc was `oldCrc`. */
export function replacingHeader(old: Header, oldCrc: number, { ids, turns, foreign }: Carried): Header {
  const { ids: _ids, turns: _turns, foreign: _foreign, replaces = [], createdAt, ...same } = old
  return {
    ...same,
    ...(ids && ids.length > 0 && { ids }),
    ...(turns && (turns.last > 0 || turns.requests) && { turns }),
    ...(foreign && { foreign }),
    replaces: [hex8(oldCrc), ...replaces].slice(0, replacedKept),
    createdAt,
  }
}

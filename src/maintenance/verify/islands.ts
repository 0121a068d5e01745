/** Records that are whole in themselves and stand in no log, told as islands: what follows one another, by number and crc. They may be what
 *  is left behind a hole; or merely what a power cut has left. Which of the two it is, only the whole log says. */
import type { Line } from '../../file/log/chain.js'
import type { LineMark } from '../../file/log/record.js'

export interface Island {
  /** First and last sequence number; how many lines of the file, and from where to where they stand. */
  readonly from: number
  to: number
  records: number
  readonly byte: number
  end: number
  /** What its first record continues, and what continues its last one. */
  readonly prev: number
  crc: number
}

/** A batch that an island ends in and that has not come to its end: where it began. */
interface OpenBatch {
  readonly before: { readonly to: number; readonly records: number; readonly end: number; readonly crc: number } | undefined
  readonly upTo: number
  readonly writer: string
}

const islandsMax = 10_000

export class Islands {
  /** In the order of the file, with growing numbers. */
  readonly list: Island[] = []
  /** Lines that found no place because there were too many islands. */
  surplus = 0
  #open: OpenBatch | undefined

  /** @returns whether it has a place: one whose number is taken has none. */
  add({ mark, byte, length }: Line): boolean {
    this.#closeBatch(mark)
    const last = this.list[this.list.length - 1]
    const before = last && { to: last.to, records: last.records, end: last.end, crc: last.crc }
    const follows = last !== undefined && mark.seq === last.to + 1 && mark.prev === last.crc
    if (last && !follows && mark.seq <= last.to) return false
    if (last && follows) {
      last.to = mark.seq
      last.records++
      last.end = byte + length
      last.crc = mark.crc
    } else if (this.list.length < islandsMax) {
      this.list.push({ from: mark.seq, to: mark.seq, records: 1, byte, end: byte + length, prev: mark.prev, crc: mark.crc })
    } else {
      this.surplus++
      return false
    }
    if (mark.left === 0) this.#open = undefined
    else if (!this.#open) this.#open = { before: follows ? before : undefined, upTo: mark.seq + mark.left, writer: mark.writer }
    return true
  }

  /** The log itself has these numbers: whatever claimed them is not missed. */
  overtakenBy(seq: number): void {
    while (this.list.length > 0 && this.list[0]!.from <= seq) this.list.shift()
    if (this.list.length === 0) this.#open = undefined
  }

  /** Whoever was killed in a batch has left its beginning; somebody else's record in the place of the rest says that it never was in the log. */
  #closeBatch({ seq, writer }: LineMark): void {
    const open = this.#open
    const last = this.list[this.list.length - 1]
    if (!open || !last || (writer === open.writer && seq === last.to + 1)) return
    if (writer !== open.writer && seq <= open.upTo) {
      if (open.before) Object.assign(last, open.before)
      else this.list.pop()
    }
    this.#open = undefined
  }
}

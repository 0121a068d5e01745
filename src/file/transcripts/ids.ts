/** The idempotency ids of a session: which appends have been made already. Remembered for at least the last 10,000, across rotation. */

import { type Header, hasId, headerPrefix, type LineMark, readBody, startsWith } from '../log/record.js'
import { stringAt, stringEnd } from '../metadata/cells.js'

export interface Remembered {
  readonly sessionId: string
  /** Of the last record of the call. */
  readonly seq: number
  readonly count: number
}

export const idsKept = 10_000

export class Ids {
  #known = new Map<string, Remembered>()
  #sessionId: string

  constructor(sessionId: string) {
    this.#sessionId = sessionId
  }

  get(id: string): Remembered | undefined {
    return this.#known.get(id)
  }

  /** Takes note of a record of the log, if it carries an id or is a header that does. */
  note(mark: LineMark, bytes: Buffer, start: number): void {
    if (hasId(bytes, start)) {
      const { id, count } = readId(bytes, start)
      this.remember(id, { sessionId: this.#sessionId, seq: mark.seq + count - 1, count })
    } else if (mark.prev === 0 && startsWith(bytes, start, headerPrefix)) {
      for (const [id, sessionId, seq, count] of readBody(bytes, start, mark).system?.header?.ids ?? [])
        this.remember(id, { sessionId, seq, count })
    }
  }

  remember(id: string, remembered: Remembered): void {
    this.#known.set(id, remembered)
    if (this.#known.size <= idsKept * 2) return
    let surplus = this.#known.size - idsKept
    for (const oldest of this.#known.keys()) {
      if (surplus-- <= 0) break
      this.#known.delete(oldest)
    }
  }

  /** Knows from now on what the other knows, and nothing else. */
  replaceWith(other: Ids): void {
    this.#known = other.#known
  }

  /** For the header of the log that comes next. */
  forHeader(): NonNullable<Header['ids']> {
    return [...this.#known].slice(-idsKept).map(([id, { sessionId, seq, count }]) => [id, sessionId, seq, count] as const)
  }
}

const idAt = '{"$$":{"id":'.length
const countPattern = /^,"count":(\d+)/

/** The id and the number of records it stands for, without parsing the record. */
export function readId(bytes: Buffer, start: number): { id: string; count: number } {
  const found = stringEnd(bytes, start + idAt)
  const counted = countPattern.exec(bytes.toString('latin1', found.end + 1, found.end + 30))
  return { id: stringAt(bytes, start + idAt, found), count: counted ? Number(counted[1]) : 1 }
}

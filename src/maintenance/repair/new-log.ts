/** The bytes of the log that a plan describes. */

import { StoreError } from '../../errors.js'
import { type Disk, readFully, writeFully } from '../../file/durable.js'
import { Rechain } from '../../file/log/rechain.js'
import { claimedMark, type Header, isSystemOnly, sealPrefix, startsWith, systemBody } from '../../file/log/record.js'
import { breathe } from '../../file/stage.js'
import type { LogRewrite } from '../../repair-plan.js'

const pieceBytes = 512 << 10
const writeBytes = 1 << 20

export interface LostFacts {
  readonly at: number
  readonly why: string
  readonly quarantine: string | undefined
}

export class NewLog {
  readonly rechain: Rechain
  #disk: Disk
  #source: number
  #target: number
  #work: LogRewrite
  #lost: LostFacts
  #written = 0

  /** @param source, target  descriptors */
  constructor(disk: Disk, source: number, target: number, work: LogRewrite, writer: string, lost: LostFacts) {
    this.#disk = disk
    this.#source = source
    this.#target = target
    this.#work = work
    this.#lost = lost
    if (work.prefix > 0) writeFully(disk, target, readFully(disk, source, 0, work.prefix))
    this.rechain = new Rechain({ header: work.header as unknown as Header, seq: work.headerSeq, writer })
  }

  async write(): Promise<void> {
    for (const [from, to, seq] of this.#work.foreign) {
      this.#loseUntil(seq)
      this.rechain.addBody(
        readFully(this.#disk, this.#source, from, to - from)
          .toString('utf8')
          .trim(),
      )
      await this.#flush(writeBytes)
    }
    for (const [from, to] of this.#work.keep) await this.#keep(from, to)
    this.#loseUntil(this.#work.upTo + 1)
    await this.#flush(0)
  }

  /** A record that has been appended since. */
  add(bytes: Buffer, start: number, mark: { readonly seq: number; readonly bodyBytes: number }): void {
    if (mark.seq !== this.rechain.seq + 1) throw misplanned(mark.seq, this.rechain.seq)
    this.rechain.add(bytes, start, mark)
  }

  flush(): Promise<void> {
    return this.#flush(0)
  }

  async #keep(from: number, to: number): Promise<void> {
    for (let at = from, span = pieceBytes; at < to; ) {
      const bytes = readFully(this.#disk, this.#source, at, Math.min(span, to - at))
      const taken = this.#lines(bytes, at + bytes.length >= to)
      span = taken === 0 ? span * 2 : pieceBytes
      at += taken
      await this.#flush(writeBytes)
    }
  }

  #lines(bytes: Buffer, isLast: boolean): number {
    let start = 0
    for (;;) {
      const newline = bytes.indexOf(0x0a, start)
      const end = newline < 0 && isLast ? bytes.length : newline
      if (end < 0 || start >= bytes.length) return start
      const mark = claimedMark(bytes, start, end)
      if (!mark) throw misplanned(undefined, this.rechain.seq)
      this.#loseUntil(mark.seq)
      this.add(bytes, start, mark)
      start = newline < 0 ? bytes.length : end + 1
    }
  }

  #loseUntil(seq: number): void {
    while (this.rechain.seq + 1 < seq) this.rechain.addBody(systemBody({ lost: this.#lostPart() }))
  }

  #lostPart() {
    const { why, at, quarantine } = this.#lost
    return { why, ...(quarantine !== undefined && { quarantine }), at }
  }

  async #flush(from: number): Promise<void> {
    if (this.rechain.bytes - this.#written < from) return
    for (const slice of this.rechain.take()) writeFully(this.#disk, this.#target, slice)
    this.#written = this.rechain.bytes
    await breathe()
  }
}

function misplanned(seq: number | undefined, after: number): StoreError {
  return new StoreError('INVALID_OPTION', `the plan is not one of this file: ${seq ?? 'no record'} comes after ${after}.`, {
    details: { seq, after },
    hint: 'Nothing was changed. Plan anew.',
  })
}

/** Whether the line is a seal of the kind under which a file is written anew. */
export function isRepairSeal(bytes: Buffer, start: number): boolean {
  return isSystemOnly(bytes, start) && startsWith(bytes, start, `${sealPrefix}{"reason":"suspect"`)
}

/** What has become of a transcript since a snapshot: pure, so that a table tests it. */
import type { SessionFacts } from '../repository/repository.js'

/** What is known of the transcript now. */
export interface LogNow {
  readonly lastSeq: number
  readonly lastCrc: string
  readonly bytes: number
  /** undefined: reading began behind the header, at a record that was checked to be the one recorded. */
  readonly headerCrc: string | undefined
  /** Headers of the files that it was made from. */
  readonly replaces: readonly string[]
  /** Of the record that was the last one then; undefined when there is none of that number. */
  readonly crcAtLast: string | undefined
}

/** same · extended: as it was, with records behind it · remade: a compaction or a repair made the file anew from the one recorded, and
 *  says so in its header · shrunk: it ends before the record that was its last · rewritten: another record stands there. */
export type Verdict = 'same' | 'extended' | 'remade' | 'shrunk' | 'rewritten'

export function judge(then: SessionFacts, now: LogNow): Verdict {
  // Another program's lines without a header: there is nothing to compare but their length.
  if (then.lastSeq < 0) return now.lastSeq >= 0 || now.bytes > then.settledBytes ? 'extended' : 'same'
  if (now.lastSeq < then.lastSeq) return 'shrunk'
  const isOther = now.headerCrc !== undefined && then.headerCrc !== undefined && now.headerCrc !== then.headerCrc
  if (isOther) return now.replaces.includes(then.headerCrc!) ? 'remade' : 'rewritten'
  if (now.crcAtLast !== then.lastCrc) return 'rewritten'
  return now.lastSeq === then.lastSeq ? 'same' : 'extended'
}

export function isAlarming(verdict: Verdict): boolean {
  return verdict === 'shrunk' || verdict === 'rewritten'
}

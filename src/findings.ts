/** What `verify` can find in a store, and what a repair can do about it: closed lists, so that a program can handle every case. */

/** notice: normal wear, dealt with by every reader · warning: nothing is lost, but somebody should look · damage: what should be there is
 *  not, or is not what was written. */
export type Severity = 'notice' | 'warning' | 'damage'

export type FindingKind =
  // Lines that are in no log: what killed and overtaken writers leave behind.
  | 'void-torn'
  | 'void-superseded'
  | 'void-sealed'
  | 'void-leftover'
  | 'void-unfinished'
  | 'void-garbage'
  | 'void-welded'
  /** Bytes at the end without a newline: somebody may be writing them. */
  | 'torn-tail'
  // Damage of a log.
  | 'missing-bytes'
  | 'altered-line'
  | 'nul-run'
  | 'header-missing'
  | 'header-damaged'
  | 'duplicate-id'
  | 'not-a-file'
  | 'unreadable'
  // Damage of the metadata.
  | 'snapshot-damaged'
  | 'snapshot-missing'
  | 'journal-damaged'
  | 'journal-missing'
  /** Snapshot and journal do not belong together: edited, or restored one by one. */
  | 'pair-mismatch'
  | 'format-damaged'
  // Metadata against transcripts.
  | 'transcript-missing'
  | 'transcript-orphan'
  /** Shorter than its recorded high-water mark, or another record stands there. */
  | 'transcript-shrunk'
  /** A rotation, deletion, compaction or repair whose doer died in between: anyone finishes it. */
  | 'unfinished-work'
  // Around them.
  | 'lock-foreign-entry'
  | 'stage-leftover'
  | 'wrong-permissions'
  | 'archive-damaged'
  // What a chat makes of its records; only looked for when asked.
  | 'chat-tool-call-without-result'
  | 'chat-parent-missing'
  | 'chat-two-roots'

export interface Range {
  readonly from: number
  /** Exclusive for bytes, inclusive for sequence numbers. */
  readonly to: number
}

export interface Finding {
  readonly kind: FindingKind
  readonly severity: Severity
  /** Relative to the store. */
  readonly file: string
  readonly bytes: Range | undefined
  readonly seqs: Range | undefined
  /** Whose, where that is known. */
  readonly key: string | undefined
  readonly sessionId: string | undefined
  /** One or two sentences to a person: what it means for their data. */
  readonly meaning: string
  /** Whether `repair` has something to do about it. */
  readonly repairable: boolean
  /** How many of this kind stand in `bytes`, where several next to each other are told as one. */
  readonly count: number
}

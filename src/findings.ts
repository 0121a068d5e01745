/** What `verify` can find in a store, and what a repair can do about it: closed lists, so that a program can handle every case. */

/** notice: normal wear, dealt with by every reader · warning: nothing is lost, but somebody should look · damage: what should be there is
 *  not, or is not what was written. */
export type Severity = 'notice' | 'warning' | 'damage'

export type FindingKind =
  // Lines that are in no log: what killed and overtaken writers leave behind.
  /** A beginning of a line, broken off by the next writer. */
  | 'void-torn'
  /** Written by somebody who had lost the race. */
  | 'void-superseded'
  /** Written behind a seal. */
  | 'void-sealed'
  /** What a power cut has left of records that nobody was told about. */
  | 'void-leftover'
  /** A batch that its writer was killed in. */
  | 'void-unfinished'
  /** No line of this library. */
  | 'void-garbage'
  /** A killed writer's beginning with another's whole line behind it. */
  | 'void-welded'
  /** Bytes at the end without a newline: somebody may be writing them. */
  | 'torn-tail'
  // Damage of a log.
  /** Records that were there, and of which nothing is left where they stood. `bytes` is where: from and to are the same. */
  | 'missing-bytes'
  /** A record once, and none now. */
  | 'altered-line'
  /** Zeros where bytes were, in a line or at the end. */
  | 'nul-run'
  /** Records that are whole, behind others that are missing: no reader gets to them. */
  | 'stranded-records'
  | 'header-missing'
  | 'header-damaged'
  /** Two records of one log under one idempotency id, nearer to each other than ids are remembered. */
  | 'duplicate-id'
  /** A symbolic link, a directory, where a file belongs. */
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
  /** Something in transcripts/ or archive/ that no version of this library puts there. */
  | 'foreign-file'
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

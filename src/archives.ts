/** What a conversation leaves behind, and how it is made less. */
import type { StoredRecord, WaitOptions } from './types.js'

export interface CompactOptions extends WaitOptions {
  /** How many of the last records stay as they are, at least. 0 to 1,000,000, default 20. */
  keepLast?: number | undefined
  /** Makes the summary of these records: first the summary before, if there is one (`record.type` is `summary`), then what has been said since.
   *  May take minutes: nothing is held meanwhile. What it throws, `compact` throws, and nothing is written. */
  summarize: (records: readonly StoredRecord[], context: { readonly signal: AbortSignal }) => string | Promise<string>
  /** Whether `records[at]` may be the first that stays; asked from `keepLast` backwards. Default: never between a tool call and its result, in
   *  the forms of OpenAI, Anthropic and pi. An input is never parted from the turn that takes it, whatever this says. */
  cutBefore?: ((records: readonly StoredRecord[], at: number) => boolean) | undefined
  requestId?: string | undefined
  channelId?: string | undefined
}

export interface CompactReceipt {
  /** False when there was nothing to summarize; and when somebody else's summary, come in meanwhile, stands for as much: then the rest is of that one. */
  readonly compacted: boolean
  /** undefined for a key that names none. */
  readonly sessionId: string | undefined
  /** Of the summary; undefined when there is none. */
  readonly seq: number | undefined
  /** The last record that it stands for, and how many it stands for, those of earlier summaries among them. */
  readonly upTo: number | undefined
  readonly records: number
}

export interface CompactBytesOptions extends WaitOptions {
  /** Nothing is done when less than so many bytes can be removed. 1 or more, default 1. */
  minBytes?: number | undefined
  /** Bytes copied, and bytes to copy. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface CompactBytesReceipt {
  /** False when there was too little to remove; then nothing was written. */
  readonly compacted: boolean
  /** undefined for a key that names none. */
  readonly sessionId: string | undefined
  readonly bytesBefore: number
  readonly bytesAfter: number
  /** The first record that has stayed. */
  readonly from: number | undefined
  /** Name of the whole old file in `archive/`. */
  readonly archive: string | undefined
}

/** A transcript that is not in use any more. Nothing is known of one whose header cannot be read, but for its name. */
export interface ArchiveInfo {
  /** Its name for `readArchive` and `restoreArchive`: the session id, and for the file before a compaction its last seq. */
  readonly archive: string
  /** Relative to the store. */
  readonly file: string
  /** The key that named it then. */
  readonly key: string | undefined
  readonly sessionId: string
  /** The session that the key named before it, and the one it named next. */
  readonly previous: string | undefined
  readonly next: string | undefined
  /** compacted: the session went on, without the records that a summary stands for. */
  readonly reason: 'rotated' | 'deleted' | 'compacted' | 'unknown'
  /** What the caller gave as the reason. */
  readonly why: string | undefined
  /** deleted: the caller's part of the entry, as it was when the session was deleted; undefined for nothing, and for more than 64 KiB. */
  readonly entry: Readonly<Record<string, unknown>> | undefined
  /** Epoch ms. */
  readonly at: number | undefined
  readonly firstSeq: number | undefined
  readonly lastSeq: number | undefined
  /** Records of the log, those of the store's own among them. */
  readonly records: number | undefined
  /** Of the transcript, uncompressed. */
  readonly bytes: number | undefined
  readonly compressed: boolean
  /** Whoever closed it died before it was in `archive/`; the next maintenance puts it there. */
  readonly unfinished: boolean
}

export interface RestoreOptions extends WaitOptions {
  /** The session that it becomes. No session may have that key. */
  key: string
  /** The caller's part of the new entry. Default: what it was when the session was deleted (`entry` of `archives()`), else none. */
  entry?: object | undefined
  /** Bytes copied, and bytes to copy. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface RestoreReceipt {
  readonly key: string
  /** A fresh one. */
  readonly sessionId: string
  readonly archive: string
  readonly records: number
}

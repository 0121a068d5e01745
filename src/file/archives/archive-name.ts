/** Names in `archive/`. Exact patterns, never prefixes: a name that is not one of these is none of ours (F30).
 *
 *      <session id>.jsonl                  closed by a rotation or a deletion
 *      <session id>.<last seq>.jsonl       the file before a compaction of bytes; last seq is that of its seal
 *      ….jsonl.gz                          the same, compressed; then beside it
 *      ….json                              a note of what is in it */

export interface ArchiveName {
  /** Names the archive, compressed or not: `<session id>` or `<session id>.<last seq>`. */
  readonly archive: string
  readonly sessionId: string
  /** Of a compaction. */
  readonly lastSeq: number | undefined
  readonly compressed: boolean
}

const uuid = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
const filePattern = new RegExp(`^((${uuid})(?:\\.(0|[1-9]\\d{0,15}))?)\\.jsonl(\\.gz)?$`)
const archivePattern = new RegExp(`^(${uuid})(?:\\.(0|[1-9]\\d{0,15}))?$`)

/** Of a file in `archive/`; undefined for one that is no archived transcript. */
export function parseArchiveFile(file: string): ArchiveName | undefined {
  const found = filePattern.exec(file)
  if (!found) return undefined
  return {
    archive: found[1]!,
    sessionId: found[2]!,
    lastSeq: found[3] === undefined ? undefined : Number(found[3]),
    compressed: found[4] !== undefined,
  }
}

/** Of what a caller names. */
export function parseArchive(archive: string): Pick<ArchiveName, 'sessionId' | 'lastSeq'> | undefined {
  const found = archivePattern.exec(archive)
  return found ? { sessionId: found[1]!, lastSeq: found[2] === undefined ? undefined : Number(found[2]) } : undefined
}

/** Of a transcript in `transcripts/`. */
export function parseTranscriptFile(file: string): string | undefined {
  const found = parseArchiveFile(file)
  return found && found.lastSeq === undefined && !found.compressed ? found.sessionId : undefined
}

export function noteFile(archive: string): string {
  return `${archive}.json`
}

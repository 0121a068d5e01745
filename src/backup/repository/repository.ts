/** What a backup needs from the place where it is kept. A repository holds snapshots; a snapshot is a list of files; a file is a list of
 *  chunks; a chunk is stored once, however many snapshots name it. docs/backup-format.md has every byte.
 *
 *  Any number of machines may write one repository at once. A snapshot exists from the moment its manifest stands, and its manifest is
 *  written last: whoever is killed before leaves nothing but bytes that the next `prune` removes. */

export interface Repository {
  readonly id: string
  /** False with a key that only adds and lists: `read`, deep checks and the repacking of contents then throw INVALID_OPTION. */
  readonly readable: boolean
  /** Complete snapshots, newest first; those whose manifest is damaged among them, `unreadable` saying why. */
  snapshots(options?: SignalOption): Promise<SnapshotInfo[]>
  /** @param id  whole, or the first characters of exactly one.
   *  @throws NOT_FOUND · BACKUP_MISMATCH  the manifest is not what was stored. */
  manifest(id: string, options?: SignalOption): Promise<Manifest>
  /** Begins a snapshot; concurrent ones do not disturb each other. */
  begin(facts: SnapshotFacts, options?: SignalOption): Promise<SnapshotWriter>
  /** The bytes of a file of a snapshot, in pieces of at most `chunkBytesMax`, each verified before it is handed out; in all exactly
   *  `file.bytes - from`.
   *  @throws BACKUP_MISMATCH  rather than yield what is not what was stored. */
  read(file: FileRow, options?: ReadFileOptions): AsyncIterable<Buffer>
  /** Looks only, unless `condemn` is given. */
  check(options?: CheckOptions): Promise<CheckReport>
  /** Removes manifests, as the policy says; what only they named goes with the next `prune`. */
  forget(policy: ForgetPolicy, options?: ForgetOptions): Promise<ForgetReport>
  /** Removes what no snapshot names. What a running backup may be about to name stays until a later run. */
  prune(options?: PruneOptions): Promise<PruneReport>
  close(): Promise<void>
}

export interface SignalOption {
  readonly signal?: AbortSignal | undefined
}

export interface SnapshotWriter {
  /** Sorts by time of the beginning, as told by this machine's clock. */
  readonly id: string
  /** Stores a file: chunks that are there already cost nothing. Several may be stored at once; memory is bounded however many.
   *  @param facts  a function is asked once the bytes have been read: where a log ends shows when it has been read.
   *  @param bytes  the file's bytes from a position on, to its end; nobody writes to the pieces once they are yielded. Called at most once;
   *  not at all for directories and links, nor for a file that `previous` covers whole. Its error is thrown on; the snapshot goes on
   *  without the file.
   *  @param previous  what an earlier snapshot has of it. */
  file(
    facts: FileFacts | (() => FileFacts),
    bytes?: (from: number) => AsyncIterable<Uint8Array>,
    previous?: PreviousFile,
  ): Promise<StoredFile>
  /** The manifest, last and atomically. Until then the snapshot does not exist. When it returns, everything that the manifest names is
   *  on the target.
   *  @throws LOCK_LOST  effect none: the backup stood still for so long that a prune has given it up. Begin again. */
  commit(facts: ManifestFacts): Promise<SnapshotInfo>
  /** Ends without a snapshot. What was stored stays until a prune and costs the next backup nothing. */
  abandon(): Promise<void>
}

/** A file as an earlier snapshot has it. */
export interface PreviousFile {
  readonly row: FileRow
  /** The first so many bytes are the same still, as far as the caller knows: taken over unread. */
  readonly keepBytes: number
  /** The file ends at `keepBytes`. */
  readonly whole?: boolean
  /** Read those bytes all the same, and say in `StoredFile.changed` when they are not what they were. */
  readonly reread?: boolean
}

export interface StoredFile {
  readonly row: FileRow
  /** From where on the file's bytes were read; undefined when none were. */
  readonly readFrom: number | undefined
  /** How many were read. */
  readonly readBytes: number
  /** How many of them were in no snapshot before; before compression. */
  readonly newBytes: number
  /** With `reread`: where bytes are not what the earlier snapshot has, from the first to the last differing chunk of it. */
  readonly changed: { readonly from: number; readonly to: number } | undefined
}

/** metadata: sessions.json, its journal, the generation before, holdfast.json · other: whatever else lies in the store's directory ·
 *  included: from another directory than the store. */
export type FileRole = 'metadata' | 'transcript' | 'archive' | 'quarantine' | 'other' | 'included'

export interface FileFacts {
  /** Relative, `/` between its parts, none of them empty, `.` or `..`; at most 4,096 characters. Unique in a snapshot. */
  readonly path: string
  readonly role: FileRole
  readonly type: 'file' | 'directory' | 'symlink'
  /** Permission bits. */
  readonly mode: number
  readonly mtimeMs: number
  /** Where a symbolic link leads, as it says. */
  readonly linkTo?: string | undefined
  /** By which the next backup recognises the unchanged file. */
  readonly identity?: FileIdentity | undefined
  /** Of a transcript. */
  readonly session?: SessionFacts | undefined
  /** What was found wrong with it while it was read, in short; at most 100. */
  readonly findings?: readonly string[] | undefined
}

export interface FileIdentity {
  readonly dev: number
  readonly ino: number
  readonly size: number
  readonly ctimeMs: number
}

export interface SessionFacts {
  /** undefined: no key names it (any more). */
  readonly key?: string | undefined
  readonly sessionId: string
  /** Whose it was when the file was begun, as its header says. */
  readonly headerKey?: string | undefined
  /** Of the last record of the file as stored; -1 for a log without a header. */
  readonly lastSeq: number
  /** Of that record, 8 hex digits. */
  readonly lastCrc: string
  /** Of its header; another one means that the file was made anew. */
  readonly headerCrc?: string | undefined
  /** Bytes up to the end of the last record. */
  readonly settledBytes: number
}

export interface FileRow extends FileFacts {
  readonly bytes: number
  /** Of the whole file, 64 hex digits; undefined when its first bytes were taken over from a snapshot that had it shorter: the names of
   *  its chunks prove its content all the same. */
  readonly sha256?: string | undefined
  /** In order; their lengths add up to `bytes`. */
  readonly chunks: readonly ChunkRef[]
}

/** A chunk's name (keyed SHA-256 of its content; plain SHA-256 without encryption) and its length before compression. */
export type ChunkRef = readonly [name: string, bytes: number]

export interface SnapshotFacts {
  readonly storeId: string
  readonly host: string
  /** Epoch ms; default now. */
  readonly time?: number | undefined
}

export interface ManifestFacts {
  /** Epoch ms: the moment that the snapshot shows; default its beginning. */
  readonly time?: number | undefined
  /** Of what: a store's directory and what was included, for people. */
  readonly source: readonly string[]
  /** The data was damaged when it was backed up: counted apart by `forget`. */
  readonly damaged: boolean
  /** What was wrong, in short; the first 1,000 are kept. */
  readonly findings: readonly string[]
  /** Whatever else the maker wants to find again; JSON, at most 64 KiB. */
  readonly extra?: Readonly<Record<string, unknown>> | undefined
}

export interface SnapshotInfo {
  readonly id: string
  readonly time: number
  readonly storeId: string
  readonly host: string
  readonly source: readonly string[]
  readonly damaged: boolean
  readonly findings: readonly string[]
  readonly files: number
  readonly sessions: number
  /** Of all its files. */
  readonly bytes: number
  /** What it added to the target, compressed. */
  readonly addedBytes: number
  readonly extra: Readonly<Record<string, unknown>>
  /** Its manifest is there but is not what was stored: why. Everything else is then empty or 0, `time` as the id says. */
  readonly unreadable?: string | undefined
}

export interface Manifest {
  readonly info: SnapshotInfo
  /** By path. */
  readonly files: readonly FileRow[]
}

export interface ReadFileOptions extends SignalOption {
  /** Default 0. */
  readonly from?: number | undefined
}

export interface CheckOptions extends SignalOption {
  /** Every byte of every chunk is read, decrypted and hashed. Default false: manifests, and that everything they name is there. */
  readonly deep?: boolean | undefined
  /** With `deep`: mark packs that are damaged, so that the next backup stores again what it finds of their chunks, which mends old
   *  snapshots, too. Without it, a check changes nothing. */
  readonly condemn?: boolean | undefined
  /** Only these; default all. */
  readonly snapshots?: readonly string[] | undefined
  /** Called after every pack read. */
  readonly onProgress?: ((done: CheckProgress) => void) | undefined
}

export interface CheckProgress {
  readonly packs: number
  readonly packsTotal: number
  readonly bytes: number
}

export interface CheckReport {
  readonly ok: boolean
  readonly deep: boolean
  readonly snapshots: readonly SnapshotCheck[]
  /** Objects of the target that are missing or not what was stored, whether a snapshot needs them or not. */
  readonly objects: readonly ObjectProblem[]
  readonly packs: number
  readonly bytesRead: number
  /** Stored, but named by no snapshot; a prune removes it. */
  readonly unusedBytes: number
}

export interface SnapshotCheck {
  readonly id: string
  readonly ok: boolean
  readonly info: SnapshotInfo | undefined
  /** What of it cannot be restored; the first 1,000. */
  readonly files: readonly { readonly path: string; readonly problem: string }[]
  readonly filesDamaged: number
  /** Why nothing of it can be. */
  readonly problem: string | undefined
}

export interface ObjectProblem {
  /** Its name on the target. */
  readonly object: string
  readonly problem: string
}

/** How many to keep; whatever any of the rules keeps is kept. */
export interface ForgetPolicy {
  /** Default 30 when no other rule is given. */
  readonly keepLast?: number | undefined
  /** The newest one of each of the last so many days that have one. Days, weeks (from Monday) and months are UTC. */
  readonly keepDaily?: number | undefined
  readonly keepWeekly?: number | undefined
  readonly keepMonthly?: number | undefined
  /** Snapshots of damaged data are counted apart, so that they never push good ones out. How many of the newest to keep; default 30. */
  readonly keepDamaged?: number | undefined
  /** Remove exactly these, whole ids, and judge no others. The only way to remove one whose manifest cannot be read. */
  readonly snapshots?: readonly string[] | undefined
  /** Only snapshots of this store; others are neither counted nor removed. Default: each store by itself. */
  readonly storeId?: string | undefined
}

export interface ForgetOptions extends SignalOption {
  /** Say what would be done; do nothing. */
  readonly dryRun?: boolean | undefined
}

export interface ForgetReport {
  readonly dryRun: boolean
  readonly kept: readonly { readonly snapshot: SnapshotInfo; readonly because: readonly string[] }[]
  readonly removed: readonly SnapshotInfo[]
}

export interface PruneOptions extends ForgetOptions {
  /** A backup that has not been heard of for so long, by the target's own clock, has died; one that has not will be refused at its
   *  commit. Default 24 hours. */
  readonly staleMs?: number | undefined
  /** Packs of which less than this share is in use are written anew; 0 to 1, default 0.5. */
  readonly repackBelow?: number | undefined
}

export interface PruneReport {
  readonly dryRun: boolean
  readonly packsRemoved: number
  readonly packsRepacked: number
  readonly bytesRemoved: number
  /** Unused, but a running backup may still name them: a later run removes them. */
  readonly packsWaiting: number
  /** Backups that are running, as far as can be told: `<snapshot id>`. */
  readonly running: readonly string[]
  /** Backups that have died, or stood still for too long, and can no longer commit. */
  readonly givenUp: readonly string[]
  readonly bytesStored: number
}

/** Of one chunk, before compression. */
export const chunkBytesMax = 1 << 20

/** What an import knows of a conversation that lies somewhere else. */

/** One transcript file that is to become, or to feed, one session. */
export interface TranscriptSource {
  readonly format: 'pi' | 'openclaw'
  readonly path: string
  readonly bytes: number
  /** Given by sessions.json or `--key`; undefined where the file's own header decides. */
  readonly key: string | undefined
  /** What sessions.json says of the session. */
  readonly described: Described | undefined
}

/** One entry of an OpenClaw sessions.json. */
export interface Described {
  readonly key: string
  readonly sessionId: string
  /** File names to look for beside sessions.json, best first. */
  readonly fileNames: readonly string[]
  /** The entry's fields, without those that the store keeps itself and without the path of the old transcript. */
  readonly fields: Readonly<Record<string, unknown>>
  readonly updatedAt: number | undefined
}

/** A session that sessions.json describes but that has no transcript file: only its fields can be taken. */
export interface BareSource {
  readonly format: 'openclaw'
  readonly path: string
  readonly described: Described
}

/** Something of the source that is not in the store afterwards, or not exactly as it was. */
export interface LeftOut {
  readonly path: string
  readonly line: number | null
  readonly key: string | null
  readonly why: string
}

export interface Found {
  readonly transcripts: readonly TranscriptSource[]
  readonly bare: readonly BareSource[]
  readonly leftOut: readonly LeftOut[]
  /** What somebody may want to know that is nobody's fault. */
  readonly notes: readonly string[]
}

/** What stands in an imported session's entry, under `imported`. */
export interface Imported {
  readonly format: 'pi' | 'openclaw'
  /** The source's own session id. */
  readonly sessionId: string
  /** File name, without its directory: the same file found elsewhere is the same source. */
  readonly file?: string
  readonly version?: number
  readonly cwd?: string
  readonly startedAt?: string
  readonly parentSession?: string
  readonly updatedAt?: number
  /** Digest of the fields that came with it: whether somebody has changed them here since. */
  readonly fields?: string
  /** Records of the source that are in the store. */
  readonly records?: number
  /** The store's session id that they went into. */
  readonly into?: string
}

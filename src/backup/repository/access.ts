/** How a repository is made and opened: `createRepository` and `openRepository` of `holdfast/backup`. */
import type { Repository, SignalOption } from './repository.js'

/** A directory's path; `s3://bucket/prefix`; or options. */
export type TargetLocation = string | DirectoryTargetOptions | S3TargetOptions

export interface DirectoryTargetOptions {
  readonly directory: string
}

/** What is not given comes from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION (or
 *  AWS_DEFAULT_REGION), AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL). */
export interface S3TargetOptions {
  /** `s3://bucket/prefix`; or `bucket` and `prefix`. */
  readonly url?: string | undefined
  readonly bucket?: string | undefined
  readonly prefix?: string | undefined
  /** Of an S3-compatible service, `https://…`; default: that of AWS in the region. */
  readonly endpoint?: string | undefined
  /** Default `auto` with an endpoint, else us-east-1. */
  readonly region?: string | undefined
  readonly accessKeyId?: string | undefined
  readonly secretAccessKey?: string | undefined
  readonly sessionToken?: string | undefined
  /** Requests under way at once, 1 to 64; default 8. */
  readonly concurrentMax?: number | undefined
  /** Without a byte for so long, a request is given up and made again; default 30,000. */
  readonly requestMs?: number | undefined
  /** How often in all a request is tried; default 6. */
  readonly triesMax?: number | undefined
  /** The first wait between two tries is at most so long, each further one twice as long, up to 10 s; default 250. */
  readonly backoffMs?: number | undefined
  /** Names asked for with one request, 1 to 1,000; default 1,000. */
  readonly pageMax?: number | undefined
}

/** With which keys. age (https://age-encryption.org) does the encryption. */
export interface EncryptionOptions {
  /** Opens everything. At least 1 character; think of at least 20. */
  readonly passphrase?: string | undefined
  /** Public keys, `age1…`: who may read. To create; when opening, what the repository must be for. */
  readonly recipients?: readonly string[] | undefined
  /** Secret keys of recipients, `AGE-SECRET-KEY-1…`: open everything. */
  readonly identities?: readonly string[] | undefined
  /** The text of the key file that `createRepository` returned: enough to add snapshots, to list and to forget them, and to prune; not
   *  to read what they contain. */
  readonly key?: string | undefined
  /** To create, with a passphrase: how much work each guess is, as the power of two of scrypt's N; default 18, about a second. */
  readonly passphraseWork?: number | undefined
}

export interface OpenRepositoryOptions extends SignalOption {
  /** Needed for an encrypted repository. */
  readonly encryption?: EncryptionOptions | undefined
  /** How much may be under way at once; default 8 objects, 2 compressions. */
  readonly concurrentMax?: number | undefined
}

export interface CreateRepositoryOptions extends OpenRepositoryOptions {
  /** Bytes, compressed, after which a pack is closed: default 8 MiB. Larger ones make fewer objects. */
  readonly packBytes?: number | undefined
}

export interface OpenOrCreateOptions extends CreateRepositoryOptions {
  /** Called before the first snapshot of a repository that has just been made: keep the key. */
  readonly onCreated?: ((made: MadeRepository) => void | Promise<void>) | undefined
}

export interface MadeRepository {
  readonly id: string
  readonly isEncrypted: boolean
  /** See `CreatedRepository`. */
  readonly key: string | undefined
}

export interface CreatedRepository {
  readonly repository: Repository
  /** Of an encrypted one: the text for a key file (mode 0600) on the machines that back up. Not needed by who has the passphrase or an
   *  identity: `repositoryKey` makes it again. */
  readonly key: string | undefined
}

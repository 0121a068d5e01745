/** Where the objects of a repository are kept: a flat space of names with bytes behind them. Whatever stands there is whole: a put that is
 *  cut short leaves nothing, or what was there before. Objects are only ever made, replaced whole, or removed. */

export interface ObjectFacts {
  readonly name: string
  readonly bytes: number
  /** By the target's own clock. */
  readonly modifiedMs: number
}

export interface GetOptions {
  readonly signal?: AbortSignal | undefined
  /** Only these bytes; fewer where the object ends. */
  readonly range?: { readonly from: number; readonly length: number } | undefined
  /** More are refused with BACKUP_MISMATCH: nothing of a repository is larger. Default 64 MiB. */
  readonly bytesMax?: number | undefined
}

export interface PutOptions {
  readonly signal?: AbortSignal | undefined
  /** Only where nothing has that name; of several at once, one succeeds. See `isExclusive`. */
  readonly ifAbsent?: boolean | undefined
}

export interface Target {
  /** For people; without credentials. */
  readonly place: string
  /** How many calls are worth making at once. */
  readonly concurrentMax: number
  /** undefined: there is no such object. */
  get(name: string, options?: GetOptions): Promise<Buffer | undefined>
  /** When it returns, the object is durable and seen by everyone. False: there was one already (`ifAbsent`), and it is as it was. */
  put(name: string, bytes: Uint8Array, options?: PutOptions): Promise<boolean>
  /** All objects whose names begin so, in no promised order; everything whose put returned before the call, nothing whose delete did. */
  list(prefix: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<ObjectFacts[]>
  /** Fine when it is not there. */
  delete(name: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<void>
  /** Nothing stands there that somebody else may have put there: an empty directory, or none at all. */
  isEmpty(signal?: AbortSignal): Promise<boolean>
  /** Now, by the clock that `modifiedMs` comes from. */
  nowMs(signal?: AbortSignal): Promise<number>
  /** Whether `ifAbsent` lets exactly one through. Where it cannot, it looks first and then puts. */
  isExclusive(signal?: AbortSignal): Promise<boolean>
  /** Removes what dead processes have left half made, older than that. */
  sweep(olderThanMs: number): Promise<void>
  close(): Promise<void>
}

export const objectBytesMax = 64 << 20

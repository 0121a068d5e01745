/** A store's verify report, also of a store that is too damaged to be opened. */
import { resolve } from 'node:path'
import { isStoreError } from '../errors.js'
import { nodeDisk } from '../file/durable.js'
import { placesIn } from '../file/format.js'
import { readIdentity } from '../file/lock/identity.js'
import { bootTag } from '../file/log/chain.js'
import type { SessionStore, VerifyReport } from '../index.js'
import { verifyStore } from '../maintenance/verify/verify.js'
import { withStoreToRead } from './options.js'

type Store = SessionStore<Record<string, unknown>>

export interface VerifyOptions {
  readonly onProgress: (done: number, total: number) => void
  readonly signal: AbortSignal
}

/** Runs `work` on the report, and on the store where it could be opened. */
export async function withReport<R>(
  dir: string,
  options: VerifyOptions,
  work: (report: VerifyReport, store: Store | undefined) => Promise<R>,
): Promise<R> {
  let opened = false
  try {
    return await withStoreToRead(dir, async (store) => {
      opened = true
      return work(await store.verify(options), store)
    })
  } catch (error) {
    if (opened || !isStoreError(error) || error.kind !== 'damaged' || error.code === 'STORE_FORMAT_UNSUPPORTED') throw error
    // What kept it from being opened is the first finding; every file is looked at all the same.
    return work(
      await verifyStore(nodeDisk, placesIn(resolve(dir)), bootTag(readIdentity().boot), () => Promise.reject(error), options),
      undefined,
    )
  }
}

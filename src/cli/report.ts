/** A store's verify report, also of a store that is too damaged to be opened. */
import { resolve } from 'node:path'
import { isStoreError } from '../errors.js'
import { placesIn } from '../file/format.js'
import { systemHost } from '../file/host.js'
import { bootTag } from '../file/log/chain.js'
import type { SessionStore, VerifyReport } from '../index.js'
import { verifyStore } from '../maintenance/verify/verify.js'
import { withStoreToRead } from './options.js'

type Store = SessionStore<Record<string, unknown>>

export interface VerifyOptions {
  readonly chat?: boolean
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
    // Every file is looked at all the same.
    const host = systemHost()
    return work(await verifyStore(host, placesIn(resolve(dir)), bootTag(host.identity.boot), options, error), undefined)
  }
}

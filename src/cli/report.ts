/** A store's verify report, also of a store that is too damaged to be listed. */
import { resolve } from 'node:path'
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

/** Runs `work` on the report, and on the store where its metadata can be read. */
export function withReport<R>(
  dir: string,
  options: VerifyOptions,
  work: (report: VerifyReport, store: Store | undefined) => Promise<R>,
): Promise<R> {
  return withStoreToRead(dir, async (store) => {
    const { damage } = store
    if (!damage) return work(await store.verify(options), store)
    // Every file is looked at all the same.
    const host = systemHost()
    return work(await verifyStore(host, placesIn(resolve(dir)), bootTag(host.identity.boot), options, damage), undefined)
  })
}

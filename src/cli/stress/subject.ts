/** The store under trial, as the writers see it. Whoever implements this can be put under the same load and the same faults: Holdfast, and
 *  in the tests the constructions that it must be better than. */
import type { Durability } from '../../types.js'

/** What the writers keep in an entry: names and plain values. */
export type Fields = { readonly [name: string]: string | number }

export interface SubjectOptions {
  readonly durability: Durability
  readonly checkpoint: 'auto' | 'always'
  readonly maxHoldMs: number
  readonly waitMs: number
}

export interface StoredLine {
  readonly seq: number
  readonly record: Record<string, unknown>
}

export interface Counters {
  readonly commits: number
  readonly reruns: number
  readonly takeoversDead: number
  readonly takeoversExpired: number
}

export interface Subject {
  /** Reads, changes and writes these entries as one: `change` runs once for each key, in their order, maybe again when another writer won. */
  update(keys: readonly string[], change: (key: string, fields: Fields | undefined) => Fields): Promise<void>
  get(key: string): Promise<Fields | undefined>
  /** All or nothing. With an id: a second append with the same one adds nothing and gives the first one's receipt. */
  append(key: string, records: readonly object[], id: string | undefined): Promise<{ sessionId: string; seq: number }>
  read(key: string): AsyncIterable<StoredLine>
  counters(): Counters
  /** Reads everything, changes nothing. */
  verify(): Promise<{ damage: string[]; voidLines: number }>
  close(): Promise<void>
}

export interface SubjectModule {
  /** Whether `append` keeps its word about ids. */
  readonly idempotent: boolean
  openSubject(dir: string, options: SubjectOptions): Promise<Subject>
}

/** @param url  of a module that exports what SubjectModule says */
export async function loadSubject(url: string): Promise<SubjectModule> {
  const module: Partial<SubjectModule> = await import(url)
  const { openSubject, idempotent } = module
  if (typeof openSubject !== 'function') throw new TypeError(`${url} exports no openSubject()`)
  return { openSubject, idempotent: idempotent === true }
}

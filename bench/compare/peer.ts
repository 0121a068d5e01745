/** What the workloads ask of a store, Holdfast included: change an entry, append a record, say afterwards what is really there. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import type { Fields } from '../harness/data.js'

export interface Sessions {
  /** Changes one entry by a read, a change and a write that nobody comes between; done when the call returns or its promise resolves. */
  update(key: string, change: (fields: Fields) => Fields): unknown
  get(key: string): unknown
  close(): unknown
}

export interface Transcripts {
  append(session: string, record: Fields): unknown
  /** All of them in one call, where the store has such a call. */
  appendMany?(session: string, records: readonly Fields[]): unknown
  close(): unknown
}

export interface PeerOptions {
  /** After this long a lock counts as abandoned, where the store judges that by time. */
  readonly staleMs?: number
}

export interface Peer {
  readonly name: string
  /** What is behind an acknowledgement. */
  readonly promise: 'power' | 'process'
  /** Another Node to run it in, because it does not run in this one. */
  readonly execPath?: string
  /** It writes all entries for every change: few operations say enough, and take long. */
  readonly rewrites?: boolean
  /** Why it cannot take part, or undefined. */
  missing(): string | undefined
  /** Makes a store with entries 0 to count - 1. */
  seed(dir: string, count: number): Promise<void>
  sessions(dir: string, options?: PeerOptions): Promise<Sessions>
  /** The counter `n` of every entry, read by a fresh handle. */
  counters(dir: string): Promise<Map<string, number>>
  transcripts?(dir: string): Promise<Transcripts>
  /** How many records a session has, read by a fresh handle. */
  recordCount?(dir: string, session: string): Promise<number>
}

/** bench/compare of the checkout; this file runs from bench/.build/bench/compare. */
export const compareDir = fileURLToPath(new URL('../../../compare/', import.meta.url))

const require = createRequire(`${compareDir}package.json`)

/** A peer's module, as it says of itself; its shape is stated where it is used. */
export function loadPeer<Module>(name: string): Module {
  return require(name) as Module
}

export function whyMissing(name: string): string | undefined {
  return existsSync(`${compareDir}node_modules/${name}/package.json`)
    ? undefined
    : `${name} is not installed (npm ci --prefix bench/compare)`
}

export function countOf(fields: Fields): number {
  return typeof fields.n === 'number' ? fields.n : 0
}

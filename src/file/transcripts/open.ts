/** A transcript that is in use, and where transcripts are. */
import type { Entry } from '../../types.js'
import type { Committer } from '../commit.js'
import type { Job } from '../job.js'
import { type Seal, systemBody } from '../log/record.js'
import type { Transcript } from './transcript.js'

export interface TranscriptsPlaces {
  readonly transcripts: string
  readonly archive: string
  readonly locks: string
}

export interface Open {
  readonly transcript: Transcript
  readonly committer: Committer
  /** What else must be on the disk: the metadata record that names it. */
  readonly nameDurable: () => Promise<void> | undefined
  /** Calls that are in the middle of something with it, lock or no lock. */
  pins: number
}

/** Of the user's part of an entry, as JSON. */
const entryBytesMax = 64 << 10

/** What closes the log of a session that is deleted. It keeps what nothing else has any more: the user's part of the entry. */
export function deletedSeal(key: string, last: Entry | undefined, at: number, why?: string): Seal {
  const entry = last && keptOf(last)
  return { reason: 'deleted', key, ...(why !== undefined && { why }), ...(entry && { entry }), at }
}

function keptOf({
  sessionId: _,
  createdAt: __,
  updatedAt: ___,
  revision: ____,
  $: _____,
  ...entry
}: Entry & { readonly $?: unknown }): Seal['entry'] {
  const fits = Object.keys(entry).length > 0 && Buffer.byteLength(JSON.stringify(entry)) <= entryBytesMax
  return fits ? entry : undefined
}

/** Closes its log: nothing chains behind the seal. */
export function sealJob({ transcript, nameDurable }: Open, seal: Seal): Job<void> {
  const { key, sessionId } = transcript
  return { system: true, about: { key, sessionId }, run: () => [systemBody({ seal })], result: () => undefined, alsoDurable: nameDurable }
}

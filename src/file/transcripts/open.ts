/** A transcript that is in use, and where transcripts are. */
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

/** Closes its log: nothing chains behind the seal. */
export function sealJob({ transcript, nameDurable }: Open, seal: Seal): Job<void> {
  const { key, sessionId } = transcript
  return { system: true, about: { key, sessionId }, run: () => [systemBody({ seal })], result: () => undefined, alsoDurable: nameDurable }
}

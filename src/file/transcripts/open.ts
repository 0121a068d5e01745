/** A transcript that is in use, and where transcripts are. */
import type { Committer } from '../commit.js'
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

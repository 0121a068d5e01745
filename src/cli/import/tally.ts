/** What an import has done so far; becomes its report, also when it is cut short. */
import type { Imported, LeftOut } from './source.js'

export interface SessionTally {
  readonly key: string
  readonly format: Imported['format']
  readonly file: string
  readonly version: number | null
  readonly sourceSessionId: string
  /** The store's session id; null when nothing was written. */
  sessionId: string | null
  /** Records appended by this run. */
  added: number
  /** Records of the source that were in the store before. */
  present: number
  /** Lines that are not in the store, or not exactly. */
  leftOut: number
}

/** Details kept; beyond it only counted. */
const detailsMax = 10_000

export class Tally {
  readonly sessions: SessionTally[] = []
  readonly leftOut: LeftOut[] = []
  readonly notes: string[] = []
  leftOutTotal = 0

  leaveOut(item: LeftOut, session?: SessionTally): void {
    this.leftOutTotal++
    if (session) session.leftOut++
    if (this.leftOut.length < detailsMax) this.leftOut.push(item)
  }

  sum(of: 'added' | 'present'): number {
    return this.sessions.reduce((total, session) => total + session[of], 0)
  }
}

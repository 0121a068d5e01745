/** What this process makes of the holders that it comes across. The verdict itself is a pure function (staleness.ts); here is the memory
 *  that it needs: since when we have watched the very name, and what the last probe of its process said. */
import type { Host } from '../host.js'
import type { Entry } from './holder.js'
import { type Holder, judge, type ProcessProbe, type Verdict } from './staleness.js'

export type HeldEntry = Extract<Entry, { readonly state: 'held' }>

const probeEveryMs = 3

/** Watches one lock. A name that changes is watched from the start: its holder has just shown that it lives. */
export class Observer {
  #host: Host
  #watched: { name: string; sinceMs: number; probedAtMs: number; probed: ProcessProbe } | undefined

  constructor(host: Host) {
    this.#host = host
  }

  judge(entry: HeldEntry): Verdict {
    const nowMs = this.#host.clock.monotonicMs()
    if (this.#watched?.name !== entry.name)
      this.#watched = { name: entry.name, sinceMs: nowMs, probedAtMs: Number.NEGATIVE_INFINITY, probed: { exists: false } }
    const watched = this.#watched
    return judge(entry.holder, {
      observer: this.#host.identity,
      nowMs,
      firstSeenAtMs: watched.sinceMs,
      // Who was there a moment ago is asked again a moment later: asking takes longer than most holds.
      probe: (pid) => {
        if (nowMs - watched.probedAtMs < probeEveryMs) return watched.probed
        watched.probedAtMs = nowMs
        watched.probed = this.#host.probe(pid)
        return watched.probed
      },
    })
  }
}

/** Verdicts on many holders at one moment: each process is asked once (ourselves not at all), and who cannot be asked is unknown, however long it has been there. */
export function judgeAtOnce(host: Host): (holder: Holder) => Verdict {
  const nowMs = host.clock.monotonicMs()
  const { pid, startTime } = host.identity
  const probed = new Map<number, ProcessProbe>([[pid, { exists: true, startTime, zombie: false }]])
  const probe = (pid: number): ProcessProbe => {
    const known = probed.get(pid) ?? host.probe(pid)
    probed.set(pid, known)
    return known
  }
  return (holder) => judge(holder, { observer: host.identity, nowMs, firstSeenAtMs: nowMs, probe })
}

/** Whether a transcript holds together as a conversation. Nothing here is the store's business, which keeps what it is given; but models
 *  refuse a call without its result, and viewers that follow parents lose what hangs on one that is missing. */
import { isSystemOnly, readSystem, startsWith, turnPrefix } from '../../file/log/record.js'
import type { ScanSink } from '../../file/log/scan.js'
import type { Finding, FindingKind, Range } from '../../findings.js'
import { type ChatFacts, chatFacts } from './chat-record.js'
import { KnownIds } from './known-ids.js'
import type { LogAbout, ScannedLog } from './log-scan.js'
import { findingSaying } from './report.js'

interface Place {
  readonly seq: number
  readonly bytes: Range
}

const waitingMax = 10_000
const toldMax = 100

export class ChatFindings {
  readonly sink: ScanSink
  #ids = new KnownIds()
  /** Calls without a result so far, and parents that have not been seen so far. */
  #calls = new Map<string, Place>()
  #parents = new Map<string, Place>()
  #root: Place | undefined
  #otherRoots: Place[] = []
  #roots = 0
  #lastSpoken = -1
  /** Where the turn began that has not ended. */
  #activeFrom: number | undefined

  constructor() {
    this.sink = {
      look: (line) => (isSystemOnly(line.bytes, line.start) ? undefined : chatFacts(line)),
      record: (mark, bytes, start, _end, line) => {
        if (startsWith(bytes, start, turnPrefix)) {
          const event = readSystem(bytes, start, mark).turn?.event
          if (event === 'start') this.#activeFrom = mark.seq
          else if (event === 'end') this.#activeFrom = undefined
          return
        }
        const facts = line.look as ChatFacts | undefined
        if (facts) this.#note(facts, { seq: mark.seq, bytes: { from: line.byte, to: line.byte + line.length } })
      },
    }
  }

  #note({ id, parentId, calls, results, speaks }: ChatFacts, place: Place): void {
    for (const result of results) this.#calls.delete(result)
    for (const call of calls) if (this.#calls.size < waitingMax) this.#calls.set(call, place)
    if (speaks) this.#lastSpoken = place.seq
    if (id !== undefined) {
      this.#parents.delete(id)
      this.#ids.add(id)
    }
    if (parentId === null) this.#noteRoot(place)
    else if (parentId !== undefined && this.#parents.size < waitingMax && !this.#ids.has(parentId) && !this.#ids.full)
      this.#parents.set(parentId, place)
  }

  #noteRoot(place: Place): void {
    this.#roots++
    if (!this.#root) this.#root = place
    else if (this.#otherRoots.length < toldMax) this.#otherRoots.push(place)
  }

  /** All has been read. */
  *findings(about: LogAbout, log: ScannedLog): Generator<Finding> {
    const told = (kind: FindingKind, what: string, { seq, bytes }: Place, count = 1) =>
      findingSaying(kind, about.file, what, { key: about.key, sessionId: about.sessionId, bytes, seqs: { from: seq, to: seq }, count })
    // The last calls may be under way, and so is whatever an active turn has called.
    const overdue = ([, { seq }]: readonly [string, Place]) => seq < Math.min(this.#lastSpoken, this.#activeFrom ?? this.#lastSpoken)
    for (const [call, place] of [...this.#calls].filter(overdue).slice(0, toldMax))
      yield told('chat-tool-call-without-result', `Call ${JSON.stringify(call)}.`, place)
    for (const [parent, place] of this.#missingParents(log)) yield told('chat-parent-missing', `Parent ${JSON.stringify(parent)}.`, place)
    const [first] = this.#otherRoots
    if (first) yield told('chat-two-roots', `The first root is seq ${this.#root!.seq}; ${this.#roots - 1} more.`, first, this.#roots - 1)
  }

  /** What was compacted away, or stands before our header, is not looked at, and may be anybody's parent. */
  #missingParents({ header, firstSeq }: ScannedLog): [string, Place][] {
    if (this.#ids.full || header?.foreign || firstSeq > 0) return []
    return [...this.#parents].slice(0, toldMax)
  }
}

/** What turns commit to a transcript. Each reads the log as it is at its base, then looks whether its lease still stands, then writes; and
 *  again so on every re-run. So a turn that was taken over, and wakes, adds nothing, and the log tells who was active when. */
import type { BegunTurn, EncodedRecord, InputAt, LeftInput, RequestFacts, TurnEnding } from '../../backend.js'
import { StoreError } from '../../errors.js'
import type { Job } from '../job.js'
import { type PendingInput, type SystemPart, systemBody, withPart } from '../log/record.js'
import type { Transcript } from './transcript.js'
import type { KnownRequest, TurnLog } from './turn-log.js'

type NameDurable = () => Promise<void> | undefined

/** Who writes on behalf of which turn. */
export interface Fence {
  readonly key: string
  readonly sessionId: string
  readonly turn: number
  /** One look at the disk: the lease is still ours. */
  stands(): boolean
}

/** One look at who is in line: whether somebody alive still waits to run a request himself. */
export type Waiting = () => (request: string) => boolean

export interface Beginning {
  readonly request: RequestFacts
  /** The input, when it is not in the log yet. */
  readonly records: readonly EncodedRecord[] | undefined
  readonly stands: () => boolean
  /** Fencing token of the lease. */
  readonly lease: number
  readonly waiting: Waiting
  /** It has left its input before: then there is something to be found, however long ago. */
  readonly hasLeft: boolean
  /** Its caller has given up. Asked last, before it is written. */
  readonly abandoned: () => unknown
  /** Only to answer what others have left: without any, nothing is begun. */
  readonly onlyForLeft: boolean
  readonly nowMs: () => number
}

/** @throws TURN_LOST */
export function assertActive(transcript: Transcript, fence: Fence): void {
  if (transcript.sessionId !== fence.sessionId) throw turnLost(fence, 'the session was closed and goes on under another id')
  const { active, last } = transcript.turns
  if (active?.n !== fence.turn) throw turnLost(fence, last > fence.turn ? `turn ${last} has begun since` : 'it has ended')
  if (!fence.stands()) throw turnLost(fence, 'its lease was taken over')
}

export function turnLost({ key, sessionId, turn }: Omit<Fence, 'stands'>, why: string): StoreError {
  return new StoreError('TURN_LOST', `turn ${turn} of ${JSON.stringify(key)} is over: ${why}.`, {
    details: { key, sessionId, turn, why },
    hint: 'Nothing was written by this call. What the turn appended before stands; stop working on it.',
  })
}

/** Leaves an input in the log, for a turn to come or for the active one. */
export function inputJob(
  transcript: Transcript,
  records: readonly EncodedRecord[],
  request: RequestFacts,
  nameDurable: NameDurable,
): Job<LeftInput> {
  const { sessionId } = transcript
  let earlier: KnownRequest | undefined
  let active: TurnLog['active']
  return {
    about: aboutRequest(transcript, request),
    system: true,
    solo: true,
    run: () => {
      const turns = request.given ? transcript.requests : transcript.turns
      earlier = request.given ? turns.request(request.requestId) : undefined
      // It came to nothing, and its input, if it had any, is in a session that is closed.
      if (earlier && isOver(earlier) && !ownInput(earlier, sessionId)) earlier = undefined
      active = turns.active
      return earlier ? [] : inputBodies(records, request)
    },
    result: (seqs) => ({
      sessionId: earlier?.sessionId ?? sessionId,
      seqs: earlier ? seqsFrom(earlier.seq, earlier.count) : seqs,
      earlier,
      active: active && { turn: active.n, requestId: active.request, lease: active.lease },
    }),
    dependsOn: () => (earlier?.sessionId === sessionId ? Math.max(earlier.seq + earlier.count - 1, earlier.endSeq) : -1),
    alsoDurable: nameDurable,
  }
}

function inputBodies(records: readonly EncodedRecord[], { requestId, given, whenBusy }: RequestFacts): string[] {
  const count = records.length
  const part: SystemPart = { input: requestId, ...(count > 1 && { count }), when: whenBusy, ...(given && { given }) }
  return records.map(({ json }, at) => (at === 0 ? withPart(json, part) : json))
}

/** Begins a turn: takes its own input, and every other that nobody waits to run. Nothing is written when the request was answered before. */
export function startJob(transcript: Transcript, beginning: Beginning, nameDurable: NameDurable): Job<BegunTurn> {
  const { request, records } = beginning
  const { sessionId, key } = transcript
  const { requestId, given, lane, channelId } = request
  let begun: BegunTurn
  let withInput = false
  return {
    about: aboutRequest(transcript, request),
    // A start alone is nothing that anybody was promised; the turn's next record, and its end, wait for both.
    relaxed: () => begun.kind === 'started' && !withInput,
    system: true,
    solo: true,
    run: () => {
      const turns = given ? transcript.requests : transcript.turns
      const known = turns.request(requestId) ?? (beginning.hasLeft ? transcript.requests.request(requestId) : undefined)
      const over = answered(turns, known)
      if (over) {
        begun = over
        return []
      }
      const own: InputAt | undefined = ownInput(known, sessionId) ?? (records && [requestId, transcript.batch.next, records.length])
      const fresh = own !== undefined && own[1] === transcript.batch.next
      const left = anybodys(turns, beginning.waiting, requestId)
      if (beginning.onlyForLeft && left.length === 0) {
        begun = { kind: 'nothing' }
        return []
      }
      const taken = new Set([requestId, ...left.map(([id]) => id)])
      const takes = [...left.map(inputAt), ...(own && (fresh || turns.pending.has(requestId)) ? [own] : [])]
      const abandoned = beginning.abandoned()
      if (abandoned !== undefined) throw abandoned
      if (!beginning.stands()) throw turnLost({ key, sessionId, turn: turns.last + 1 }, 'its lease was taken over before it began')
      const attempt = (known?.attempt ?? 0) + 1
      begun = { kind: 'started', key, sessionId, turn: turns.last + 1, attempt, input: own, inputIsNew: fresh, left: left.map(inputAt) }
      const start = systemBody({
        turn: {
          event: 'start',
          n: turns.last + 1,
          request: requestId,
          ...(given && { given }),
          attempt,
          lane,
          ...(channelId !== undefined && { channel: channelId }),
          at: beginning.nowMs(),
          lease: beginning.lease,
          ...(takes.length > 0 && { takes }),
          ...turns.pendingPart([...turns.pending.values()].filter(([id]) => !taken.has(id))),
          ...(turns.active && { interrupted: turns.active.n }),
        },
      })
      withInput = fresh
      return fresh ? [...inputBodies(records!, request), start] : [start]
    },
    result: () => begun,
    dependsOn: () => ('endSeq' in begun && begun.sessionId === sessionId ? begun.endSeq : -1),
    alsoDurable: nameDurable,
  }
}

/** A request that needs no turn of its own any more. */
function answered(turns: TurnLog, known: KnownRequest | undefined): BegunTurn | undefined {
  if (!known) return undefined
  const { sessionId, turn, attempt, endSeq } = known
  if (known.state === 'completed') return { kind: 'answered', sessionId, turn, attempt, endSeq }
  // Its input went into somebody else's turn. When that one came to nothing, it is begun anew.
  if (known.state === 'taken' && !turns.cameToNothing(turn))
    return { kind: 'coalesced', sessionId, turn, attempt, endSeq: known.seq + known.count - 1 }
  return undefined
}

function isOver({ state }: KnownRequest): boolean {
  return state === 'failed' || state === 'interrupted'
}

/** The inputs that are for whoever has the turn: those that were left for it, and those whose callers are gone. */
function anybodys({ pending }: TurnLog, waiting: Waiting, except?: string): PendingInput[] {
  if (pending.size === 0) return []
  const waits = waiting()
  return [...pending.values()].filter(([id, , , when]) => id !== except && (when === 'coalesce' || !waits(id)))
}

function ownInput(known: KnownRequest | undefined, sessionId: string): InputAt | undefined {
  return known && known.count > 0 && known.sessionId === sessionId ? [known.id, known.seq, known.count] : undefined
}

/** Hands the active turn what others have left for it since. */
export function takeJob(transcript: Transcript, fence: Fence, waiting: Waiting, nowMs: () => number): Job<readonly InputAt[]> {
  let takes: InputAt[] = []
  return {
    about: { key: fence.key, sessionId: fence.sessionId, turn: fence.turn },
    system: true,
    solo: true,
    run: () => {
      assertActive(transcript, fence)
      takes = anybodys(transcript.turns, waiting).map(inputAt)
      return takes.length > 0 ? [systemBody({ turn: { event: 'take', n: fence.turn, at: nowMs(), takes } })] : []
    },
    result: () => takes,
  }
}

/** Takes an input back that no turn has taken. False when one has. */
export function withdrawJob(transcript: Transcript, request: RequestFacts, nowMs: () => number): Job<boolean> {
  let there = false
  return {
    about: aboutRequest(transcript, request),
    system: true,
    solo: true,
    run: () => {
      there = transcript.turns.pending.has(request.requestId)
      return there ? [systemBody({ turn: { event: 'withdraw', request: request.requestId, at: nowMs() } })] : []
    },
    result: () => there,
  }
}

/** Ends a turn. What it leaves behind is for the next one. */
export function endJob(
  transcript: Transcript,
  fence: Fence,
  request: RequestFacts,
  ending: TurnEnding,
  waiting: Waiting,
  nowMs: () => number,
): Job<{ left: number }> {
  let left = 0
  return {
    about: { ...aboutRequest(transcript, request), turn: fence.turn, outcome: ending.outcome },
    system: true,
    solo: true,
    run: () => {
      assertActive(transcript, fence)
      const pending = [...transcript.turns.pending.values()]
      left = anybodys(transcript.turns, waiting).length
      const { outcome, value, error } = ending
      return [
        systemBody({
          turn: {
            event: 'end',
            n: fence.turn,
            request: request.requestId,
            outcome,
            at: nowMs(),
            ...(value !== undefined && { value }),
            ...(error !== undefined && { error }),
            ...transcript.turns.pendingPart(pending),
          },
        }),
      ]
    },
    result: () => ({ left }),
  }
}

/** Asks, and writes nothing. */
export function askJob(transcript: Transcript, request: RequestFacts): Job<KnownRequest | undefined> {
  let known: KnownRequest | undefined
  return {
    about: aboutRequest(transcript, request),
    run: () => {
      known = transcript.requests.request(request.requestId)
      return []
    },
    result: () => known,
    dependsOn: () => (known?.sessionId === transcript.sessionId ? known.endSeq : -1),
  }
}

function aboutRequest({ key, sessionId }: Transcript, { requestId, channelId }: RequestFacts) {
  return { key, sessionId, requestId, channelId }
}

function inputAt([request, seq, count]: PendingInput): InputAt {
  return [request, seq, count]
}

function seqsFrom(seq: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) => seq + at)
}

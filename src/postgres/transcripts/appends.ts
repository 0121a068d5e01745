/** Appending in groups: calls that are made while a statement is under way share the next one. Whatever is for one key goes the same way, one
 *  statement after another, so one handle's appends to a session keep their order; a few ways side by side, so that sessions do not wait for
 *  each other's round trips. */
import { crc32 } from 'node:zlib'
import type { EncodedRecord } from '../../backend.js'
import type { AppendOptions, AppendReceipt } from '../../types.js'
import { type Counters, commitChannel } from '../counters.js'
import type { Database } from '../database.js'
import { type FenceOf, refusedAppend } from './refusals.js'

/** On whose behalf. */
export interface AppendFence extends FenceOf {
  readonly lease: number
}

interface Call {
  readonly key: string
  readonly records: readonly EncodedRecord[]
  readonly options: AppendOptions
  readonly fence: AppendFence | undefined
  resolve(receipt: AppendReceipt): void
  reject(error: unknown): void
}

export interface AppendTools {
  readonly database: Database
  readonly counters: Counters
  readonly schema: string
  freshCommit(): string
  mintId(): string
}

const ways = 4
const callsMax = 256
const charactersMax = 4 << 20
const doing = 'appending'

export class Appends {
  readonly #ways: Way[]

  constructor(tools: AppendTools) {
    this.#ways = Array.from({ length: ways }, () => new Way(tools))
  }

  append(key: string, records: readonly EncodedRecord[], options: AppendOptions, fence?: AppendFence): Promise<AppendReceipt> {
    return new Promise((resolve, reject) => {
      this.#ways[crc32(key) % ways]!.submit({ key, records, options, fence, resolve, reject })
    })
  }
}

class Way {
  readonly #tools: AppendTools
  #queue: Call[] = []
  #running = false

  constructor(tools: AppendTools) {
    this.#tools = tools
  }

  submit(call: Call): void {
    this.#queue.push(call)
    if (!this.#running) void this.#drain()
  }

  async #drain(): Promise<void> {
    this.#running = true
    // Calls that are made in the same moment go together.
    await null
    while (this.#queue.length > 0) {
      const calls = this.#take()
      if (calls.length === 0) continue
      try {
        await this.#send(calls)
      } catch (error) {
        for (const call of calls) call.reject(error)
      }
    }
    this.#running = false
  }

  /** The next ones, by key: in one order everywhere, so that two statements never wait for each other in a circle. */
  #take(): Call[] {
    let characters = 0
    let count = 0
    for (const { records } of this.#queue) {
      characters += records.reduce((sum, { json }) => sum + json.length, 0)
      if (count > 0 && (characters > charactersMax || count >= callsMax)) break
      count++
    }
    return this.#queue
      .splice(0, count)
      .filter(({ options: { signal }, reject }) => {
        if (signal?.aborted) reject(signal.reason)
        return !signal?.aborted
      })
      .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
  }

  async #send(calls: readonly Call[]): Promise<void> {
    const { database, schema, counters, freshCommit, mintId } = this.#tools
    const waitMs = Math.max(...calls.map(({ options }) => options.waitMs ?? database.waitMs))
    const bodies = calls.flatMap(({ records }) => records.map(({ json }) => json))
    const [answer] = await database.write(
      `select ${schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) as result`,
      [
        freshCommit(),
        Math.ceil(waitMs),
        calls.map(({ key }) => key),
        calls.map(() => mintId()),
        calls.map(({ records }) => records.length),
        calls.map(({ options: { id } }) => (id === undefined ? null : JSON.stringify(id))),
        calls.map(({ options }) => options.expectedSeq ?? null),
        calls.map(({ options, fence }) => fence?.sessionId ?? options.expectedSessionId ?? null),
        calls.map(({ fence }) => fence?.turn ?? null),
        calls.map(({ fence }) => fence?.lease ?? null),
        calls.flatMap(partsOf),
        bodies,
      ],
      { doing, waitMs },
    )
    const lines = answer!.result as string[]
    const bytes = bodies.reduce((sum, body) => sum + body.length, 0)
    if (lines.some((line) => line.startsWith('ok|'))) {
      counters.commits++
      counters.bytesWritten += bytes
    }
    for (const [at, call] of calls.entries()) this.#answer(call, lines[at]!, bytes)
  }

  #answer(call: Call, line: string, bytes: number): void {
    const { key, options, fence, resolve, reject } = call
    const [outcome, sessionId, seqText, countText] = line.split('|') as [string, string, string, string]
    if (outcome !== 'ok' && outcome !== 'dup') return reject(refusedAppend(key, line, options, fence))
    const seq = Number(seqText)
    const count = Number(countText)
    const seqs = Array.from({ length: count }, (_, at) => seq - count + 1 + at)
    if (outcome === 'ok') {
      this.#tools.counters.recordsWritten += count
      const { requestId, channelId } = options
      if (commitChannel.hasSubscribers)
        commitChannel.publish({ log: `transcripts/${sessionId}`, seqs, bytes, key, sessionId, requestId, channelId })
    }
    resolve({ sessionId, seq, seqs, duplicate: outcome === 'dup' })
  }
}

/** What the store says of each record, as JSON text; null for nothing. */
function partsOf({ records, options: { id }, fence }: Call): (string | null)[] {
  const by = fence && { by: fence.turn }
  const rest = by ? JSON.stringify(by) : null
  const count = records.length
  const first = id === undefined ? rest : JSON.stringify({ id, ...(count > 1 && { count }), ...by })
  return records.map((_, at) => (at === 0 ? first : rest))
}

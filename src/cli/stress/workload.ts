/** What one writer does all the time: updates shared counters, appends to shared and own sessions, reads; and writes down each step. */
import fs from 'node:fs'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { errnoOf, isStoreError } from '../../errors.js'
import { counterField } from './analysis.js'
import { type LedgerWriter, ledgerPath, nowUs, openLedger, readLedger } from './ledger.js'
import { collectOperations, type Operation } from './operations.js'
import type { Ordeal } from './ordeal.js'
import { type Random, seededRandom } from './random.js'
import { givenRecords, madeRecords, marked, type RecordSource, readTranscript } from './records.js'
import { type Counters, type Fields, loadSubject, type Subject, type SubjectModule, type SubjectOptions } from './subject.js'

export interface LoadOptions extends SubjectOptions {
  readonly seed: string
  /** URL of the module that opens the store under trial. */
  readonly subject: string
  readonly dir: string
  readonly ledgerDir: string
  /** How many shared counters, and shared sessions. */
  readonly counters: number
  readonly sessions: number
  /** How many operations a writer has under way at once. */
  readonly loops: number
  /** How many times a writer opens the store in one process. */
  readonly handles: number
  /** Shares of the kinds of operation. */
  readonly mix: { readonly update: number; readonly append: number; readonly get: number }
  /** A JSONL transcript whose lines are the records. */
  readonly input?: string | undefined
}

export interface WriterOptions extends LoadOptions {
  readonly writer: string
  readonly incarnation: number
}

export interface Tally extends Counters {
  readonly acknowledged: number
  readonly failed: number
}

/** An incarnation that did so much has done enough: its ledger must fit into memory. */
const operationsMax = 1_000_000
const pauseAfterFailureMs = 20
const twoKeysShare = 0.25
const batchShare = 0.2
const idShare = 0.3
const sharedShare = 0.6

export class Workload {
  readonly #options: WriterOptions
  readonly #ordeal: Ordeal
  readonly #random: Random
  readonly #records: RecordSource
  readonly #log: LedgerWriter
  #module!: SubjectModule
  #handles: Handle[] = []
  #running: Promise<unknown> = Promise.resolve()
  /** Rejects when the writer itself fails (its ledger cannot be written, say); never resolves. */
  broken: Promise<never> = new Promise(() => {})
  #stopping = false
  #acknowledged = 0
  #failed = 0

  constructor(options: WriterOptions, ordeal: Ordeal) {
    this.#options = options
    this.#ordeal = ordeal
    this.#random = seededRandom(`${options.seed} ${options.writer}.${options.incarnation}`)
    this.#records = options.input === undefined ? madeRecords : givenRecords(readTranscript(options.input).records)
    this.#log = openLedger(ledgerPath(options.ledgerDir, options.writer, options.incarnation))
  }

  async open(): Promise<void> {
    const { dir, handles, loops, writer, incarnation, subject } = this.#options
    this.#module = await loadSubject(subject)
    for (let n = 0; n < handles; n++) {
      const issuer = `${writer}${n === 0 ? '' : String.fromCharCode(97 + n)}.${incarnation}`
      this.#handles.push({ store: await this.#module.openSubject(dir, this.#options), issuer, issued: 0 })
    }
    this.#running = Promise.all([this.#finishPredecessor(), ...Array.from({ length: loops }, (_, n) => this.#loop(n))])
    this.broken = new Promise((_, reject) => this.#running.catch(reject))
  }

  tally(): Tally {
    const sum = (of: (counters: Counters) => number) => this.#handles.reduce((total, { store }) => total + of(store.counters()), 0)
    return {
      acknowledged: this.#acknowledged,
      failed: this.#failed,
      commits: sum((counters) => counters.commits),
      reruns: sum((counters) => counters.reruns),
      takeoversDead: sum((counters) => counters.takeoversDead),
      takeoversExpired: sum((counters) => counters.takeoversExpired),
    }
  }

  /** Resolves when what was under way has ended. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
  }

  async close(): Promise<void> {
    for (const { store } of this.#handles) await store.close()
  }

  async #loop(n: number): Promise<void> {
    const { update, append, get } = this.#options.mix
    for (let done = 0; !this.#stopping && done < operationsMax / this.#options.loops; done++) {
      const handle = this.#handles[(n + done) % this.#handles.length]
      if (!handle) return
      const dice = this.#random.next() * (update + append + get)
      if (dice < update) await this.#update(handle)
      else if (dice < update + append) await this.#append(handle)
      else await this.#get(handle)
      // A store whose promises are already resolved would otherwise never let the timers and the channel have their turn.
      await setImmediate()
    }
  }

  async #update(handle: Handle): Promise<void> {
    const op = nextOp(handle)
    const keys = this.#counterKeys()
    const field = counterField(op)
    this.#log({ is: 'try', op, at: nowUs(), kind: 'update', keys })
    await this.#settle(op, async () => {
      await handle.store.update(keys, (key, fields) => {
        const { last, count } = stateOf(fields)
        this.#log({ is: 'saw', op, at: nowUs(), key, last, count })
        this.#ordeal.undergo()
        return { ...fields, last: op, count: count + 1, [field]: Number(fields?.[field] ?? 0) + 1 }
      })
      return {}
    })
  }

  #append(handle: Handle): Promise<void> {
    const op = nextOp(handle)
    const { sessions, writer } = this.#options
    const shared = sessions > 0 && this.#random.next() < sharedShare
    const key = shared ? `stress:shared:${this.#random.below(sessions)}` : `stress:own:${writer}`
    const parts = this.#random.next() < batchShare ? 2 + this.#random.below(4) : 1
    const again = this.#module.idempotent && this.#random.next() < idShare
    return this.#appendAs(handle, op, key, parts, again)
  }

  async #appendAs({ store }: Handle, op: string, key: string, parts: number, again: boolean): Promise<void> {
    const records = Array.from({ length: parts }, (_, part) => marked(op, part, parts, this.#records(op, part)))
    this.#log({ is: 'try', op, at: nowUs(), kind: 'append', keys: [key], parts, again })
    await this.#settle(op, async () => {
      const { sessionId, seq } = await store.append(key, records, again ? op : undefined)
      return { sessionId, seq }
    })
  }

  async #get(handle: Handle): Promise<void> {
    const op = nextOp(handle)
    const key = `stress:counter:${this.#random.below(this.#options.counters)}`
    this.#log({ is: 'try', op, at: nowUs(), kind: 'get', keys: [key] })
    await this.#settle(op, async () => stateOf(await handle.store.get(key)))
  }

  async #settle(
    op: string,
    work: () => Promise<{ sessionId?: string; seq?: number; last?: string | null; count?: number }>,
  ): Promise<void> {
    try {
      const facts = await work()
      this.#log({ is: 'ack', op, at: nowUs(), ...facts })
      this.#acknowledged++
    } catch (error) {
      this.#failed++
      this.#log({ is: 'err', op, at: nowUs(), ...failureOf(error) })
      await setTimeout(pauseAfterFailureMs)
    }
  }

  /** Appends with an id that the incarnation before this one left in doubt are made again, under the same id: exactly one must stand. */
  async #finishPredecessor(): Promise<void> {
    const { writer, incarnation, ledgerDir } = this.#options
    const [handle] = this.#handles
    if (!handle || !fs.existsSync(ledgerPath(ledgerDir, writer, incarnation - 1))) return
    const before = readLedger(ledgerDir, `${writer}.${incarnation - 1}.jsonl`)
    const again = new Set(before.lines.filter((line) => line.is === 'try' && line.again).map(({ op }) => op))
    for (const { op, keys, parts, ack, error } of collectOperations([before]).values() as Iterable<Operation>)
      if (again.has(op) && !ack && !error && keys[0] !== undefined) await this.#appendAs(handle, op, keys[0], parts, true)
  }

  #counterKeys(): string[] {
    const { counters } = this.#options
    const first = this.#random.below(counters)
    if (counters === 1 || this.#random.next() >= twoKeysShare) return [`stress:counter:${first}`]
    return [`stress:counter:${first}`, `stress:counter:${(first + 1 + this.#random.below(counters - 1)) % counters}`]
  }
}

interface Handle {
  readonly store: Subject
  readonly issuer: string
  issued: number
}

function nextOp(handle: Handle): string {
  return `${handle.issuer}.${++handle.issued}`
}

function stateOf(fields: Fields | undefined): { last: string | null; count: number } {
  return { last: fields?.last === undefined ? null : String(fields.last), count: Number(fields?.count ?? 0) }
}

function failureOf(error: unknown): { code: string; kind: string; effect: 'none' | 'unknown'; message: string } {
  if (isStoreError(error)) return { code: error.code, kind: error.kind, effect: error.effect, message: error.message }
  const message = error instanceof Error ? error.message : String(error)
  return { code: errnoOf(error) ?? 'UNKNOWN', kind: 'bug', effect: 'unknown', message }
}

/** Commits to the entries: optimistic, one round trip where nobody else has changed what the mutators read.
 *
 *  1 run the mutators, synchronously, on the rows as they were last seen here     nothing is held, by nobody
 *  2 fetch what they asked for and is not known here, and run them again          one statement
 *  3 commit                                                                        one statement: locks the rows that were read, compares their
 *                                                                                  change numbers, writes all or nothing
 *  4 on a conflict, fetch what was read anew, and run again from there
 *
 *  A mutator that goes through all entries is compared with all of them: the statement then waits for those under way, for microseconds,
 *  and lets none begin meanwhile. Calls that are made while a commit is under way share the next one, in their order. */
import { StoreError } from '../../errors.js'
import type { Entry, SessionsView, WaitOptions } from '../../types.js'
import { type Counters, commitChannel } from '../counters.js'
import type { Database, Row } from '../database.js'
import type { ServerClock } from '../server-clock.js'
import { Base, Starved } from './base.js'
import { type EntryRow, entryOf, rowOf } from './rows.js'
import { MutatorView, Overlay, type ViewTools } from './view.js'

type Mutate<R> = (sessions: SessionsView<Record<string, unknown>>) => R

interface Call {
  readonly mutate: Mutate<unknown>
  readonly wait: WaitOptions
  resolve(value: unknown): void
  reject(error: unknown): void
  value: unknown
  error: { readonly thrown: unknown } | undefined
}

export interface MetadataTools extends ViewTools {
  readonly database: Database
  readonly clock: ServerClock
  readonly counters: Counters
  /** Quoted. */
  readonly schema: string
  freshCommit(): string
}

const callsPerCommitMax = 500
const rowsKept = 2_000
/** Whoever asks for one key after another has asked for so many by then; what else it will ask for is not known, so everything is fetched. */
const fewRounds = 4
const doing = { doing: 'changing entries' }

export class Metadata {
  readonly #tools: MetadataTools
  #queue: Call[] = []
  #running = false
  /** As last seen; perhaps no longer true. */
  #seen = new Map<string, EntryRow | undefined>()
  /** A mutator runs just now. */
  mutating = false

  constructor(tools: MetadataTools) {
    this.#tools = tools
  }

  commit<R>(mutate: Mutate<R>, wait: WaitOptions): Promise<R> {
    return new Promise<unknown>((resolve, reject) => {
      this.#queue.push({ mutate, wait, resolve, reject, value: undefined, error: undefined })
      if (!this.#running) void this.#drain()
    }) as Promise<R>
  }

  async get(key: string): Promise<Entry | undefined> {
    const { database, schema } = this.#tools
    const [found] = await database.read(`select * from ${schema}.entries where key = $1`, [key], { doing: 'reading an entry' })
    const row = found && rowOf(found)
    this.#see(key, row)
    return row && entryOf(row)
  }

  async #drain(): Promise<void> {
    this.#running = true
    // Calls that are made in the same moment go together.
    await null
    while (this.#queue.length > 0) {
      const calls = this.#queue.splice(0, callsPerCommitMax)
      try {
        await this.#commitTogether(calls)
      } catch (error) {
        for (const call of calls) call.reject(error)
      }
    }
    this.#running = false
  }

  async #commitTogether(calls: readonly Call[]): Promise<void> {
    const deadlineMs = performance.now() + Math.max(...calls.map(({ wait }) => wait.waitMs ?? this.#tools.database.waitMs))
    let base = new Base(new Map(this.#seen), false)
    let fetched = false
    for (let tries = 0; ; tries++) {
      const living = calls.filter((call) => !dropAborted(call))
      if (living.length === 0) return
      if (tries > 0) this.#tools.counters.reruns += living.length
      const changes = this.#run(living, base)
      const settled = base.starved ? undefined : await this.#settle(base, changes, fetched)
      if (settled === 'committed') return this.#answer(living, changes)
      if (settled === 'conflict') this.#tools.counters.conflicts++
      if (performance.now() > deadlineMs) throw overtaken()
      base = await this.#fetch(base, tries >= fewRounds)
      fetched = true
    }
  }

  /** Runs them in order, each on what those before it have changed. One that throws has changed nothing. */
  #run(calls: readonly Call[], base: Base): Overlay {
    const batch = new Overlay(base)
    for (const call of calls) {
      const own = new Overlay(batch)
      const view = new MutatorView(own, this.#tools)
      call.error = undefined
      this.mutating = true
      try {
        call.value = call.mutate(view)
        refusePromise(call.value)
        batch.merge(own)
      } catch (thrown) {
        if (!(thrown instanceof Starved)) call.error = { thrown }
      } finally {
        this.mutating = false
        view.close()
      }
    }
    return batch
  }

  async #settle(base: Base, { changes }: Overlay, fetched: boolean): Promise<'committed' | 'conflict'> {
    const writes = [...changes].filter(([key, row]) => row || base.get(key)).sort(([a], [b]) => (a < b ? -1 : 1))
    if (writes.length > 0) return this.#write(base, writes)
    // Nothing to be written: what was read must have been true at one moment after the call.
    return fetched || (base.reads.size === 0 && !base.readsAll) ? 'committed' : 'conflict'
  }

  async #write(base: Base, writes: readonly (readonly [string, EntryRow | undefined])[]): Promise<'committed' | 'conflict'> {
    const { database, schema, clock, counters, freshCommit } = this.#tools
    const reads = base.readsAll ? writes.map(([key]) => key) : [...base.reads]
    const rows = base.readsAll ? [...base.keys()].map((key) => base.get(key)!) : undefined
    const column = (of: (row: EntryRow | undefined, key: string) => unknown) => writes.map(([key, row]) => of(row, key))
    const askedAtMs = performance.now()
    const [answer] = await database.write(
      `select ${schema}.commit_metadata($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) as result`,
      [
        freshCommit(),
        database.waitMs,
        reads,
        reads.map((key) => base.get(key)?.change ?? 0),
        rows?.length ?? null,
        rows?.reduce((highest, { change }) => Math.max(highest, change), 0) ?? null,
        column((_, key) => key),
        column((row, key) => dropsSession(base.get(key), row)),
        column((row) => row?.sessionId ?? null),
        column((row) => row?.revision ?? null),
        column((row) => row?.createdAt ?? null),
        column((row) => row?.updatedAt ?? null),
        column((row) => row?.fields ?? null),
      ],
      doing,
    )
    const [outcome, serverMs, ...numbers] = answer!.result as string[]
    if (outcome === 'conflict') return 'conflict'
    clock.note(Number(serverMs), askedAtMs)
    for (const [at, [key, row]] of writes.entries()) this.#see(key, row && { ...row, change: Number(numbers[at]) })
    counters.commits++
    counters.recordsWritten += writes.length
    counters.bytesWritten += writes.reduce((sum, [key, row]) => sum + key.length + (row?.fields.length ?? 0), 0)
    return 'committed'
  }

  /** What was looked at, as it is now, at one moment; and from now on what is known of it. */
  async #fetch(base: Base, manyKeys: boolean): Promise<Base> {
    const { database, schema } = this.#tools
    const all = base.readsAll
    if (manyKeys && !all && base.starved) {
      const found = await database.read(`select * from ${schema}.entries`, [], doing)
      return new Base(new Map(found.map((row) => [row.key as string, rowOf(row)])), true)
    }
    const found = all
      ? await database.read(`select * from ${schema}.all_rows()`, [], doing)
      : await database.read(`select * from ${schema}.rows_of($1)`, [[...base.reads]], doing)
    const rows = new Map(found.map((row) => [row.key as string, presentRow(row)]))
    if (all) return new Base(rows, true)
    for (const [key, row] of rows) this.#see(key, row)
    return new Base(rows, false)
  }

  #answer(calls: readonly Call[], { changes }: Overlay): void {
    if (commitChannel.hasSubscribers && changes.size > 0) commitChannel.publish(aboutOf(changes))
    for (const { error, value, resolve, reject } of calls) {
      if (error) reject(error.thrown)
      else resolve(value)
    }
  }

  #see(key: string, row: EntryRow | undefined): void {
    this.#seen.delete(key)
    this.#seen.set(key, row)
    if (this.#seen.size > rowsKept) for (const oldest of this.#seen.keys()) return void this.#seen.delete(oldest)
  }
}

function presentRow(row: Row): EntryRow | undefined {
  return row.session_id === null ? undefined : rowOf(row)
}

/** Whether the session that was there goes: deleted, or deleted and made anew. */
function dropsSession(before: EntryRow | undefined, after: EntryRow | undefined): boolean {
  return before !== undefined && before.sessionId !== after?.sessionId
}

function dropAborted({ wait: { signal }, reject }: Call): boolean {
  if (!signal?.aborted) return false
  reject(signal.reason)
  return true
}

function refusePromise(value: unknown): void {
  if (typeof (value as { then?: unknown } | null | undefined)?.then !== 'function') return
  ;(value as Promise<unknown>).then(undefined, () => {})
  throw new StoreError('ASYNC_MUTATOR', 'the mutator returned a promise.', {
    hint: 'Nothing was written. A mutator runs on one state of the entries and is synchronous: do what takes time before or after.',
  })
}

function overtaken(): StoreError {
  return new StoreError('LOCK_LOST', 'others have changed the same entries again and again.', {
    hint: 'Nothing was written. Try again.',
  })
}

function aboutOf(changes: ReadonlyMap<string, EntryRow | undefined>): object {
  const [[key, row] = [undefined, undefined]] = changes
  return changes.size === 1 ? { log: 'metadata', key, sessionId: row?.sessionId } : { log: 'metadata', keys: [...changes.keys()] }
}

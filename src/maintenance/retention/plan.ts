/** What goes, by the rules: a pure function of the entries, of what they take up, and of the time. It touches nothing, so that a table tests it.
 *
 *  Age first, then counts, then bytes, each on what is left; the longest prefixes first, the whole store last. Of a cap the sessions go that
 *  were changed longest ago. A cap that cannot be kept without what is protected archives nothing: it would eat every live session, one as
 *  soon as it pauses, and never be content (F49).
 *
 *  It yields now and then, for there may be 100,000 sessions, and the event loop should not stand still. */
import type { ProtectedWhy, RetentionRule, RetentionRules, SessionLimits, UnsatisfiedRule } from '../../upkeep.js'
import { sortInSlices } from './sorting.js'

export interface RetentionEntry {
  readonly key: string
  readonly sessionId: string
  readonly revision: number
  readonly updatedAt: number
  /** Why it may not go, as far as that is known. */
  readonly protectedBy?: ProtectedWhy | undefined
}

/** Of a transcript's file. */
export interface Usage {
  readonly bytes: number
  /** Epoch ms. */
  readonly changedAt: number
}

export interface Going {
  readonly entry: RetentionEntry
  readonly bytes: number
  readonly changedAt: number
  readonly rule: RetentionRule
  readonly prefix: string
}

export interface RetentionPlan {
  /** In the order in which they go. */
  readonly goes: readonly Going[]
  /** What would have gone. */
  readonly spared: readonly RetentionEntry[]
  readonly unsatisfied: readonly UnsatisfiedRule[]
}

type UsageOf = ReadonlyMap<string, Usage>

const yieldEvery = 1_024

/** @param usage  by session id; who is not in it has no transcript */
export function planRetention(entries: readonly RetentionEntry[], usage: UsageOf, rules: RetentionRules, nowMs: number): RetentionPlan {
  const planning = planInSlices(entries, usage, rules, nowMs)
  for (;;) {
    const step = planning.next()
    if (step.done) return step.value
  }
}

interface Row {
  readonly entry: RetentionEntry
  readonly bytes: number
  readonly changedAt: number
  going: boolean
}

type Limit = keyof SessionLimits

export function* planInSlices(
  entries: readonly RetentionEntry[],
  usage: UsageOf,
  rules: RetentionRules,
  nowMs: number,
): Generator<void, RetentionPlan> {
  const plan = new Planning(rules)
  const rows: Row[] = []
  for (const entry of entries) {
    const used = usage.get(entry.sessionId)
    rows.push({ entry, bytes: used?.bytes ?? 0, changedAt: Math.max(entry.updatedAt, used?.changedAt ?? 0), going: false })
    if (rows.length % yieldEvery === 0) yield
  }
  yield* sortInSlices(rows, (a, b) => a.changedAt - b.changedAt || (a.entry.key < b.entry.key ? -1 : 1))
  yield* plan.byAge(rows, nowMs)
  yield* plan.byCap(rows, 'maxCount', 'count', () => 1)
  yield* plan.byCap(rows, 'maxBytes', 'bytes', ({ bytes }) => bytes)
  return { goes: plan.goes, spared: plan.spared, unsatisfied: plan.unsatisfied }
}

class Planning {
  readonly goes: Going[] = []
  readonly unsatisfied: UnsatisfiedRule[] = []
  #rules: RetentionRules
  #prefixes: [prefix: string, limits: SessionLimits][]
  #spared = new Set<RetentionEntry>()

  constructor(rules: RetentionRules) {
    this.#rules = rules
    this.#prefixes = Object.entries(rules.prefixes ?? {}).sort(([a], [b]) => b.length - a.length)
  }

  get spared(): RetentionEntry[] {
    return [...this.#spared]
  }

  /** Whose limit counts for this key: the longest prefix that names one, else the store's. */
  #limitOf(key: string, name: Limit): { prefix: string; limit: number | null | undefined } {
    for (const [prefix, limits] of this.#prefixes)
      if (limits[name] !== undefined && key.startsWith(prefix)) return { prefix, limit: limits[name] }
    return { prefix: '', limit: this.#rules[name] }
  }

  *byAge(rows: readonly Row[], nowMs: number): Generator<void> {
    for (const [at, row] of rows.entries()) {
      if (at % yieldEvery === 0) yield
      const { prefix, limit } = this.#limitOf(row.entry.key, 'maxAgeMs')
      if (typeof limit !== 'number' || nowMs - row.changedAt <= limit) continue
      if (row.entry.protectedBy) this.#spared.add(row.entry)
      else this.#go(row, 'age', prefix)
    }
  }

  *byCap(rows: readonly Row[], name: Limit, rule: RetentionRule, weigh: (row: Row) => number): Generator<void> {
    const capped = this.#prefixes.some(([, limits]) => limits[name] !== undefined) || typeof this.#rules[name] === 'number'
    if (!capped) return
    const members = new Map<string, Row[]>()
    const exempt = new Set<Row>()
    for (const [at, row] of rows.entries()) {
      if (at % yieldEvery === 0) yield
      const { prefix, limit } = this.#limitOf(row.entry.key, name)
      if (limit === null) exempt.add(row)
      const known = members.get(prefix)
      if (known) known.push(row)
      else members.set(prefix, [row])
    }
    for (const [prefix, limits] of this.#prefixes) {
      const limit = limits[name]
      if (typeof limit === 'number') yield* this.#keepBelow(members.get(prefix) ?? [], limit, rule, prefix, weigh, exempt)
    }
    const limit = this.#rules[name]
    if (typeof limit === 'number') yield* this.#keepBelow(rows, limit, rule, '', weigh, exempt)
  }

  /** @param rows  the oldest first */
  *#keepBelow(
    rows: readonly Row[],
    limit: number,
    rule: RetentionRule,
    prefix: string,
    weigh: (row: Row) => number,
    exempt: ReadonlySet<Row>,
  ): Generator<void> {
    let [total, fixed, fixedRows] = [0, 0, 0]
    for (const [at, row] of rows.entries()) {
      if (at % yieldEvery === 0) yield
      if (row.going) continue
      total += weigh(row)
      if (!row.entry.protectedBy && !exempt.has(row)) continue
      fixed += weigh(row)
      fixedRows++
    }
    if (total <= limit) return
    if (fixed > limit) {
      this.unsatisfied.push({ rule, prefix, limit, least: fixed, protected: fixedRows })
      return
    }
    for (const [at, row] of rows.entries()) {
      if (at % yieldEvery === 0) yield
      if (total <= limit) return
      if (row.going || exempt.has(row) || weigh(row) === 0) continue
      if (row.entry.protectedBy) {
        this.#spared.add(row.entry)
        continue
      }
      total -= weigh(row)
      this.#go(row, rule, prefix)
    }
  }

  #go(row: Row, rule: RetentionRule, prefix: string): void {
    row.going = true
    this.goes.push({ entry: row.entry, bytes: row.bytes, changedAt: row.changedAt, rule, prefix })
  }
}

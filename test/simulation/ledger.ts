/** What programs say they did, and whether a census bears it out. */
import { isStoreError } from '../../src/errors.js'
import type { Census } from './census.js'
import type { Fact } from './state.js'

export interface Teller {
  note(fact: string): void
}

/** Does something and says how it ended: `did`, `not` (effect none) or `unsure`. Before that it says `try`.
 *  @param what  `count KEY`, `append KEY NAME…`, or anything that the checker is not interested in. */
export async function attempt<R>(teller: Teller, what: string, work: () => Promise<R>): Promise<R | undefined> {
  teller.note(`try ${what}`)
  try {
    const result = await work()
    teller.note(`did ${what} → ${shown(result)}`)
    return result
  } catch (error) {
    if (!isStoreError(error)) throw error
    if (error.code === 'INVARIANT') throw error
    teller.note(`${error.effect === 'none' ? 'not' : 'unsure'} ${what} (${error.code}: ${error.message})`)
    return undefined
  }
}

function shown(result: unknown): string {
  return JSON.stringify(result) ?? 'done'
}

export interface Deed {
  readonly what: string
  outcome: 'did' | 'not' | 'unsure'
  /** Of an append: where it said that the records are. */
  receipt?: { sessionId: string; seqs: number[]; duplicate: boolean }
}

/** @param facts  in order. */
export function deedsOf(facts: readonly Fact[]): Deed[] {
  const deeds: Deed[] = []
  const open = new Map<string, Deed>()
  for (const { process, fact } of facts) {
    const [, verb, what, rest] = /^(try|did|not|unsure) (.*?)(?: → (.*)| \(.*\))?$/s.exec(fact) ?? []
    if (!verb || what === undefined) continue
    const at = `${process} ${what}`
    if (verb === 'try') {
      const deed: Deed = { what, outcome: 'unsure' }
      deeds.push(deed)
      open.set(at, deed)
      continue
    }
    const deed = open.get(at)
    if (!deed) throw new Error(`ended without having begun: ${fact}`)
    deed.outcome = verb as Deed['outcome']
    if (verb === 'did' && what.startsWith('append ')) deed.receipt = JSON.parse(rest!)
  }
  return deeds
}

/** Throws unless everything that a reader saw was some prefix of what was done, with all that was acknowledged before it began (P4).
 *  Readers say `reads`, then `saw count N` or `saw names a,b`. */
export function assertReadersSawPrefixes(facts: readonly Fact[], found: Census, key: string): void {
  for (const [at, { process, fact }] of facts.entries()) {
    if (!fact.startsWith('saw ')) continue
    const began = facts.findLastIndex((other, i) => i < at && other.process === process && other.fact === 'reads')
    const count = (verb: string, before: number) =>
      facts.slice(0, before).filter((other) => other.fact.startsWith(`${verb} count ${key}`)).length
    const [, kind, seen = ''] = fact.split(' ')
    if (kind === 'count' && (Number(seen) < count('did', began) || Number(seen) > count('try', at)))
      throw new Error(`a reader saw ${fact} between ${count('did', began)} and ${count('try', at)}`)
    if (kind !== 'names') continue
    const there = found.records.filter(({ sessionId }) => sessionId === found.entries.get(key)?.sessionId).map(({ name }) => name)
    if (!`${there.join()},`.startsWith(seen === '' ? '' : `${seen},`))
      throw new Error(`a reader saw ${seen}, which is no prefix of ${there.join()}`)
    const acknowledged = facts
      .slice(0, began)
      .flatMap((other) => (other.fact.startsWith('did append ') ? other.fact.split(' ')[3]!.split(',') : []))
    const missing = acknowledged.filter((name) => !seen.split(',').includes(name))
    if (missing.length > 0) throw new Error(`a reader saw ${seen}, without ${missing.join()} that was acknowledged before`)
  }
}

/** Throws unless the store holds everything acknowledged once and in order, what is unsure whole or not at all, and nothing that was refused. */
export function assertBorneOut(deeds: readonly Deed[], found: Census, { powerCut = false } = {}): void {
  if (!found.report.ok) throw new Error(`damage reported: ${found.report.damage.map(({ message }) => message).join('; ')}`)
  assertCounts(deeds, found)
  for (const deed of deeds) if (deed.what.startsWith('append ')) assertAppend(deed, found)
  assertNothingElse(deeds, found)
  assertOneSessionPerKey(deeds, found, powerCut)
}

function assertCounts(deeds: readonly Deed[], { entries }: Census): void {
  const keys = new Set(deeds.flatMap(({ what }) => (what.startsWith('count ') ? [what.split(' ')[1]!] : [])))
  for (const key of keys) {
    const of = (outcome: Deed['outcome']) => deeds.filter((deed) => deed.what === `count ${key}` && deed.outcome === outcome).length
    const count = Number(entries.get(key)?.count ?? 0)
    if (count < of('did') || count > of('did') + of('unsure'))
      throw new Error(`${key} counts ${count}: ${of('did')} acknowledged, ${of('unsure')} unsure, ${of('not')} refused`)
  }
}

function assertAppend({ what, outcome, receipt }: Deed, { records }: Census): void {
  const names = what.split(' ')[2]!.split(',')
  const places = records.filter(({ name }) => names.includes(name))
  if (outcome === 'not' && places.length > 0) throw new Error(`refused, yet in the store: ${what}`)
  const there = places.map(({ name }) => name).join(',')
  if (there !== '' && there !== names.join(',')) throw new Error(`not whole, not once, or not in order: ${what}: found ${there}`)
  if (outcome !== 'did') return
  if (there === '') throw new Error(`acknowledged, and lost: ${what}`)
  if (!receipt) return
  const said = receipt.seqs.map((seq) => `${receipt.sessionId} ${seq}`).join()
  if (places.map(({ sessionId, seq }) => `${sessionId} ${seq}`).join() !== said)
    throw new Error(`not where its receipt says: ${what}: ${said}`)
}

function assertNothingElse(deeds: readonly Deed[], { records }: Census): void {
  const known = new Set(deeds.flatMap(({ what }) => (what.startsWith('append ') ? what.split(' ')[2]!.split(',') : [])))
  for (const { name, sessionId, seq } of records)
    if (!known.has(name)) throw new Error(`nobody appended ${name}, which is in ${sessionId} at ${seq}`)
}

function assertOneSessionPerKey(deeds: readonly Deed[], { entries, records }: Census, powerCut: boolean): void {
  const sessions = [...entries.values()].map(({ sessionId }) => sessionId)
  if (new Set(sessions).size !== sessions.length) throw new Error('two keys share a session')
  const acknowledged = new Set(
    deeds.flatMap(({ what, outcome }) => (outcome === 'did' && what.startsWith('append ') ? what.split(' ')[2]!.split(',') : [])),
  )
  for (const { sessionId, name, archived, sealed } of records) {
    // Whoever closed it may have died before archiving it; a power cut may take a session's name that was never acknowledged.
    if (archived || sealed || sessions.includes(sessionId) || (powerCut && !acknowledged.has(name))) continue
    throw new Error(`${name} is in ${sessionId}, which no key names and nobody closed: a fork of its conversation`)
  }
}

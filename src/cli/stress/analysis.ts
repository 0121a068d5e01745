/** Holds what the writers were told against what the store holds. Pure: ledgers and read-back in, findings out.
 *
 *  Every update of a key carries its own id into the entry and remembers the id that it found there (`last`) and how many there had been
 *  (`count`). From the entry as it is in the end, these lead back through every update that is part of the history, in order: the chain.
 *  What is acknowledged and not on the chain is lost; what is on it twice is doubled. A session is its own chain. With the order known,
 *  linearizability is a look at the clocks: nothing may stand before what had finished when it began. */
import { ViolationCounter, type Violations } from './findings.js'
import type { Ledger } from './ledger.js'
import { collectOperations, lockWaitsUs, type Operation, type Operations, quantile } from './operations.js'
import type { Fields } from './subject.js'

/** A record as read back. */
export interface SeenRecord {
  readonly seq: number
  /** Undefined where the record has no mark of a writer. */
  readonly op: string | undefined
  readonly part: number
  readonly of: number
  readonly intact: boolean
}

export interface ReadBack {
  readonly entries: ReadonlyMap<string, Fields | undefined>
  /** In the order in which they were read. */
  readonly sessions: ReadonlyMap<string, readonly SeenRecord[]>
}

export interface Findings {
  readonly acknowledged: { readonly updates: number; readonly appends: number; readonly records: number; readonly gets: number }
  /** Allowed: they were under way when their writer died, or ended in an error that said so. */
  readonly unacknowledgedPresent: number
  readonly violations: Violations
  /** By code. */
  readonly errors: Readonly<Record<string, number>>
  /** Errors that a sound store on a sound disk never gives: damage, bugs, refusals of the machine. The first few, as sentences. */
  readonly alarms: readonly string[]
  readonly lockWaitMs: { readonly p50: number; readonly p99: number; readonly max: number }
}

export function analyse(ledgers: Iterable<Ledger>, store: ReadBack): Findings {
  const operations = collectOperations(ledgers)
  const found = new ViolationCounter()
  const present = new Map<Operation, number>()
  for (const [key, fields] of store.entries) judgeKey(key, fields, operations, present, found)
  for (const [key, records] of store.sessions) judgeSession(key, records, operations, present, found)
  let unacknowledgedPresent = 0
  for (const operation of operations.values()) {
    if (operation.kind === 'get') continue
    const times = present.get(operation) ?? 0
    judgePresence(operation, times, found)
    if (times > 0 && operation.outcome !== 'acknowledged') unacknowledgedPresent++
  }
  const waits = lockWaitsUs(operations)
  return {
    acknowledged: countAcknowledged(operations),
    unacknowledgedPresent,
    violations: { counts: found.counts, examples: found.examples },
    ...countErrors(operations),
    lockWaitMs: { p50: quantile(waits, 0.5) / 1_000, p99: quantile(waits, 0.99) / 1_000, max: quantile(waits, 1) / 1_000 },
  }
}

/** The keys that were written, so that they can be read back. */
export function keysOf(operations: Operations): { entries: Set<string>; sessions: Set<string> } {
  const entries = new Set<string>()
  const sessions = new Set<string>()
  for (const { kind, keys } of operations.values()) for (const key of keys) (kind === 'append' ? sessions : entries).add(key)
  return { entries, sessions }
}

/** @param times  on how many of its keys, or how often in its session, the operation stands */
function judgePresence(operation: Operation, times: number, found: ViolationCounter): void {
  const expected = operation.kind === 'update' ? operation.keys.length : 1
  const name = describe(operation)
  if (operation.outcome === 'acknowledged' && times < expected) found.add('lost', name)
  else if (times > 0 && times < expected) found.add('halfDone', name)
  if (operation.outcome === 'refused' && times > 0) found.add('denied', `${name} ended in ${operation.error?.code}, effect none`)
}

function judgeKey(
  key: string,
  fields: Fields | undefined,
  operations: Operations,
  present: Map<Operation, number>,
  found: ViolationCounter,
): void {
  const chain = chainOf(key, fields, operations, found)
  const seen = new Set<Operation>()
  const byWriter = new Map<string, number>()
  for (const operation of chain) {
    if (seen.has(operation)) found.add('doubled', `${describe(operation)} in ${key}`)
    else present.set(operation, (present.get(operation) ?? 0) + 1)
    seen.add(operation)
    const field = counterField(operation.op)
    byWriter.set(field, (byWriter.get(field) ?? 0) + 1)
  }
  for (const [field, count] of byWriter)
    if (fields?.[field] !== count) found.add('altered', `${key} holds ${fields?.[field]} updates of ${field}; its history has ${count}`)
  judgeOrder(key, chain, readsOf(key, chain, operations, found), found)
}

/** The field of an entry that counts one writer's updates. */
export function counterField(op: string): string {
  return `w${op.slice(0, op.indexOf('.'))}`
}

/** From the first update that the entry's value goes back to, to the last. */
function chainOf(key: string, fields: Fields | undefined, operations: Operations, found: ViolationCounter): Operation[] {
  const chain: Operation[] = []
  let last = fields ? String(fields.last) : null
  for (let count = Number(fields?.count ?? 0); last !== null; count--) {
    const operation = operations.get(last)
    const saw = operation?.saws.findLast((run) => run.key === key && run.count === count - 1)
    if (!operation || !saw) {
      found.add('altered', `${key} holds update ${count} by ${last}, which no writer made as such`)
      break
    }
    chain.push(operation)
    last = saw.last
  }
  return chain.reverse()
}

/** The reads that saw the key after the n-th update, n counted from 0 for the empty key. */
function readsOf(key: string, chain: readonly Operation[], operations: Operations, found: ViolationCounter): Operation[][] {
  const reads: Operation[][] = Array.from({ length: chain.length + 1 }, () => [])
  for (const operation of operations.values()) {
    const { kind, keys, ack } = operation
    if (kind !== 'get' || keys[0] !== key || !ack) continue
    const count = ack.count ?? 0
    const at = count === 0 ? null : chain[count - 1]?.op
    if (at === ack.last) reads[count]?.push(operation)
    else found.add('staleReads', `${describe(operation)} saw update ${count} by ${ack.last}, which is not in the history`)
  }
  return reads
}

/** Nothing may stand before something that had finished when it began. */
function judgeOrder(where: string, chain: readonly Operation[], reads: readonly Operation[][], found: ViolationCounter): void {
  // The earliest end of all that stands further on.
  let end = Number.POSITIVE_INFINITY
  for (let n = chain.length; n >= 0; n--) {
    const operation = chain[n - 1]
    const readsHere = reads[n] ?? []
    let endHere = end
    for (const read of readsHere) {
      if (end < read.invokedAt || (operation && read.settledAt < operation.invokedAt))
        found.add('staleReads', `${describe(read)} saw ${operation ? `the state after ${operation.op}` : 'nothing'}, which was out of date`)
      endHere = Math.min(endHere, read.settledAt)
    }
    if (!operation) continue
    if (endHere < operation.invokedAt)
      found.add('outOfOrder', `${describe(operation)} stands before what had ended when it began, in ${where}`)
    end = Math.min(endHere, operation.settledAt)
  }
}

function judgeSession(
  key: string,
  records: readonly SeenRecord[],
  operations: Operations,
  present: Map<Operation, number>,
  found: ViolationCounter,
): void {
  const chain: Operation[] = []
  for (const batch of batchesOf(records)) {
    const [first] = batch
    const operation = first?.op === undefined ? undefined : operations.get(first.op)
    if (!first || !operation || operation.keys[0] !== key) {
      found.add('altered', `seq ${first?.seq} of ${key} is a record that no writer wrote there`)
      continue
    }
    judgeBatch(key, batch, operation, found)
    const times = (present.get(operation) ?? 0) + 1
    present.set(operation, times)
    if (times > 1) found.add('doubled', `${describe(operation)}, again at seq ${first.seq}`)
    else chain.push(operation)
  }
  judgeSequence(key, records, chain, found)
  judgeOrder(key, chain, [], found)
  judgeIdentity(key, operations, found)
}

/** Records that stand together and say the same operation, cut where its parts begin anew. */
function* batchesOf(records: readonly SeenRecord[]): Generator<SeenRecord[]> {
  let batch: SeenRecord[] = []
  for (const record of records) {
    const before = batch.at(-1)
    if (before && (before.op !== record.op || record.part <= before.part)) {
      yield batch
      batch = []
    }
    batch.push(record)
  }
  if (batch.length > 0) yield batch
}

function judgeBatch(key: string, batch: readonly SeenRecord[], operation: Operation, found: ViolationCounter): void {
  const name = `${describe(operation)} at seq ${batch[0]?.seq}`
  if (batch.length !== operation.parts || batch.some((record, index) => record.part !== index || record.of !== operation.parts))
    found.add('halfDone', `${name}: ${batch.length} of its ${operation.parts} records`)
  for (const record of batch)
    if (!record.intact) found.add('altered', `${name}: the record at seq ${record.seq} is not the one that was written`)
  const told = operation.ack?.seq
  if (told !== undefined && told !== batch.at(-1)?.seq) found.add('outOfOrder', `${name} in ${key}: it was told seq ${told}`)
}

/** Sequence numbers rise as read, and what one issuer appended stands in the order in which it did. */
function judgeSequence(key: string, records: readonly SeenRecord[], chain: readonly Operation[], found: ViolationCounter): void {
  let seq = -1
  for (const record of records) {
    if (record.seq <= seq) found.add('outOfOrder', `seq ${record.seq} of ${key} is read after seq ${seq}`)
    seq = record.seq
  }
  const latest = new Map<string, number>()
  for (const { issuer, nth, outcome, retried, op } of chain) {
    if (outcome !== 'acknowledged' || retried) continue
    const before = latest.get(issuer) ?? -1
    if (nth < before) found.add('outOfOrder', `append ${op} to ${key} stands after ${issuer}.${before}, which the same writer issued later`)
    latest.set(issuer, Math.max(before, nth))
  }
}

function judgeIdentity(key: string, operations: Operations, found: ViolationCounter): void {
  const ids = new Set<string>()
  for (const { kind, keys, ack } of operations.values()) if (kind === 'append' && keys[0] === key && ack?.sessionId) ids.add(ack.sessionId)
  if (ids.size > 1) found.add('forked', `${key} was ${[...ids].join(' and ')}`)
}

function describe({ kind, op, keys }: Operation): string {
  return `${kind} ${op} of ${keys.join(' and ')}`
}

function countAcknowledged(operations: Operations): Findings['acknowledged'] {
  const counts = { updates: 0, appends: 0, records: 0, gets: 0 }
  for (const { kind, outcome, parts } of operations.values()) {
    if (outcome !== 'acknowledged') continue
    counts[`${kind}s`]++
    if (kind === 'append') counts.records += parts
  }
  return counts
}

const alarming = new Set(['damaged', 'bug', 'failed', 'misuse'])
const alarmsMax = 10

function countErrors(operations: Operations): Pick<Findings, 'errors' | 'alarms'> {
  const errors: Record<string, number> = {}
  const alarms: string[] = []
  for (const operation of operations.values()) {
    const { error } = operation
    if (!error) continue
    errors[error.code] = (errors[error.code] ?? 0) + 1
    // A full disk is a fact about the disk, not a failure of it.
    if (alarming.has(error.kind) && error.code !== 'DISK_FULL' && alarms.length < alarmsMax)
      alarms.push(`${describe(operation)}: ${error.message}`)
  }
  return { errors, alarms }
}

// What `holdfast stress` makes of what it finds, as a table: the faults that it plans, and each broken promise told from each allowed outcome.
import { describe, expect, test } from 'vitest'
import { analyse, type SeenRecord } from '../../src/cli/stress/analysis.js'
import type { LedgerLine } from '../../src/cli/stress/ledger.js'
import { faultKinds, planFaults } from '../../src/cli/stress/schedule.js'
import type { Fields } from '../../src/cli/stress/subject.js'

describe('the schedule', () => {
  const options = { seconds: 30, writers: 8, kinds: faultKinds, maxHoldMs: 400, gapMs: 100 }

  test('is the same for the same seed, and another for another', () => {
    expect(planFaults({ ...options, seed: 'a' })).toEqual(planFaults({ ...options, seed: 'a' }))
    expect(planFaults({ ...options, seed: 'a' })).not.toEqual(planFaults({ ...options, seed: 'b' }))
  })

  test('strikes every writer in every way, freezes and stalls always past the hold', () => {
    const faults = planFaults({ ...options, seed: 'all' })
    expect(new Set(faults.map(({ writer }) => writer)).size).toBe(8)
    expect(new Set(faults.map(({ kind }) => kind))).toEqual(new Set(faultKinds))
    for (const { forMs, atMs, kind, inside } of faults) {
      expect(forMs).toBeGreaterThan(400)
      expect(atMs).toBeLessThan(30_000)
      if (kind === 'stall') expect(inside).toBe(true)
    }
  })

  test('is empty without kinds', () => {
    expect(planFaults({ ...options, kinds: [], seed: 'none' })).toEqual([])
  })
})

const counter = 'counter'
const session = 'session'

/** An update that found `last`, and what it was told. */
function update(
  op: string,
  at: number,
  last: string | null,
  count: number,
  end: 'ack' | 'none' | 'unknown' | 'died' = 'ack',
): LedgerLine[] {
  const begun: LedgerLine[] = [
    { is: 'try', op, at, kind: 'update', keys: [counter] },
    { is: 'saw', op, at: at + 1, key: counter, last, count },
  ]
  return [...begun, ...ended(op, at + 2, end)]
}

function append(op: string, at: number, seq: number, end: 'ack' | 'none' | 'unknown' | 'died' = 'ack', parts = 1): LedgerLine[] {
  const told = end === 'ack' ? { sessionId: 's1', seq } : {}
  return [{ is: 'try', op, at, kind: 'append', keys: [session], parts }, ...ended(op, at + 2, end, told)]
}

function get(op: string, at: number, last: string | null, count: number): LedgerLine[] {
  return [{ is: 'try', op, at, kind: 'get', keys: [counter] }, ...ended(op, at + 2, 'ack', { last, count })]
}

function ended(op: string, at: number, end: 'ack' | 'none' | 'unknown' | 'died', facts: object = {}): LedgerLine[] {
  if (end === 'died') return []
  if (end === 'ack') return [{ is: 'ack', op, at, ...facts }]
  return [{ is: 'err', op, at, code: 'LOCK_LOST', kind: 'superseded', effect: end, message: 'LOCK_LOST' }]
}

/** Operations of one incarnation of one writer, `0.1.<n>`, in one entry. */
function entry(last: string, count: number, w0 = count): Fields {
  return { last, count, w0 }
}

function records(...seen: (readonly [op: string, seq: number])[]): SeenRecord[] {
  return seen.map(([op, seq]) => ({ op, seq, part: 0, of: 1, intact: true }))
}

interface Case {
  readonly lines: LedgerLine[][]
  readonly fields?: Fields
  readonly records?: SeenRecord[]
  readonly found: object
}

const three = [update('0.1.1', 0, null, 0), update('0.1.2', 10, '0.1.1', 1), update('0.1.3', 20, '0.1.2', 2)]
const talk = [append('0.1.1', 0, 1), append('0.1.2', 10, 2)]

const cases: Record<string, Case> = {
  'nothing, where everything is as it was told': { lines: three, fields: entry('0.1.3', 3), found: {} },
  'a lost update, where a later one did not find it': {
    lines: [...three.slice(0, 2), update('0.1.3', 20, '0.1.1', 1)],
    fields: entry('0.1.3', 2),
    found: { lost: 1 },
  },
  'every update lost, where the entry is gone': { lines: three, found: { lost: 3 } },
  'a doubled update, where a second run did not notice that the first had landed': {
    lines: [[...update('0.1.1', 0, null, 0, 'died'), { is: 'saw', op: '0.1.1', at: 3, key: counter, last: '0.1.1', count: 1 }]],
    fields: entry('0.1.1', 2),
    found: { doubled: 1 },
  },
  'nothing, where an update that died is there': { lines: [update('0.1.1', 0, null, 0, 'died')], fields: entry('0.1.1', 1), found: {} },
  'nothing, where an update that died is not there': { lines: [update('0.1.1', 0, null, 0, 'died')], found: {} },
  'a denied update, where the error said that nothing was written': {
    lines: [update('0.1.1', 0, null, 0, 'none')],
    fields: entry('0.1.1', 1),
    found: { denied: 1 },
  },
  'a count that is not the number of updates': { lines: three, fields: entry('0.1.3', 3, 2), found: { altered: 1 } },
  'a value that nobody wrote': { lines: three, fields: entry('9.9.9', 3), found: { altered: 1, lost: 3 } },
  'an update in front of what had ended when it began': {
    lines: [update('0.1.1', 0, '0.1.2', 1), update('0.1.2', 10, null, 0)],
    fields: entry('0.1.1', 2),
    found: { outOfOrder: 1 },
  },
  'a stale read': { lines: [...three, get('0.1.4', 30, '0.1.2', 2)], fields: entry('0.1.3', 3), found: { staleReads: 1 } },
  'reads that go back': {
    lines: [update('0.1.1', 0, null, 0, 'died'), get('0.1.2', 10, '0.1.1', 1), get('0.1.3', 20, null, 0)],
    fields: entry('0.1.1', 1),
    found: { staleReads: 1 },
  },
  'a read of what is not in the history': {
    lines: [...three, get('0.1.4', 30, '7.7.7', 3)],
    fields: entry('0.1.3', 3),
    found: { staleReads: 1 },
  },
  'nothing, where a session is as it was told': { lines: talk, records: records(['0.1.1', 1], ['0.1.2', 2]), found: {} },
  'a lost append': { lines: talk, records: records(['0.1.1', 1]), found: { lost: 1 } },
  'a doubled append': { lines: talk, records: records(['0.1.1', 1], ['0.1.2', 2], ['0.1.1', 3]), found: { doubled: 1, outOfOrder: 1 } },
  'appends in the wrong order': { lines: talk, records: records(['0.1.2', 1], ['0.1.1', 2]), found: { outOfOrder: 4 } },
  'sequence numbers that fall': { lines: talk, records: records(['0.1.1', 1], ['0.1.2', 1]), found: { outOfOrder: 2 } },
  'half a batch': {
    lines: [append('0.1.1', 0, 2, 'unknown', 2)],
    records: [{ op: '0.1.1', seq: 1, part: 0, of: 2, intact: true }],
    found: { halfDone: 1 },
  },
  'a record that is not the one that was written': {
    lines: [append('0.1.1', 0, 1)],
    records: [{ op: '0.1.1', seq: 1, part: 0, of: 1, intact: false }],
    found: { altered: 1 },
  },
  'a record that nobody wrote': {
    lines: talk,
    records: [...records(['0.1.1', 1], ['0.1.2', 2]), { op: undefined, seq: 3, part: 0, of: 1, intact: false }],
    found: { altered: 1 },
  },
  'a key with two session ids': {
    lines: [append('0.1.1', 0, 1), [...append('0.1.2', 10, 2, 'died'), { is: 'ack', op: '0.1.2', at: 12, sessionId: 's2', seq: 2 }]],
    records: records(['0.1.1', 1], ['0.1.2', 2]),
    found: { forked: 1 },
  },
}

describe('the analysis finds', () => {
  test.each(Object.entries(cases))('%s', (_, { lines, fields, records: seen, found }) => {
    const findings = analyse([{ writer: '0', incarnation: 1, lines: lines.flat() }], {
      entries: new Map([[counter, fields]]),
      sessions: new Map([[session, seen ?? []]]),
    })
    const counts = Object.entries(findings.violations.counts).filter(([, n]) => n > 0)
    expect(Object.fromEntries(counts)).toEqual(found)
  })

  test('half an update of two entries', () => {
    const lines: LedgerLine[] = [
      { is: 'try', op: '0.1.1', at: 0, kind: 'update', keys: ['a', 'b'] },
      { is: 'saw', op: '0.1.1', at: 1, key: 'a', last: null, count: 0 },
      { is: 'saw', op: '0.1.1', at: 1, key: 'b', last: null, count: 0 },
    ]
    const entries = new Map([
      ['a', entry('0.1.1', 1)],
      ['b', undefined],
    ] as const)
    const findings = analyse([{ writer: '0', incarnation: 1, lines }], { entries, sessions: new Map() })
    expect(findings.violations.counts).toMatchObject({ halfDone: 1, lost: 0 })
  })
})

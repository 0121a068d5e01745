/** What goes, as a table: rules, sessions, and the keys that go, in order. */
import { describe, expect, test } from 'vitest'
import { planInSlices, planRetention, type RetentionEntry, type Usage } from '../../../src/maintenance/retention/plan.js'
import { sortInSlices } from '../../../src/maintenance/retention/sorting.js'
import type { ProtectedWhy, RetentionRules } from '../../../src/upkeep.js'

const nowMs = 1_000_000

interface Session {
  readonly key: string
  /** How long ago it was changed. */
  readonly age: number
  readonly bytes?: number
  readonly kept?: ProtectedWhy
}

const s = (key: string, age: number, bytes = 10, kept?: ProtectedWhy): Session => ({ key, age, bytes, ...(kept && { kept }) })

function plan(sessions: readonly Session[], rules: RetentionRules) {
  const entries = sessions.map(
    ({ key, age, kept }): RetentionEntry => ({ key, sessionId: `id-${key}`, revision: 1, updatedAt: nowMs - age, protectedBy: kept }),
  )
  const usage = new Map(sessions.map(({ key, bytes = 0 }): [string, Usage] => [`id-${key}`, { bytes, changedAt: 0 }]))
  const { goes, spared, unsatisfied } = planRetention(entries, usage, rules, nowMs)
  return {
    goes: goes.map(({ entry, rule, prefix }) => `${entry.key} ${rule}${prefix && ` of ${prefix}`}`),
    spared: spared.map(({ key }) => key),
    unsatisfied: unsatisfied.map(({ rule, prefix, limit, least }) => `${rule} ${prefix} ${least}>${limit}`),
  }
}

type Case = [
  name: string,
  rules: RetentionRules,
  sessions: readonly Session[],
  goes: readonly string[],
  rest?: { spared?: readonly string[]; unsatisfied?: readonly string[] },
]

const table: Case[] = [
  ['no rule: nothing', {}, [s('a', 999_999)], []],
  ['older than allowed, not as old as allowed', { maxAgeMs: 100 }, [s('a', 101), s('b', 100), s('c', 0)], ['a age']],
  ['a time in the future is not old', { maxAgeMs: 0 }, [s('a', -50), s('b', 1)], ['b age']],
  ['the oldest go first', { maxCount: 1 }, [s('new', 1), s('old', 9), s('mid', 5)], ['old count', 'mid count']],
  ['of equally old ones the keys decide', { maxCount: 1 }, [s('b', 5), s('a', 5), s('c', 5)], ['a count', 'b count']],
  ['a count of none', { maxCount: 0 }, [s('a', 2), s('b', 1)], ['a count', 'b count']],
  ['bytes: as many as it takes', { maxBytes: 25 }, [s('a', 3, 10), s('b', 2, 10), s('c', 1, 20)], ['a bytes', 'b bytes']],
  ['exactly as many bytes as allowed', { maxBytes: 30 }, [s('a', 3, 10), s('b', 2, 20)], []],
  ['a session without a transcript frees no bytes', { maxBytes: 5 }, [s('empty', 9, 0), s('a', 3, 5), s('b', 2, 5)], ['a bytes']],
  ['what goes by age does not count any more', { maxAgeMs: 100, maxCount: 2 }, [s('a', 200), s('b', 20), s('c', 10)], ['a age']],
  [
    'the longest prefix says the age',
    { maxAgeMs: 100, prefixes: { 'x:': { maxAgeMs: 10 }, 'x:y:': { maxAgeMs: 1_000 } } },
    [s('x:a', 50), s('x:y:a', 500), s('z', 50)],
    ['x:a age of x:'],
  ],
  [
    'a longer prefix that names no age leaves it to the shorter',
    { prefixes: { 'x:': { maxAgeMs: 10 }, 'x:y:': { maxCount: 5 } } },
    [s('x:y:a', 50)],
    ['x:y:a age of x:'],
  ],
  ['null: none here', { maxAgeMs: 10, prefixes: { 'x:': { maxAgeMs: null } } }, [s('x:a', 50), s('b', 50)], ['b age']],
  ['a prefix counts its own', { prefixes: { 'x:': { maxCount: 1 } } }, [s('x:a', 3), s('x:b', 2), s('y', 9)], ['x:a count of x:']],
  [
    'who has a cap of its own is not in that of the shorter prefix',
    { prefixes: { 'x:': { maxCount: 1 }, 'x:y:': { maxCount: 2 } } },
    [s('x:y:a', 9), s('x:y:b', 8), s('x:c', 7)],
    [],
  ],
  [
    'the store counts all, and what a prefix keeps by null does not go',
    { maxCount: 2, prefixes: { 'x:': { maxCount: null } } },
    [s('x:a', 9), s('b', 5), s('c', 4)],
    ['b count'],
  ],
  [
    'a key that is a prefix of another is another',
    { prefixes: { 'a:1': { maxAgeMs: 10 } } },
    [s('a:', 50), s('a:1', 50)],
    ['a:1 age of a:1'],
  ],
  ['pinned ones stay, and are told', { maxAgeMs: 10 }, [s('a', 50, 1, 'pinned'), s('b', 50)], ['b age'], { spared: ['a'] }],
  [
    'in the place of a protected one the next goes',
    { maxCount: 1 },
    [s('a', 9, 1, 'active-turn'), s('b', 8), s('c', 7)],
    ['b count', 'c count'],
    { spared: ['a'] },
  ],
  [
    'a cap that cannot be kept archives nothing, and says so',
    { maxCount: 1 },
    [s('a', 9, 1, 'pinned'), s('b', 8, 1, 'pinned'), s('c', 7)],
    [],
    { unsatisfied: ['count  2>1'] },
  ],
  ['bytes likewise', { maxBytes: 15 }, [s('a', 9, 20, 'pinned'), s('b', 8, 10)], [], { unsatisfied: ['bytes  20>15'] }],
  [
    'one cap that cannot be kept hinders no other',
    { maxBytes: 15, maxCount: 2 },
    [s('a', 9, 20, 'pinned'), s('b', 8, 10), s('c', 7, 10)],
    ['b count'],
    { spared: ['a'], unsatisfied: ['bytes  20>15'] },
  ],
]

describe('F49, F30: what goes', () => {
  test.each(table)('%s', (_, rules, sessions, goes, rest) => {
    expect(plan(sessions, rules)).toEqual({ goes, spared: rest?.spared ?? [], unsatisfied: rest?.unsatisfied ?? [] })
  })
})

test('the transcript counts as changed, too', () => {
  const entry: RetentionEntry = { key: 'a', sessionId: 'id', revision: 1, updatedAt: 0 }
  expect(planRetention([entry], new Map([['id', { bytes: 1, changedAt: nowMs - 5 }]]), { maxAgeMs: 10 }, nowMs).goes).toEqual([])
})

test('sorting in slices sorts as sorting does', () => {
  for (const length of [0, 1, 2_047, 2_048, 2_049, 10_000, 33_333]) {
    const items = Array.from({ length }, (_, at) => ({ at, by: (at * 7_919) % 1_013 }))
    const expected = [...items].sort((a, b) => a.by - b.by)
    for (const _ of sortInSlices(items, (a, b) => a.by - b.by));
    expect(items).toEqual(expected)
  }
})

// F44
test('a plan for 100,000 sessions halts often enough for the event loop', () => {
  const entries = Array.from(
    { length: 100_000 },
    (_, at): RetentionEntry => ({ key: `k:${at % 50}:${at}`, sessionId: `s${at}`, revision: 1, updatedAt: (at * 7_919) % 999_983 }),
  )
  const usage = new Map(entries.map(({ sessionId }): [string, Usage] => [sessionId, { bytes: 100, changedAt: 0 }]))
  const rules = { maxCount: 5_000, maxBytes: 400_000, prefixes: { 'k:1': { maxCount: 10 }, 'k:2:': { maxAgeMs: 10 } } }
  // Of the processor's time: that others have it meanwhile is not the plan's doing.
  const spentMs = () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1_000
  }
  const longestMs = () => {
    const planning = planInSlices(entries, usage, rules, nowMs)
    let mostMs = 0
    for (let done: boolean | undefined = false; !done; ) {
      const beganMs = spentMs()
      done = planning.next().done
      mostMs = Math.max(mostMs, spentMs() - beganMs)
    }
    return mostMs
  }
  // The garbage collector makes one longer now and then, and not the same one each time.
  expect(Math.min(longestMs(), longestMs(), longestMs())).toBeLessThan(20)
})

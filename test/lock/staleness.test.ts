/** Verdicts as a table: a pure function of holder, observer and clocks (F6, F7, F8; P3). */
import { describe, expect, test } from 'vitest'
import { type Holder, type Identity, judge, type ProcessProbe, type Verdict } from '../../src/file/lock/staleness.js'

const observer: Identity = { boot: 'b1', machine: 'a1', pidNamespace: '4026531836', pid: 100, startTime: '5000', host: 'here' }
const alive: ProcessProbe = { exists: true, startTime: '777', zombie: false }
const gone: ProcessProbe = { exists: false }

interface Case {
  readonly name: string
  readonly holder?: Partial<Holder>
  readonly observer?: Partial<Identity>
  /** What the pid looks like; `never` when it must not even be asked. */
  readonly probe?: ProcessProbe | 'never'
  readonly heldMs?: number
  /** For how long this observer has itself seen the entry. */
  readonly watchedMs?: number
  readonly verdict: Verdict['kind']
  readonly why: RegExp
}

const cases: Case[] = [
  // the same boot, the same pid namespace
  { name: 'a process that exists holds it', verdict: 'alive', why: /process 42 exists/ },
  { name: 'no such process: dead at the first look (F6)', probe: gone, verdict: 'dead', why: /no process 42/ },
  { name: 'dead although it took the lock this very millisecond: no grace', probe: gone, heldMs: 0, verdict: 'dead', why: /no process/ },
  { name: 'dead comes before expired', probe: gone, heldMs: 90_000, verdict: 'dead', why: /no process/ },
  { name: 'a zombie is dead', probe: { exists: true, startTime: '777', zombie: true }, verdict: 'dead', why: /reaped/ },
  {
    name: 'a zombie is dead even where no start time is readable',
    probe: { exists: true, startTime: undefined, zombie: true },
    verdict: 'dead',
    why: /reaped/,
  },
  {
    name: 'the pid was recycled by another program (F7)',
    probe: { exists: true, startTime: '778', zombie: false },
    verdict: 'dead',
    why: /another process/,
  },
  {
    name: 'an unreadable /proc (hidepid, EPERM) is not evidence of death',
    probe: { exists: true, startTime: undefined, zombie: false },
    verdict: 'alive',
    why: /exists/,
  },
  { name: 'a holder that did not know its own start time is not dead for it', holder: { startTime: '0' }, verdict: 'alive', why: /exists/ },
  { name: 'held for exactly maxHoldMs: still its own', heldMs: 15_000, verdict: 'alive', why: /exists/ },
  { name: 'held for a moment longer: expired', heldMs: 15_000.001, verdict: 'expired', why: /15000 ms, longer than its maxHoldMs 15000/ },
  { name: 'the limit is the holder’s own', holder: { maxHoldMs: 1_020_000 }, heldMs: 1_000_000, verdict: 'alive', why: /exists/ },
  {
    name: 'having watched it for long expires nobody whose clock can be read',
    heldMs: 10,
    watchedMs: 3_600_000,
    verdict: 'alive',
    why: /exists/,
  },
  { name: 'acquired in the future, by rounding: not expired', heldMs: -1, verdict: 'alive', why: /exists/ },
  { name: 'the observer itself, as another handle', holder: { pid: 100 }, verdict: 'alive', why: /process 100 exists/ },
  { name: 'another host name in the same boot and namespace says nothing', holder: { host: 'renamed' }, verdict: 'alive', why: /exists/ },

  // the same boot, another pid namespace: containers that share a volume (F7)
  {
    name: 'another pid namespace: its pid 7 is not our pid 7, and is never probed',
    holder: { pidNamespace: '4026532999', pid: 7 },
    probe: 'never',
    verdict: 'unknown',
    why: /another pid namespace/,
  },
  {
    name: 'another pid namespace, taken long before we first looked: still unknown',
    holder: { pidNamespace: '4026532999' },
    probe: 'never',
    heldMs: 3_600_000,
    verdict: 'unknown',
    why: /cannot be probed/,
  },
  {
    name: 'another pid namespace, watched for exactly maxHoldMs: still unknown',
    holder: { pidNamespace: '4026532999' },
    probe: 'never',
    watchedMs: 15_000,
    verdict: 'unknown',
    why: /cannot be probed/,
  },
  {
    name: 'another pid namespace, watched for longer than maxHoldMs: expired',
    holder: { pidNamespace: '4026532999' },
    probe: 'never',
    watchedMs: 15_000.001,
    verdict: 'expired',
    why: /unchanged for 15000 ms here/,
  },

  // other boots
  { name: 'an earlier boot of this machine: dead', holder: { boot: 'b0' }, probe: 'never', verdict: 'dead', why: /started anew/ },
  {
    name: 'an earlier boot of this machine, in another pid namespace: dead all the same',
    holder: { boot: 'b0', pidNamespace: '1' },
    probe: 'never',
    verdict: 'dead',
    why: /started anew/,
  },
  {
    name: 'another machine on a shared volume: unknown',
    holder: { boot: 'b9', machine: 'a9' },
    probe: 'never',
    verdict: 'unknown',
    why: /another machine/,
  },
  {
    name: 'another machine, watched long enough: expired',
    holder: { boot: 'b9', machine: 'a9' },
    probe: 'never',
    watchedMs: 15_001,
    verdict: 'expired',
    why: /another machine/,
  },
  {
    name: 'another boot where neither machine is known: not dead',
    holder: { boot: 'b9', machine: '0' },
    observer: { machine: '0' },
    probe: 'never',
    verdict: 'unknown',
    why: /another machine/,
  },
  {
    name: 'two systems without a boot id are not the same boot',
    holder: { boot: '0' },
    observer: { boot: '0' },
    probe: 'never',
    heldMs: 3_600_000,
    verdict: 'unknown',
    why: /another machine/,
  },
  {
    name: 'without a boot id only watching expires',
    holder: { boot: '0' },
    observer: { boot: '0' },
    probe: 'never',
    watchedMs: 15_001,
    verdict: 'expired',
    why: /unchanged/,
  },
]

describe('judge', () => {
  test.each(cases)('$name', (given) => {
    const nowMs = 10_000_000
    const holder: Holder = {
      ...observer,
      pid: 42,
      startTime: '777',
      acquiredAtMs: nowMs - (given.heldMs ?? 5),
      maxHoldMs: 15_000,
      does: 'commit',
      nonce: 'abc',
      ...given.holder,
    }
    const verdict = judge(holder, {
      observer: { ...observer, ...given.observer },
      nowMs,
      firstSeenAtMs: nowMs - (given.watchedMs ?? 0),
      probe(pid) {
        if (given.probe === 'never') throw new Error('a pid of another namespace was probed')
        expect(pid).toBe(holder.pid)
        return given.probe ?? alive
      },
    })
    expect(verdict.kind).toBe(given.verdict)
    expect(verdict.why).toMatch(given.why)
  })

  test('jumps of the wall clock expire nobody: only the monotonic clock is asked', () => {
    // The wall clock is no part of what judge is given. This stands guard against somebody adding it.
    const before = Date.now
    const holder: Holder = { ...observer, pid: 42, startTime: '777', acquiredAtMs: 1_000, maxHoldMs: 15_000, does: 'commit', nonce: 'abc' }
    try {
      for (const jumpMs of [-1e12, 0, 1e12]) {
        Date.now = () => before() + jumpMs
        expect(judge(holder, { observer, nowMs: 2_000, firstSeenAtMs: 1_500, probe: () => alive }).kind).toBe('alive')
      }
    } finally {
      Date.now = before
    }
  })
})

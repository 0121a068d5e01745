/** The name of a lock's entry is its state: names round-trip, and names that nobody here writes are refused (F3: there is no moment in which
 *  a lock exists without its content). */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { freeName, heldName, holderPrefix, parseEntry } from '../../src/file/lock/holder.js'

const hex = fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 1, maxLength: 16 })
const digits = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const identity = fc.record({
  boot: hex,
  machine: hex,
  pidNamespace: digits.map(String),
  pid: fc.nat({ max: 2 ** 22 }),
  startTime: hex,
  host: fc.string({ unit: fc.constantFrom(...'abcXYZ019-'), minLength: 1, maxLength: 24 }),
})
const does = fc.constantFrom('commit', 'create', 'checkpoint', 'offered', 'a-b')

describe('entry names', () => {
  test('a held name says again everything that was put into it', () => {
    fc.assert(
      fc.property(
        fc.record({ n: digits, identity, acquiredAtMs: digits, maxHoldMs: fc.nat(3_600_000), does, nonce: hex }),
        ({ n, identity: who, acquiredAtMs, maxHoldMs, does: what, nonce }) => {
          const name = heldName(n, holderPrefix(who), acquiredAtMs, maxHoldMs, what, who.host, nonce)
          const { boot, machine, pidNamespace, pid, startTime, host } = who
          expect(parseEntry(name)).toEqual({
            state: 'held',
            name,
            n,
            holder: { boot, machine, pidNamespace, pid, startTime, host, acquiredAtMs, maxHoldMs, does: what, nonce },
          })
        },
      ),
    )
  })

  test('a free name says its fencing token', () => {
    fc.assert(
      fc.property(digits, (n) => {
        expect(parseEntry(freeName(n))).toEqual({ state: 'free', name: freeName(n), n })
      }),
    )
  })

  test('a fraction of the clock is cut off, so that it can stand in a name', () => {
    const name = heldName(1, 'b.a.1.2.c', 1234.5678, 15_000, 'commit', 'host', 'f')
    expect(parseEntry(name)).toMatchObject({ holder: { acquiredAtMs: 1234 } })
  })

  test('names stay within what file systems allow (255 bytes)', () => {
    const prefix = holderPrefix({
      boot: 'ffffffff',
      machine: 'ffffffff',
      pidNamespace: '4294967295',
      pid: 4_194_304,
      startTime: '18446744073709551615',
      host: '',
    })
    const name = heldName(9_007_199_254_740_991, prefix, 1e13, 3_600_000, 'checkpoint', 'h'.repeat(24), 'f'.repeat(12))
    expect(Buffer.byteLength(name)).toBeLessThan(255)
  })

  const foreign = [
    '',
    '.',
    'free',
    'free.',
    'free.-1',
    'free.1.2',
    'free.1 ',
    'free.1\n',
    'free.0x1f',
    'free.12345678901234567',
    'Free.1',
    'held',
    'held.1',
    'held.1.me',
    'held.1.b.a.1.2.c.3.4.commit.host',
    'held.1.b.a.1.2.c.3.4.commit.host.f.more',
    'held.1.b.a.1.2.c.3.4.Commit.host.f',
    'held.1.b.a.x.2.c.3.4.commit.host.f',
    'held.1.b.a.1.2.c.3.4.commit.host.xyz',
    '.DS_Store',
    'lock',
    'free.1.lock',
    '.nfs000000000000',
  ]
  test.each(foreign)('%j is nobody’s', (name) => {
    expect(parseEntry(name)).toBeUndefined()
  })

  test('a name that is altered in any one character is another entry, or none', () => {
    const name = heldName(7, 'b0.a0.1.22.c0', 33, 44, 'commit', 'host', 'f0')
    fc.assert(
      fc.property(fc.nat(name.length - 1), fc.constantFrom(...'0a.-Z '), (at, by) => {
        const altered = name.slice(0, at) + by + name.slice(at + 1)
        fc.pre(altered !== name)
        expect(parseEntry(altered)).not.toEqual(parseEntry(name))
      }),
    )
  })
})

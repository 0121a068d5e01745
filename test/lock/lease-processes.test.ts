/** Leases among processes that are killed and frozen: never two holders in a way that matters, and never a lease that nobody can have. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { systemHost } from '../../src/file/host.js'
import { Leases } from '../../src/file/lock/lease.js'
import { newCounters } from '../../src/file/stats.js'
import { freshDirectory, longer } from '../processes/trials.js'
import type { Line } from './lease-lines.js'
import { leftIn, runTrial, startWanting, type Trial } from './lease-trials.js'

const seconds = 4 * longer

function leasesIn(dir: string): Leases {
  return new Leases(systemHost(), join(dir, 'turns'), { counters: newCounters(), label: 'turns' })
}

const wanted = { maxHoldMs: 60_000, does: 'turn', onLost: () => {} }

/** Of all lines, those without effect included: one owner for each token. */
function expectOneOwnerPerToken(lines: readonly Line[]): void {
  const owners = new Map<number, string>()
  for (const { token, owner } of lines) {
    expect(owners.get(token) ?? owner).toBe(owner)
    owners.set(token, owner)
  }
}

/** Of those that count: never a line of an older holder behind one of a newer. */
function expectGrowingTokens(lines: readonly Line[]): void {
  let last = 0
  for (const { token, valid } of lines) {
    if (!valid) continue
    expect(token).toBeGreaterThanOrEqual(last)
    last = token
  }
}

async function expectUsable({ dir, lines }: Trial): Promise<void> {
  const leases = leasesIn(dir)
  for (const [name, written] of lines) {
    expectOneOwnerPerToken(written)
    expectGrowingTokens(written)
    const { lease } = await leases.tryAcquire(name, wanted)
    expect(lease?.stands()).toBe(true)
    expect(lease!.token).toBeGreaterThan(Math.max(...written.map(({ token }) => token)))
    await lease!.release()
  }
}

describe('eight processes, thousands of leases', () => {
  test('without faults: one holder at a time, tokens grow, and nothing is left when all have released', async () => {
    // F2, F4: each release removes the lock while others are making it anew.
    const trial = await runTrial('no faults', { seconds, lines: 4_000, names: 2, maxHoldMs: 60_000 })
    expect(trial.acquisitions).toBeGreaterThan(1_000)
    expect(trial.late).toBe(0)
    expect(leftIn(trial.dir)).toEqual([])
    await expectUsable(trial)
  })

  test('without faults, where locks are left for a moment and removed when nobody has wanted them: the same', async () => {
    const trial = await runTrial('left for a moment', { seconds: seconds / 2, lines: 2_000, names: 12, maxHoldMs: 60_000, idleMs: 3 })
    expect(trial.acquisitions).toBeGreaterThan(500)
    expect(trial.late).toBe(0)
    await expectUsable(trial)
    leasesIn(trial.dir).sweep()
    expect(leftIn(trial.dir)).toEqual([])
  })

  test('with SIGKILL at any moment: still never two inside, the dead are overtaken, and what they left can be swept up', async () => {
    // F2, F6: nobody is overtaken for being slow here, so every single line counts.
    const trial = await runTrial('killed', { seconds, lines: 2_000, names: 3, maxHoldMs: 60_000, kill: true, idleMs: 1 })
    expect(trial.kills).toBeGreaterThan(10)
    expect(trial.acquisitions).toBeGreaterThan(500)
    expect(trial.late).toBe(0)
    await expectUsable(trial)
    leasesIn(trial.dir).sweep()
    expect(leftIn(trial.dir)).toEqual([])
  })

  test('with SIGSTOP beyond their time, and SIGKILL: who wakes too late has no effect', async () => {
    // F1, F2, F33
    const trial = await runTrial('stopped and killed', {
      seconds,
      lines: 1_500,
      names: 2,
      maxHoldMs: 60,
      kill: true,
      stopMs: 150,
      stallMs: 200,
      gapMs: 35,
    })
    expect(trial.stops).toBeGreaterThan(20)
    expect(trial.acquisitions).toBeGreaterThan(250)
    expect(trial.late).toBeGreaterThan(0)
    await expectUsable(trial)
    leasesIn(trial.dir).sweep()
    expect(leftIn(trial.dir)).toEqual([])
  })
})

describe('a process that ends with a lease', () => {
  const begun = async (ends: 'by itself' | 'exit' | 'never', maxHoldMs = 60_000) => {
    const dir = freshDirectory()
    const child = startWanting({ dir, names: ['k'], maxHoldMs, stallMs: 0, idleMs: 2_000, ends })
    const [{ token }] = await once(child, 'message')
    return { dir, child, token: Number(token), leases: leasesIn(dir) }
  }

  test('by itself, by exit() or by SIGTERM is overtaken at the first look; holding one does not keep it from ending', async () => {
    // F6
    for (const ends of ['by itself', 'exit', 'never'] as const) {
      const { dir, child, token, leases } = await begun(ends)
      if (ends === 'never') {
        expect(leases.look('k')).toMatchObject({ pid: child.pid, verdict: 'alive', token })
        child.kill('SIGTERM')
      }
      await once(child, 'exit')
      const { lease } = await leases.tryAcquire('k', wanted)
      expect(lease!.token).toBeGreaterThan(token)
      await lease!.release()
      leases.close()
      expect(leftIn(dir)).toEqual([])
    }
  })

  test('ends as its own signal handlers say, also one that is called once', () => {
    const module = new URL('../../.build/src/index.js', import.meta.url).href
    const dir = freshDirectory()
    const program = `
      const { SessionStore } = await import(${JSON.stringify(module)})
      const store = await SessionStore.open(${JSON.stringify(dir)})
      const before = process.listenerCount('SIGTERM')
      process.once('SIGTERM', async () => {
        await store.close()
        console.log('closed')
      })
      await store.runTurn('k', {}, async () => {
        process.kill(process.pid, 'SIGTERM')
        await new Promise((resume) => setTimeout(resume, 100))
      })
      console.log(process.listenerCount('SIGTERM') - before)`
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
    expect([ended.stdout, ended.stderr, ended.signal]).toEqual(['0\nclosed\n', '', null])
    expect(ended.status).toBe(0)
  })

  test('of a store that was removed meanwhile does not make it anew', async () => {
    const { dir, child } = await begun('never')
    fs.rmSync(join(dir, 'turns'), { recursive: true })
    child.kill('SIGTERM')
    await once(child, 'exit')
    expect(fs.existsSync(join(dir, 'turns'))).toBe(false)
  })

  test('by SIGKILL is overtaken at the first look', async () => {
    // F6
    const { child, token, leases } = await begun('never')
    child.kill('SIGKILL')
    await once(child, 'exit')
    const taken = await leases.tryAcquire('k', wanted)
    expect(taken).toMatchObject({ lease: { token: token + 1 }, overtaken: { pid: child.pid, verdict: 'dead', token } })
    await taken.lease!.release()
  })

  test('or rather is frozen, is overtaken after its maxHoldMs, not before, and does not take down its heir when it wakes and ends', async () => {
    // F1, F9
    const { dir, child, token, leases } = await begun('never', 300)
    child.kill('SIGSTOP')
    expect(await leases.tryAcquire('k', wanted)).toMatchObject({ blocker: { pid: child.pid, verdict: 'alive' } })
    await pause(320)
    const taken = await leases.tryAcquire('k', wanted)
    expect(taken).toMatchObject({ lease: { token: token + 1 }, overtaken: { pid: child.pid, verdict: 'expired' } })
    child.kill('SIGCONT')
    child.kill('SIGTERM')
    await once(child, 'exit')
    expect(taken.lease!.stands()).toBe(true)
    await taken.lease!.release()
    leases.close()
    expect(leftIn(dir)).toEqual([])
  })
})

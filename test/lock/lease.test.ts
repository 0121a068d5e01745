/** Long leases on a real directory: one holder, kept by progress, lost in a way that its holder notices, and nothing left behind. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../src/clock.js'
import { isStoreError } from '../../src/errors.js'
import { nodeDisk } from '../../src/file/durable.js'
import { systemHost } from '../../src/file/host.js'
import { LockDirectory } from '../../src/file/lock/directory.js'
import { Floor } from '../../src/file/lock/floor.js'
import { heartbeatMsOf } from '../../src/file/lock/held-lease.js'
import { beforeRename, deadPid, identityWith } from './contenders.js'
import { LeaseDirectory, shiftedClock } from './lease-holders.js'

describe('taking a lease', () => {
  test('makes its lock, keeps everybody else out, and tells them who has it', async () => {
    const directory = new LeaseDirectory()
    const [a, b] = [directory.wanting(), directory.wanting()]
    expect(b.leases.look('k')).toBe('free')
    const lease = await a.take()
    expect(directory.holder()).toMatchObject({ pid: process.pid, does: 'turn', maxHoldMs: 15_000 })
    expect(lease.stands()).toBe(true)
    const who = { pid: process.pid, does: 'turn', verdict: 'alive', maxHoldMs: 15_000, token: lease.token, heldMs: expect.any(Number) }
    expect(await b.try()).toMatchObject({ lease: undefined, blocker: who })
    expect(await a.try()).toMatchObject({ lease: undefined, blocker: who })
    expect(b.leases.look('k')).toMatchObject(who)
    expect(b.leases.statuses()).toMatchObject([
      { lock: 'turns/k', state: 'held', fencingToken: lease.token, waiting: 0, holder: { verdict: 'alive' } },
    ])
    expect((await b.take('other')).token).toBeGreaterThan(0)
  })

  test('and giving it back leaves no directory behind, and the next one gets a higher token', async () => {
    const directory = new LeaseDirectory()
    const who = [directory.wanting(), directory.wanting()]
    let last = 0
    for (let turn = 0; turn < 50; turn++) {
      const lease = await who[turn % 2]!.take()
      expect(lease.token).toBeGreaterThan(last)
      last = lease.token
      await lease.release()
      await lease.release()
      expect(lease.stands()).toBe(false)
      expect(directory.left()).toEqual([])
    }
    expect(who.map(({ counters }) => counters.locksLost)).toEqual([0, 0])
    expect(who[0]!.leases.statuses()).toEqual([])
  })

  test('and giving it back leaves the lock for a while, for the next one; then it goes', async () => {
    const directory = new LeaseDirectory()
    const [a, b] = [directory.wanting({}, 60), directory.wanting({}, 60_000)]
    const [first, other] = [await a.take(), await b.take('other')]
    await first.release()
    await other.release()
    expect(directory.entry()).toMatchObject({ state: 'free', n: first.token })
    expect(b.leases.look('k')).toBe('free')
    expect(b.leases.statuses()).toMatchObject([{ state: 'free' }, { state: 'free' }])
    const second = await a.take()
    expect(second.token).toBe(first.token + 1)
    await pause(100)
    expect(second.stands()).toBe(true)
    await second.release()
    await expect.poll(() => directory.left(), { timeout: 1_000 }).toEqual(['other'])
    b.leases.close()
    expect(directory.left()).toEqual([])
    expect((await a.take()).token).toBeGreaterThan(second.token)
  })

  test('gives growing tokens even where the wall clock stands still or jumps back by an hour', async () => {
    const directory = new LeaseDirectory()
    const wallMs = [1_800_000_000_000, 1_800_000_000_000, 1_799_996_400_000, 1_799_996_400_000, 1_800_000_000_000]
    const tokens: number[] = []
    for (const nowMs of wallMs) {
      const lease = await directory.wanting({ clock: { ...systemClock, wallMs: () => nowMs } }).take()
      tokens.push(lease.token)
      await lease.release()
    }
    expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => a - b))
  })

  test('gives a higher token also where the lock was being made while the old one was removed', async () => {
    const directory = new LeaseDirectory()
    const host = { ...systemHost(), clock: { ...systemClock, wallMs: () => 1_000 } }
    let floor = 0
    // Made with a time read long ago, in the moment in which the old lock is empty.
    const disk = {
      ...nodeDisk,
      rmdir(name: string) {
        nodeDisk.rmdir(name)
        if (!path.basename(name).startsWith('free.') || path.basename(path.dirname(name)) !== 'k') return
        new LockDirectory(host, path.dirname(name), 'k').create()
        floor = new Floor(host, path.join(directory.path, '.floor'), 'floor').get()
      },
    }
    const lease = await directory.wanting({ disk }).take()
    await lease.release()
    expect(floor).toBeGreaterThanOrEqual(lease.token)
    expect(directory.entry()).toMatchObject({ state: 'free', n: 1_000_000 })
    expect((await directory.wanting().take()).token).toBeGreaterThan(lease.token)
  })

  test('gives a higher token also where it was taken, removed and made anew, under the same name, between a look and a rename', async () => {
    const directory = new LeaseDirectory()
    const { host } = directory.wanting()
    new LockDirectory(host, path.join(directory.path, 'k'), 'k').create()
    const { name, n } = directory.entry()
    const disk = beforeRename((from) => {
      if (path.basename(from) === name) new Floor(host, path.join(directory.path, '.floor'), 'floor').raise(n + 1)
    })
    const lease = await directory.wanting({ disk }).take()
    expect(lease.token).toBeGreaterThan(n + 1)
    expect(directory.entry().n).toBe(lease.token)
    expect(lease.stands()).toBe(true)
  })

  test('by many at once: one has it', async () => {
    // F2
    const directory = new LeaseDirectory()
    for (let round = 0; round < 10; round++) {
      if (round % 2) directory.heldBy({ pid: deadPid })
      const tried = await Promise.all(Array.from({ length: 12 }, () => directory.wanting().try()))
      const winners = tried.filter(({ lease }) => lease)
      expect(winners).toHaveLength(1)
      await winners[0]!.lease!.release()
    }
  })

  test('under a name that is a path, or too long, is refused', async () => {
    const { leases } = new LeaseDirectory().wanting()
    for (const name of ['', '.', '..', '.floor', 'a/b', 'a.queue', 'x'.repeat(65), 'ü'])
      expect(() => leases.look(name)).toThrow(/INVARIANT/)
  })

  test('listens to no signals before the first one', async () => {
    // Workers are shared between test files: what counts is that another process has not loaded the library.
    const { execFileSync } = await import('node:child_process')
    const module = new URL('../../.build/src/file/lock/lease.js', import.meta.url).href
    const program = `import(${JSON.stringify(module)}).then(() => console.log(process.listenerCount('SIGTERM'), process.listenerCount('exit')))`
    expect(execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' })).toBe('0 0\n')
  })
})

describe('who is overtaken', () => {
  test('is a holder that died: at the first look, and the one who takes over is told whose it was', async () => {
    // F6
    const directory = new LeaseDirectory()
    directory.heldBy({ pid: deadPid, maxHoldMs: 3_600_000 }, 1_000_000)
    const { leases, counters } = directory.wanting()
    expect(leases.look('k')).toMatchObject({ pid: deadPid, verdict: 'dead' })
    const startedMs = performance.now()
    const taken = await leases.tryAcquire('k', { maxHoldMs: 1_000, does: 'turn', onLost: () => {} })
    expect(performance.now() - startedMs).toBeLessThan(200)
    expect(taken).toMatchObject({
      lease: { token: 1_000_001 },
      overtaken: { pid: deadPid, verdict: 'dead', token: 1_000_000, maxHoldMs: 3_600_000 },
    })
    expect(counters.takeovers).toEqual({ dead: 1, expired: 0 })
    await taken.lease?.release()
  })

  test('is a holder without progress for its maxHoldMs: it is told once, by whom, and adds nothing to the lock any more', async () => {
    // F1, F9
    const directory = new LeaseDirectory()
    const { clock, pass } = shiftedClock()
    const [slow, next] = [directory.wanting(), directory.wanting({ clock })]
    const lost = await slow.take('k', { maxHoldMs: 10_000 })
    pass(10_001)
    const took = await next.try()
    expect(took).toMatchObject({ overtaken: { pid: process.pid, verdict: 'expired', token: lost.token } })
    const taken = took.lease!
    expect(lost.lost).toBe(false)
    expect(lost.stands()).toBe(false)
    expect(lost.lost).toBe(true)
    expect(lost.told.lost).toEqual([]) // Not from within: it may have been noticed under a lock.
    await Promise.resolve()
    expect(lost.told.lost).toMatchObject([
      { code: 'TURN_LOST', effect: 'none', details: { lock: 'turns/k', holder: { token: taken.token } } },
    ])
    const entries = directory.entries()
    lost.progress()
    expect(lost.stands()).toBe(false)
    await lost.release()
    expect(directory.entries()).toEqual(entries)
    expect(taken.stands()).toBe(true)
    expect(lost.told.lost).toHaveLength(1)
    expect(slow.counters.locksLost).toBe(1)
    expect(next.counters.takeovers).toEqual({ dead: 0, expired: 1 })
  })

  test('notices it with its next progress, too, and does not write over the one who has taken over', async () => {
    const directory = new LeaseDirectory()
    const { clock, pass } = shiftedClock()
    const lost = await directory.wanting().take('k', { maxHoldMs: 200 })
    pass(201)
    const taken = await directory.wanting({ clock }).take()
    await pause(2)
    lost.progress()
    expect(lost.lost).toBe(true)
    expect(directory.entry().n).toBe(taken.token)
  })

  test('is never a living one on another machine, or in another container, unless its name has stood still for maxHoldMs here', async () => {
    // F7
    const directory = new LeaseDirectory()
    const { clock, pass } = shiftedClock()
    const elsewhere = directory.wanting({ identity: identityWith({ pidNamespace: '17', pid: deadPid }) })
    const here = directory.wanting({ clock })
    const lease = await elsewhere.take('k', { maxHoldMs: 400 })
    for (let at = 0; at < 4; at++) {
      expect(await here.try()).toMatchObject({ blocker: { verdict: 'unknown' } })
      pass(399)
      await pause(2)
      lease.progress()
    }
    expect(lease.stands()).toBe(true)
    expect(await here.try()).toMatchObject({ blocker: { verdict: 'unknown' } })
    pass(401)
    expect(await here.try()).toMatchObject({ overtaken: { verdict: 'expired' } })
    expect(lease.stands()).toBe(false)
  })

  test('is not one that makes progress in the moment of the takeover: the late rename finds its name gone', async () => {
    const directory = new LeaseDirectory()
    const { clock, pass } = shiftedClock()
    const lease = await directory.wanting().take('k', { maxHoldMs: 10_000, heartbeatMs: 10_000 })
    const before = directory.entry().name
    const disk = {
      ...nodeDisk,
      rename(from: string, to: string) {
        if (path.basename(from) === before && path.basename(to).includes('.late.')) {
          pass(-10_001)
          lease.progress()
        }
        nodeDisk.rename(from, to)
      },
    }
    await pause(2)
    pass(10_001)
    expect(await directory.wanting({ clock, disk }).try('k', { does: 'late' })).toMatchObject({
      lease: undefined,
      blocker: { verdict: 'alive' },
    })
    expect(lease.stands()).toBe(true)
    expect(directory.entry().name).not.toBe(before)
  })
})

describe('progress', () => {
  test('keeps a lease for as long as it goes on, under the same token; then it goes to whoever asks', async () => {
    const directory = new LeaseDirectory()
    const [a, b] = [directory.wanting(), directory.wanting()]
    const lease = await a.take('k', { maxHoldMs: 120 })
    const { nonce } = directory.holder()
    const until = performance.now() + 500
    for (; performance.now() < until; await pause(15)) {
      lease.progress()
      expect((await b.try()).lease).toBeUndefined()
    }
    expect(directory.entry().n).toBe(lease.token)
    expect(directory.holder().nonce).toBe(nonce)
    expect(lease.told).toEqual({ lost: [], expired: [] })
    lease.progress()
    const lastMs = performance.now()
    while (!(await b.try()).lease) await pause(5)
    const tookMs = performance.now() - lastMs
    expect(tookMs).toBeGreaterThan(118)
    expect(tookMs).toBeLessThan(250)
  })

  test('is not written each time, but before it is half a maxHoldMs old: at once after a quarter, or with the heartbeat', async () => {
    const directory = new LeaseDirectory()
    const lease = await directory.wanting().take('k', { maxHoldMs: 4_000 })
    const first = directory.holder().acquiredAtMs
    await pause(50)
    for (let at = 0; at < 1_000; at++) lease.progress()
    const progressMs = systemClock.monotonicMs()
    expect(directory.holder().acquiredAtMs).toBe(first)
    await pause(1_050)
    expect(Math.abs(directory.holder().acquiredAtMs - progressMs)).toBeLessThan(5)
    await pause(1_050)
    expect(Math.abs(directory.holder().acquiredAtMs - progressMs)).toBeLessThan(5)
    lease.progress()
    expect(directory.holder().acquiredAtMs).toBeGreaterThan(progressMs + 2_000)
  })

  test('is what counts, not that the process lives: a heart that beats renews nothing', async () => {
    const directory = new LeaseDirectory()
    const lease = await directory.wanting().take('k', { maxHoldMs: 2_200 })
    const { name } = directory.entry()
    await pause(2_100)
    expect(directory.entry().name).toBe(name)
    expect(await directory.wanting().try()).toMatchObject({ blocker: { verdict: 'alive' } })
    await pause(200)
    expect(await directory.wanting().try()).toMatchObject({ overtaken: { verdict: 'expired' } })
    // The next heartbeat notices, and the lease's owner need not ask.
    await expect.poll(() => lease.told.lost.length, { timeout: 1_500 }).toBe(1)
  })

  test('that does not come in time is told to the holder, once; the lease stands until it is taken, and is not renewed', async () => {
    const directory = new LeaseDirectory()
    const startedMs = performance.now()
    const lease = await directory.wanting().take('k', { maxHoldMs: 100 })
    await pause(60)
    lease.progress()
    await expect.poll(() => lease.told.expired.length, { interval: 2 }).toBe(1)
    expect(performance.now() - startedMs).toBeGreaterThan(158)
    expect(performance.now() - startedMs).toBeLessThan(300)
    expect(lease.told.expired[0]).toMatchObject({ code: 'TURN_LOST', effect: 'none', details: { lock: 'turns/k', maxHoldMs: 100 } })
    const { name } = directory.entry()
    await pause(5)
    lease.progress()
    expect(directory.entry().name).toBe(name)
    expect([lease.stands(), lease.lost]).toEqual([true, false])
    await lease.release()
    await pause(150)
    expect(lease.told).toMatchObject({ lost: [], expired: [{}] })
    expect(directory.left()).toEqual([])
  })

  test('of one that has been overtaken already is told as a loss, not as a lack of progress', async () => {
    const directory = new LeaseDirectory()
    const lease = await directory.wanting().take('k', { maxHoldMs: 50 })
    fs.rmSync(path.join(directory.path, 'k'), { recursive: true })
    await pause(80)
    expect(lease.told).toMatchObject({ lost: [{ code: 'TURN_LOST' }], expired: [] })
  })
})

describe('the heart', () => {
  test('beats four times in a maxHoldMs, at least every 15 s and at most every second', () => {
    const heartbeatMs = (maxHoldMs: number, asked?: number) =>
      heartbeatMsOf({ maxHoldMs, does: 'turn', onLost: () => {}, ...(asked && { heartbeatMs: asked }) })
    expect([100, 4_000, 20_000, 60_000, 1_020_000].map((maxHoldMs) => heartbeatMs(maxHoldMs))).toEqual([
      1_000, 1_000, 5_000, 15_000, 15_000,
    ])
    expect([1, 2_000, 60_000].map((asked) => heartbeatMs(20_000, asked))).toEqual([1_000, 2_000, 15_000])
  })

  test('finds a lock that was removed by hand, and the holder is told', async () => {
    const directory = new LeaseDirectory()
    const lease = await directory.wanting().take('k', { maxHoldMs: 60_000, heartbeatMs: 1_000 })
    await pause(5)
    fs.rmSync(path.join(directory.path, 'k'), { recursive: true })
    await expect.poll(() => lease.told.lost.length, { timeout: 1_500 }).toBe(1)
    expect(lease.lost).toBe(true)
    await lease.release()
  })

  test('does not give up for a wall clock that jumps, nor for an event loop that stands still', async () => {
    const directory = new LeaseDirectory()
    const lease = await directory.wanting().take('k', { maxHoldMs: 60_000, heartbeatMs: 1_000 })
    const now = Date.now.bind(Date)
    let jumps = 0
    const jumping = vi.spyOn(Date, 'now').mockImplementation(() => now() + (jumps++ % 2 ? 86_400_000 : -86_400_000))
    systemClock.nap(2_500)
    await pause(1_200)
    jumping.mockRestore()
    expect(jumps).toBeGreaterThan(1)
    expect(lease.stands()).toBe(true)
    expect(lease.told.lost).toEqual([])
  })

  test('of one goes on when another one of the same name, in the same process, was lost and is given back', async () => {
    const directory = new LeaseDirectory()
    const { clock, pass } = shiftedClock()
    const lost = await directory.wanting().take('k', { maxHoldMs: 5_000 })
    pass(5_001)
    const lease = await directory.wanting({ clock }).take('k', { maxHoldMs: 60_000, heartbeatMs: 1_000 })
    await lost.release()
    expect(lease.stands()).toBe(true)
    fs.rmSync(path.join(directory.path, 'k'), { recursive: true })
    await expect.poll(() => lease.told.lost.length, { timeout: 1_500 }).toBe(1)
  })
})

describe('when the disk fails', () => {
  const failing = (calls: readonly string[], what = 'held.') => {
    let fails = false
    const refuse = (call: string, name: string) => {
      if (fails && calls.includes(call) && path.basename(name).startsWith(what))
        throw Object.assign(new Error(`EIO: ${call}`), { code: 'EIO' })
    }
    const disk = {
      ...nodeDisk,
      rename(from: string, to: string) {
        refuse('rename', from)
        nodeDisk.rename(from, to)
      },
      rmdir(name: string) {
        refuse('rmdir', name)
        nodeDisk.rmdir(name)
      },
      stat(name: string) {
        refuse('stat', name)
        return nodeDisk.stat(name)
      },
    }
    const fail = (on: boolean) => {
      fails = on
    }
    return { disk, fail }
  }

  test('a lock that cannot be removed is left free, with its token', async () => {
    const directory = new LeaseDirectory()
    const { disk, fail } = failing(['rmdir'], 'free.')
    const lease = await directory.wanting({ disk }).take()
    fail(true)
    await lease.release()
    expect(directory.entry()).toMatchObject({ state: 'free', n: lease.token })
    expect((await directory.wanting().take()).token).toBeGreaterThan(lease.token)
  })

  test('a lease that cannot be given back at all says so, can be taken again by its own process, and expires for others', async () => {
    const directory = new LeaseDirectory()
    const { disk, fail } = failing(['rmdir', 'rename'])
    const [a, b] = [directory.wanting({ disk }), directory.wanting()]
    const lease = await a.take()
    fail(true)
    const error = await lease.release().catch((reason: unknown) => reason)
    expect(isStoreError(error, 'IO_FAILED')).toBe(true)
    fail(false)
    expect((await b.try()).lease).toBeUndefined()
    expect(await a.try()).toMatchObject({ overtaken: { why: 'it could not be released' } })
  })

  test('a look that fails does not count as standing, nor as lost', async () => {
    // F9: a failed look says nothing.
    const directory = new LeaseDirectory()
    const { disk, fail } = failing(['stat'])
    const lease = await directory.wanting({ disk }).take()
    fail(true)
    expect([lease.stands(), lease.lost]).toEqual([false, false])
    fail(false)
    expect(lease.stands()).toBe(true)
  })

  test('progress that cannot be written does not reach the caller, and is written with the next', async () => {
    const directory = new LeaseDirectory()
    const { disk, fail } = failing(['rename'])
    const lease = await directory.wanting({ disk }).take('k', { maxHoldMs: 400 })
    const { name } = directory.entry()
    fail(true)
    await pause(3)
    lease.progress()
    expect(directory.entry().name).toBe(name)
    fail(false)
    lease.progress()
    expect(directory.entry().name).not.toBe(name)
    expect(lease.stands()).toBe(true)
  })

  test('for seconds, the library does not give the lease up for it, whatever the wall clock says meanwhile', async () => {
    const directory = new LeaseDirectory()
    const { disk, fail } = failing(['rename'])
    const lease = await directory.wanting({ disk }).take('k', { maxHoldMs: 60_000, heartbeatMs: 1_000 })
    const { name } = directory.entry()
    await pause(3)
    lease.progress()
    fail(true)
    const now = Date.now.bind(Date)
    const jumped = vi.spyOn(Date, 'now').mockImplementation(() => now() + 86_400_000)
    await pause(2_400)
    jumped.mockRestore()
    expect(lease.told.lost).toEqual([])
    expect(directory.entry().name).toBe(name)
    fail(false)
    await expect.poll(() => directory.entry().name, { timeout: 1_500 }).not.toBe(name)
    expect(lease.stands()).toBe(true)
  })

  test('taking one throws what is wrong, and leaves nothing held', async () => {
    const directory = new LeaseDirectory()
    const disk = {
      ...nodeDisk,
      mkdir() {
        throw Object.assign(new Error('ENOSPC: no space left on device, mkdir'), { code: 'ENOSPC' })
      },
    }
    await expect(directory.wanting({ disk }).try()).rejects.toMatchObject({ code: 'DISK_FULL', effect: 'none' })
    expect(directory.left()).toEqual([])
  })
})

describe('sweeping', () => {
  test('removes what the dead have left, and nothing of the living', async () => {
    // F4
    const directory = new LeaseDirectory()
    const dead = directory.wanting({ identity: identityWith({ pid: deadPid }) })
    const { leases } = directory.wanting()
    const living = await directory.wanting().take('living')
    directory.heldBy({ pid: deadPid }, 2_000_000_000_000_000, 'dead')
    fs.mkdirSync(path.join(directory.path, 'empty'))
    fs.mkdirSync(path.join(directory.path, 'free', 'free.7'), { recursive: true })
    fs.mkdirSync(path.join(directory.path, 'living.queue'))
    for (const { host } of [dead, directory.wanting()]) {
      const disk = {
        ...nodeDisk,
        rename() {
          throw new Error('killed')
        },
        rmdir() {
          throw new Error('killed')
        },
      }
      expect(() => new LockDirectory({ ...host, disk }, path.join(directory.path, 'made'), 'made').create()).toThrow()
    }
    expect(directory.left()).toHaveLength(7)
    leases.sweep()
    const left = directory.left().sort()
    expect(left).toEqual(['living', 'living.queue', expect.stringMatching(new RegExp(`^made\\.new-.*\\.${process.pid}\\.`))])
    expect(living.stands()).toBe(true)
    expect((await directory.wanting().take('dead')).token).toBeGreaterThan(2_000_000_000_000_000)
  })

  test('of a directory that is not there does nothing', () => {
    const { leases } = new LeaseDirectory().wanting()
    leases.sweep()
    expect(leases.statuses()).toEqual([])
  })
})

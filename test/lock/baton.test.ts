/** The lock on a real directory: one winner, a fair turn, bounded waits, and a loss that is noticed. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/clock.js'
import { isStoreError } from '../../src/errors.js'
import { nodeDisk } from '../../src/file/durable.js'
import type { Held } from '../../src/file/lock/baton.js'
import { parseEntry } from '../../src/file/lock/holder.js'
import { acquireSoon, beforeRename, type Contender, deadPid, identityWith, LockDirectory } from './contenders.js'

/** Lets every contender come to the very point of its rename before the first of them makes it. */
function allAtOnce(lock: LockDirectory, count: number): { winners: Held[]; contenders: Contender[] } {
  const contenders: Contender[] = []
  const winners: Held[] = []
  let next = 0
  const attempt = () => {
    const contender = contenders[next++]
    const held = contender?.baton.tryAcquire('commit')
    if (held) winners.push(held)
  }
  for (let at = 0; at < count; at++) {
    let nested = false
    const disk = beforeRename(() => {
      if (nested) return
      nested = true
      attempt()
    })
    contenders.push(lock.contender({ disk }))
  }
  attempt()
  return { winners, contenders }
}

describe('acquiring', () => {
  test('creates the lock with its entry in it, and gives it back free with the same token', () => {
    const lock = new LockDirectory()
    const { baton } = lock.contender()
    const held = baton.tryAcquire('commit')!
    expect(lock.entry).toBe(held.name)
    expect(lock.holder).toMatchObject({ pid: process.pid, does: 'commit' })
    baton.release(held)
    expect(parseEntry(lock.entry)).toMatchObject({ state: 'free', n: held.n })
  })

  test('is exclusive, and the token grows with every change of hands', () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    let last = 0
    for (let turn = 0; turn < 20; turn++) {
      const [mine, theirs] = turn % 2 ? [a, b] : [b, a]
      const held = mine.baton.tryAcquire('commit')!
      expect(theirs.baton.tryAcquire('commit')).toBeUndefined()
      expect(mine.baton.tryAcquire('commit')).toBeUndefined()
      expect(held.n).toBeGreaterThan(last)
      last = held.n
      mine.baton.release(held)
    }
    expect(a.counters.locksLost + b.counters.locksLost).toBe(0)
  })

  test('a free lock has one winner among twelve who all saw it free', () => {
    const lock = new LockDirectory()
    const first = lock.contender()
    first.baton.release(first.baton.tryAcquire('commit')!)
    const { winners } = allAtOnce(lock, 12)
    expect(winners.map(({ name }) => name)).toEqual([lock.entry])
  })

  test('an absent lock is created by one of twelve, and held by one', () => {
    const lock = new LockDirectory()
    const { winners } = allAtOnce(lock, 12)
    expect(winners.map(({ name }) => name)).toEqual([lock.entry])
    expect(fs.readdirSync(path.dirname(lock.path))).toEqual(['lock'])
  })

  test('an empty lock directory is taken as absent', () => {
    const lock = new LockDirectory()
    fs.mkdirSync(lock.path)
    const held = lock.contender().baton.tryAcquire('commit')
    expect(held?.name).toBe(lock.entry)
  })

  test('a foreign entry is named and left alone, and nobody waits for it', async () => {
    const lock = new LockDirectory()
    fs.mkdirSync(path.join(lock.path, 'not-ours'), { recursive: true })
    const contender = lock.contender()
    const error = await acquireSoon(contender).catch((reason: unknown) => reason)
    expect(isStoreError(error, 'IO_FAILED') && error).toMatchObject({ effect: 'none', retryable: false })
    expect(String(error)).toContain('not-ours')
    expect(lock.entries()).toEqual(['not-ours'])
    fs.rmSync(path.join(lock.path, 'not-ours'), { recursive: true })
    const held = await acquireSoon(contender)
    expect(lock.entry).toBe(held.name)
  })
})

describe('taking over', () => {
  test('a dead holder is taken over at the first look, by one of twelve who all judged it dead (F2, F6)', () => {
    const lock = new LockDirectory()
    lock.heldBy({ pid: deadPid })
    const { winners, contenders } = allAtOnce(lock, 12)
    expect(winners.map(({ name }) => name)).toEqual([lock.entry])
    expect(winners[0]!.n).toBe(6)
    expect(contenders.reduce((sum, { counters }) => sum + counters.takeovers.dead, 0)).toBe(1)
  })

  test('the fresh lock of the winner is never mistaken for the stale one (F2)', () => {
    const lock = new LockDirectory()
    lock.heldBy({ pid: deadPid })
    const slow = lock.contender({ disk: beforeRename(() => fast.baton.tryAcquire('commit')) })
    const fast = lock.contender()
    expect(slow.baton.tryAcquire('commit')).toBeUndefined()
    expect(lock.entries()).toHaveLength(1)
    expect(fast.baton.status().holder?.verdict).toBe('alive')
  })

  test('a holder past its maxHoldMs is taken over; one that is alive and within it never', async () => {
    const lock = new LockDirectory()
    const [slow, other] = [lock.contender({}, 60), lock.contender()]
    const held = await acquireSoon(slow)
    expect(other.baton.tryAcquire('commit')).toBeUndefined()
    await pause(70)
    expect(other.baton.tryAcquire('commit')).toBeDefined()
    expect(other.counters.takeovers).toEqual({ dead: 0, expired: 1 })
    slow.baton.release(held)
    expect(slow.counters.locksLost).toBe(1)
  })

  test('what the old holder had staged is gone before the new one has the lock', () => {
    const lock = new LockDirectory()
    const stage = lock.heldBy({ pid: deadPid })
    fs.writeFileSync(path.join(stage, 'staged'), 'a snapshot by the old holder')
    const held = lock.contender().baton.tryAcquire('commit')!
    expect(fs.readdirSync(held.stage)).toEqual([])
    expect(() => fs.renameSync(path.join(stage, 'staged'), `${lock.path}-target`)).toThrow(/ENOENT/)
  })

  test('a stage that cannot be emptied blocks: the lock is not had', () => {
    const lock = new LockDirectory()
    const stage = lock.heldBy({ pid: deadPid })
    fs.writeFileSync(path.join(stage, 'staged'), '')
    const disk = {
      ...nodeDisk,
      unlink() {
        throw Object.assign(new Error('EIO: i/o error, unlink'), { code: 'EIO' })
      },
    }
    const { baton } = lock.contender({ disk })
    expect(() => baton.tryAcquire('commit')).toThrow(/EIO/)
    expect(lock.entries()).toHaveLength(1)
    expect(parseEntry(lock.entry)?.state).toBe('held')
  })

  test('a staged file that vanishes while it is unlinked was renamed in time by the old holder: no failure', () => {
    const lock = new LockDirectory()
    const stage = lock.heldBy({ pid: deadPid })
    fs.writeFileSync(path.join(stage, 'staged'), '')
    const disk = {
      ...nodeDisk,
      readdir(name: string) {
        const names = nodeDisk.readdir(name)
        if (names.includes('staged')) fs.rmSync(path.join(name, 'staged'))
        return names
      },
    }
    expect(lock.contender({ disk }).baton.tryAcquire('commit')).toBeDefined()
  })

  test('two pid namespaces: a holder elsewhere is left alone although nobody here has its pid (F7)', async () => {
    const lock = new LockDirectory()
    lock.heldBy({ pid: deadPid, pidNamespace: '1', maxHoldMs: 80 })
    const contender = lock.contender()
    expect(contender.baton.tryAcquire('commit')).toBeUndefined()
    expect(contender.baton.status().holder).toMatchObject({ verdict: 'unknown' })
    const startedMs = performance.now()
    await acquireSoon(contender)
    expect(performance.now() - startedMs).toBeGreaterThan(75)
    expect(contender.counters.takeovers).toEqual({ dead: 0, expired: 1 })
  })

  test('a holder elsewhere who keeps changing hands is watched anew each time', () => {
    const lock = new LockDirectory()
    let nowMs = 1_000
    const { baton } = lock.contender({ clock: { ...systemClock, monotonicMs: () => nowMs } })
    for (let n = 0; n < 4; n++) {
      lock.heldBy({ pidNamespace: '1', maxHoldMs: 100 }, n)
      expect(baton.tryAcquire('commit')).toBeUndefined()
      nowMs += 100
      expect(baton.tryAcquire('commit')).toBeUndefined()
    }
    nowMs += 1
    expect(baton.tryAcquire('commit')).toBeDefined()
  })
})

describe('releasing', () => {
  test('a lock that was lost is not given back over the head of who has it (F9)', async () => {
    const lock = new LockDirectory()
    const [slow, other] = [lock.contender({}, 20), lock.contender()]
    const lost = await acquireSoon(slow)
    await pause(30)
    const held = other.baton.tryAcquire('commit')!
    slow.baton.release(lost)
    expect(lock.entry).toBe(held.name)
    expect(slow.counters.locksLost).toBe(1)
    expect(slow.baton.tryAcquire('commit')).toBeUndefined()
    other.baton.release(held)
    expect(other.counters.locksLost).toBe(0)
  })

  test('a lock directory that was removed by hand fences the holder, and is made anew with a higher token', async () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    const held = a.baton.tryAcquire('commit')!
    await pause(2)
    fs.rmSync(lock.path, { recursive: true })
    const next = b.baton.tryAcquire('commit')!
    expect(next.n).toBeGreaterThan(held.n)
    a.baton.release(held)
    expect(a.counters.locksLost).toBe(1)
    expect(lock.entry).toBe(next.name)
  })
})

describe('waiting', () => {
  test('in one process callers are served in the order in which they came', async () => {
    const lock = new LockDirectory()
    const contender = lock.contender()
    const order: number[] = []
    await Promise.all(
      Array.from({ length: 20 }, async (_, at) => {
        const held = await acquireSoon(contender)
        order.push(at)
        await pause(at % 3)
        contender.baton.release(held)
      }),
    )
    expect(order).toEqual(Array.from({ length: 20 }, (_, at) => at))
    expect(contender.baton.idle).toBe(true)
  })

  test('a waiter in line that is aborted rejects with the reason as it is, and never runs later (F41)', async () => {
    const lock = new LockDirectory()
    const contender = lock.contender()
    const held = await acquireSoon(contender)
    const stop = new AbortController()
    const aborted = acquireSoon(contender, 5_000, stop.signal)
    const next = acquireSoon(contender)
    const reason = new Error('the caller went away')
    stop.abort(reason)
    await expect(aborted).rejects.toBe(reason)
    contender.baton.release(held)
    contender.baton.release(await next)
    expect(contender.baton.idle).toBe(true)
    expect(contender.counters.lockAcquisitions).toBe(2)
  })

  test('one that is aborted while it contends with other processes gives back its ticket', async () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    const held = await acquireSoon(a)
    const stop = new AbortController()
    const aborted = acquireSoon(b, 5_000, stop.signal)
    await pause(20)
    expect(lock.tickets()).toHaveLength(1)
    stop.abort('enough')
    await expect(aborted).rejects.toBe('enough')
    expect(lock.tickets()).toEqual([])
    a.baton.release(held)
    expect(b.baton.tryAcquire('commit')).toBeDefined()
  })

  test('a signal that is aborted already takes nothing', async () => {
    const lock = new LockDirectory()
    await expect(acquireSoon(lock.contender(), 5_000, AbortSignal.abort('no'))).rejects.toBe('no')
    expect(lock.entries()).toEqual([])
  })

  test('a deadline names the holder: pid, whether it lives, for how long, and what it does (F10)', async () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    const held = a.baton.tryAcquire('checkpoint')!
    const startedMs = performance.now()
    const error = await acquireSoon(b, 50).catch((reason: unknown) => reason)
    expect(performance.now() - startedMs).toBeGreaterThan(45)
    expect(isStoreError(error, 'LOCK_TIMEOUT') && error).toMatchObject({
      kind: 'busy',
      effect: 'none',
      retryable: true,
      details: { lock: 'the lock', waitMs: 50, holder: { pid: process.pid, does: 'checkpoint', verdict: 'alive', maxHoldMs: 15_000 } },
    })
    expect(String(error)).toContain(`pid ${process.pid}`)
    expect(b.counters.lockTimeouts).toBe(1)
    a.baton.release(held)
  })

  test('a deadline within the own process says so', async () => {
    const lock = new LockDirectory()
    const contender = lock.contender()
    const held = await acquireSoon(contender)
    await expect(acquireSoon(contender, 20)).rejects.toThrow(/held within this process/)
    contender.baton.release(held)
    contender.baton.release(await acquireSoon(contender))
  })

  test('a wait of zero takes what is free and refuses what is not, without a wait', async () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    const held = await acquireSoon(a, 0)
    await expect(acquireSoon(b, 0)).rejects.toMatchObject({ code: 'LOCK_TIMEOUT' })
    a.baton.release(held)
    b.baton.release(await acquireSoon(b, 0))
  })
})

describe('handing over', () => {
  const tenureMs = 8

  test('whoever has had the lock for a while hands it to the oldest ticket', async () => {
    const lock = new LockDirectory()
    const { baton, counters } = lock.contender()
    const held = baton.tryAcquire('commit')!
    const oldest = await lock.ticket({ pid: process.ppid, startTime: '0' })
    const others = [await lock.ticket(), await lock.ticket()]
    await pause(tenureMs)
    baton.release(held)
    expect(lock.holder).toMatchObject({ pid: process.ppid, does: 'offered' })
    expect(oldest).toContain(lock.holder!.nonce)
    expect(lock.holder!.maxHoldMs).toBeLessThanOrEqual(100)
    expect(parseEntry(lock.entry)?.n).toBe(held.n + 1)
    expect(lock.tickets().sort()).toEqual(others.sort())
    expect(counters.handOvers).toBe(1)
  })

  test('whoever has waited for long gets it next, even within a tenure', async () => {
    const lock = new LockDirectory()
    const { baton, counters } = lock.contender()
    lock.heldBy({})
    const ticket = await lock.ticket()
    await pause(tenureMs + 4)
    lock.heldBy({ pid: deadPid })
    baton.release(baton.tryAcquire('commit')!)
    expect(ticket).toContain(lock.holder!.nonce)
    expect(counters.handOvers).toBe(1)
  })

  test('tickets of the dead are cleared away, and the living one behind them is served', async () => {
    const lock = new LockDirectory()
    const { baton } = lock.contender()
    const held = baton.tryAcquire('commit')!
    await lock.ticket({ pid: deadPid })
    const living = await lock.ticket()
    await pause(tenureMs)
    baton.release(held)
    expect(living).toContain(lock.holder?.nonce)
    expect(lock.tickets()).toEqual([])
  })

  test('a waiter is offered the lock, takes it in its own name, and passes it on', async () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    const held = await acquireSoon(a)
    const waiting = acquireSoon(b)
    await pause(20)
    a.baton.release(held)
    const theirs = await waiting
    expect(a.counters.handOvers).toBe(1)
    expect(lock.entry).toBe(theirs.name)
    expect(lock.holder?.does).toBe('commit')
    expect(theirs.n).toBe(held.n + 2)
    expect(lock.tickets()).toEqual([])
    b.baton.release(theirs)
    expect(b.counters.takeovers).toEqual({ dead: 0, expired: 0 })
  })

  test('an offer that nobody takes is soon anybody’s', async () => {
    const lock = new LockDirectory()
    const [a, b] = [lock.contender(), lock.contender()]
    const held = a.baton.tryAcquire('commit')!
    await lock.ticket()
    await pause(tenureMs)
    a.baton.release(held)
    expect(lock.holder?.does).toBe('offered')
    await acquireSoon(b, 2_000)
    expect(b.counters).toMatchObject({ offersLapsed: 1, takeovers: { dead: 0, expired: 0 } })
  })

  test('an offer to a waiter that has died meanwhile is taken at once', async () => {
    const lock = new LockDirectory()
    lock.heldBy({ pid: deadPid, does: 'offered', maxHoldMs: 100 })
    expect(lock.contender().baton.tryAcquire('commit')).toBeDefined()
  })

  test('an offer that arrives when its waiter gives up is passed on, not left to expire', async () => {
    const lock = new LockDirectory()
    // The offer comes at the very moment when the ticket is given back.
    const offer = (name: string) => {
      const ticket = name.includes('.queue/') ? parseEntry(path.basename(name)) : undefined
      if (ticket?.state === 'held') lock.heldBy({ nonce: ticket.holder.nonce, does: 'offered', maxHoldMs: 10_000 }, 9)
    }
    const disk = {
      ...nodeDisk,
      rmdir(name: string) {
        nodeDisk.rmdir(name)
        offer(name)
      },
      unlink(name: string) {
        nodeDisk.unlink(name)
        offer(name)
      },
    }
    const a = lock.contender()
    const b = lock.contender({ disk })
    a.baton.tryAcquire('commit')
    await expect(acquireSoon(b, 30)).rejects.toMatchObject({ code: 'LOCK_TIMEOUT' })
    expect(parseEntry(lock.entry)).toMatchObject({ state: 'free', n: 10 })
  })

  test('two who want it all the time both get it: neither starves', async () => {
    const lock = new LockDirectory()
    const until = performance.now() + 400
    const turns = await Promise.all(
      [lock.contender(), lock.contender(), lock.contender()].map(async (contender) => {
        let count = 0
        for (; performance.now() < until; count++) {
          contender.baton.release(await acquireSoon(contender))
          // Another turn of the event loop: this is one process playing three.
          await new Promise((resolve) => setImmediate(resolve))
        }
        return count
      }),
    )
    expect(Math.min(...turns)).toBeGreaterThan(Math.max(...turns) / 10)
  })
})

describe('overlayfs', () => {
  test('a lock that comes from an image layer (EXDEV) is removed by its exact name and made afresh', () => {
    const lock = new LockDirectory()
    const stage = lock.heldBy({ pid: deadPid })
    const disk = beforeRename((from) => {
      if (from === stage) throw Object.assign(new Error('EXDEV: cross-device link not permitted, rename'), { code: 'EXDEV' })
    })
    const held = lock.contender({ disk }).baton.tryAcquire('commit')
    expect(held && lock.entry).toBe(held?.name)
    expect(fs.existsSync(stage)).toBe(false)
  })
})

describe('status', () => {
  test('says who holds the lock, since when, and what this process makes of it', async () => {
    const lock = new LockDirectory()
    const { baton } = lock.contender({ identity: identityWith({ pid: deadPid }) })
    expect(baton.status()).toMatchObject({ state: 'absent', waiting: 0 })
    const held = baton.tryAcquire('commit')!
    expect(lock.contender().baton.status()).toMatchObject({
      lock: 'the lock',
      state: 'held',
      entry: held.name,
      fencingToken: held.n,
      holder: { pid: deadPid, does: 'commit', verdict: 'dead', maxHoldMs: 15_000 },
    })
    lock.heldBy({})
    await lock.ticket()
    expect(baton.status()).toMatchObject({ waiting: 1, holder: { pid: process.pid, verdict: 'alive' } })
    fs.mkdirSync(path.join(lock.path, 'what is this'))
    expect(baton.status().state).toBe('foreign')
  })
})

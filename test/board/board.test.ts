/** The board: everybody sees who waits and who is active, in which order, and whose process has died; and nothing of it stays behind. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { nodeDisk } from '../../src/file/durable.js'
import { leaseNameOf } from '../../src/file/turns/board.js'
import { deadPid, identityWith } from '../lock/contenders.js'
import { shiftedClock } from '../lock/lease-holders.js'
import { facts, Queues } from './queues.js'

/** Dead for everybody but itself. */
const dead = { identity: identityWith({ pid: deadPid }), probe: () => ({ exists: true, startTime: undefined, zombie: false }) }
const stranger = { identity: identityWith({ pid: process.ppid, startTime: '0' }) }

describe('a card', () => {
  test('is seen by every process, with all that was said, as long as it stands', () => {
    const queues = new Queues()
    const [a, b] = [queues.board(), queues.board(stranger)]
    const card = a.draw(facts('r-1', { channelId: 'tg-4', whenBusy: 'coalesce', lane: 'cron' }))
    const queued = { key: 'k', requestId: 'r-1', channelId: 'tg-4', lane: 'cron', whenBusy: 'coalesce', state: 'queued', position: 1 }
    const holder = { pid: process.pid, host: expect.any(String), verdict: 'alive', why: expect.any(String) }
    expect(b.list()).toEqual([
      { ...queued, sessionId: undefined, turn: undefined, since: expect.any(Number), ageMs: expect.any(Number), holder },
    ])
    card.update({ state: 'active', sessionId: 's-1', turn: 7 })
    const active = { ...queued, state: 'active', position: 0, sessionId: 's-1', turn: 7 }
    expect(b.list('k')).toMatchObject([active])
    card.update({ turn: 8 })
    expect(b.list('k')).toMatchObject([{ ...active, turn: 8 }])
    expect(queues.names()).toHaveLength(1)
    card.remove()
    expect(b.list()).toEqual([])
    expect(queues.left()).toEqual([])
  })

  test('counts its age from its last change of state', () => {
    const queues = new Queues()
    let nowMs = 1_800_000_000_000
    const { clock } = shiftedClock()
    const board = queues.board({ clock: { ...clock, wallMs: () => nowMs } })
    const card = board.draw(facts('r-1'))
    nowMs += 5_000
    expect(board.list()).toMatchObject([{ since: 1_800_000_000_000, ageMs: 5_000 }])
    card.update({ state: 'active' })
    nowMs += 300
    card.update({ turn: 1 })
    expect(board.list()).toMatchObject([{ since: 1_800_000_005_000, ageMs: 300 }])
    nowMs -= 3_600_000
    expect(board.list()).toMatchObject([{ ageMs: 0 }])
  })

  test('is never seen half-written, nor twice, nor not at all, while it changes its state', () => {
    const queues = new Queues()
    const watcher = queues.board()
    const seen: string[] = []
    const look = () =>
      seen.push(
        watcher
          .list('k')
          .map(({ state, turn }) => `${state} ${turn}`)
          .join(),
      )
    const disk = { ...nodeDisk }
    for (const call of ['open', 'write', 'close', 'rename', 'unlink'] as const)
      Object.assign(disk, {
        [call]: (...args: never[]) => {
          look()
          try {
            return (nodeDisk[call] as (...all: never[]) => unknown)(...args)
          } finally {
            look()
          }
        },
      })
    const card = queues.board({ disk }).draw(facts('r-1', { turn: 0 }))
    card.update({ state: 'active', turn: 1 })
    card.remove()
    expect([...new Set(seen)]).toEqual(['', 'queued 0', 'active 1'])
  })

  test('of any key has a place in the line of its key, and keys never become paths', () => {
    const queues = new Queues()
    const board = queues.board()
    const keys = ['k', 'K', '../../etc/passwd', '..', 'a/b', '__proto__', 'ü', 'x'.repeat(512)]
    const cards = keys.map((key) => board.draw(facts('r-1', { key })))
    expect(queues.left().sort()).toEqual(keys.map((key) => `${leaseNameOf(key)}.queue`).sort())
    expect(queues.left().every((name) => /^[0-9a-f]{32}\.queue$/.test(name))).toBe(true)
    expect(
      board
        .list()
        .map(({ key }) => key)
        .sort(),
    ).toEqual([...keys].sort())
    for (const key of keys) expect(board.list(key)).toMatchObject([{ key, position: 1 }])
    for (const card of cards) card.remove()
    expect(queues.left()).toEqual([])
  })

  test('that cannot be written is not seen, and that is all', () => {
    const queues = new Queues()
    const full = () => {
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
    }
    let fails = false
    const board = queues.board({ disk: { ...nodeDisk, write: (fd, bytes) => (fails ? full() : nodeDisk.write(fd, bytes)) } })
    const seen = board.draw(facts('r-0'))
    fails = true
    const card = board.draw(facts('r-1'))
    expect(board.list()).toMatchObject([{ requestId: 'r-0' }])
    expect(board.ahead(card)).toBe(1)
    // Its state is in its name, which needs no space: it has left the line.
    seen.update({ state: 'active', turn: 1 })
    expect(board.ahead(card)).toBe(0)
    fails = false
    seen.update({ turn: 2 })
    expect(board.list()).toMatchObject([{ requestId: 'r-0', state: 'active', turn: 2 }])
    fails = true
    card.update({ state: 'active' })
    card.remove()
    seen.remove()
    expect(queues.left()).toEqual([])
  })

  test('troubles nobody where the queue cannot be read: nobody is ahead then, and it goes as it came', () => {
    const queues = new Queues()
    let fails = false
    const readdir = (name: string) => {
      if (fails) throw Object.assign(new Error('EMFILE: too many open files, scandir'), { code: 'EMFILE' })
      return nodeDisk.readdir(name)
    }
    const board = queues.board({ disk: { ...nodeDisk, readdir } })
    board.draw(facts('r-0'))
    const card = board.draw(facts('r-1'))
    fails = true
    expect([board.ahead(card), board.mayTry(card, 0)]).toEqual([0, true])
    card.update({ state: 'active' })
    card.remove()
    expect(() => board.list('k')).toThrow(/IO_FAILED/)
    fails = false
    expect(board.list('k')).toMatchObject([{ requestId: 'r-0' }])
  })

  test('leaves its queue for a while, for the next one of its key', async () => {
    const queues = new Queues()
    const [board, other] = [queues.board({}, 60), queues.board({}, 60_000)]
    board.draw(facts('r-1')).remove()
    other.draw(facts('r-1', { key: 'other' })).remove()
    expect(queues.left()).toHaveLength(2)
    await pause(30)
    const card = board.draw(facts('r-2'))
    await pause(60)
    expect(queues.names()).toHaveLength(1)
    card.remove()
    await expect.poll(() => queues.names(), { timeout: 1_000 }).toBeUndefined()
    other.close()
    expect(queues.left()).toEqual([])
    for (let at = 0; at < 100; at++) board.draw(facts('r', { key: `k${at}` })).remove()
    expect(queues.left()).toHaveLength(100)
    await expect.poll(() => queues.left(), { timeout: 2_000 }).toEqual([])
  })

  test('is put into a queue that is just being removed with its last card', () => {
    const queues = new Queues()
    const other = queues.board()
    let last = other.draw(facts('r-0'))
    let races = 3
    const disk = {
      ...nodeDisk,
      open(name: string, flags: 'create') {
        if (races-- > 0) last.remove()
        return nodeDisk.open(name, flags)
      },
      mkdir(name: string) {
        nodeDisk.mkdir(name)
        if (races > 0) fs.rmdirSync(name)
        last = other.draw(facts('r-0'))
      },
    }
    queues.board({ disk: disk as typeof nodeDisk }).draw(facts('r-1'))
    expect(other.list('k').map(({ requestId }) => requestId)).toContain('r-1')
  })
})

describe('the line', () => {
  test('is that of drawing, over all processes; the active one stands before it', () => {
    const queues = new Queues()
    const boards = [queues.board(), queues.board(stranger), queues.board()]
    const cards = Array.from({ length: 9 }, (_, at) => boards[at % 3]!.draw(facts(`r-${at}`)))
    expect(cards.map((card) => boards[0]!.ahead(card))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
    cards[4]!.update({ state: 'active' })
    cards[1]!.remove()
    expect(boards[1]!.list('k').map(({ requestId, state, position }) => `${requestId} ${state} ${position}`)).toEqual([
      'r-4 active 0',
      ...['r-0', 'r-2', 'r-3', 'r-5', 'r-6', 'r-7', 'r-8'].map((id, at) => `${id} queued ${at + 1}`),
    ])
    expect(boards[2]!.ahead(cards[8]!)).toBe(6)
  })

  test('has no place for the dead: their cards are removed when somebody behind them looks', () => {
    // F6
    const queues = new Queues()
    const board = queues.board()
    queues.board(dead).draw(facts('r-0'))
    queues.board(dead).draw(facts('r-1'))
    const card = board.draw(facts('r-2'))
    expect(board.list('k')).toMatchObject([{ requestId: 'r-2', position: 1 }])
    expect(queues.names()).toHaveLength(3) // A list only looks.
    expect(board.ahead(card)).toBe(0)
    expect(queues.names()).toHaveLength(1)
  })

  test('keeps the place of those who cannot be asked whether they live', () => {
    // F7
    const queues = new Queues()
    const elsewhere = queues.board({ identity: identityWith({ pidNamespace: '17', pid: deadPid }) })
    elsewhere.draw(facts('r-0'))
    const { clock, pass } = shiftedClock()
    const board = queues.board({ clock })
    const card = board.draw(facts('r-1'))
    pass(700_000_000)
    expect(board.ahead(card)).toBe(1)
    expect(board.list('k')).toMatchObject([{ holder: { verdict: 'unknown' } }, { holder: { verdict: 'alive' } }])
  })

  test('lets the oldest try at once, and those behind after a moment for each process before them: nobody is blocked by one who sleeps', () => {
    const queues = new Queues()
    const [a, b] = [queues.board(), queues.board(stranger)]
    const asleep = Array.from({ length: 5 }, (_, at) => b.draw(facts(`r-${at}`)))
    const card = a.draw(facts('r-5'))
    const last = queues.board({ identity: identityWith({ pid: 1, startTime: '0' }) }).draw(facts('r-6'))
    expect(b.mayTry(asleep[0]!, 0)).toBe(true)
    expect([0, 49, 50, 51].map((freeForMs) => a.mayTry(card, freeForMs))).toEqual([false, false, false, true])
    expect([51, 100, 101].map((freeForMs) => a.mayTry(last, freeForMs))).toEqual([false, false, true])
    for (const each of asleep) each.remove()
    expect(a.mayTry(card, 0)).toBe(true)
  })

  test('with a thousand in it is looked at in milliseconds', () => {
    const queues = new Queues()
    const board = queues.board()
    const cards = Array.from({ length: 1_000 }, (_, at) => board.draw(facts(`r-${at}`)))
    const startedMs = performance.now()
    expect(board.ahead(cards[999]!)).toBe(999)
    expect(performance.now() - startedMs).toBeLessThan(100)
  })
})

describe('a request', () => {
  test('is found in whatever process it waits or runs, the active one first', () => {
    const queues = new Queues()
    const [a, b] = [queues.board(), queues.board(stranger)]
    expect(a.find('k', 'r-1')).toBeUndefined()
    b.draw(facts('r-1'))
    const second = b.draw(facts('r-1'))
    b.draw(facts('r-2'))
    expect(a.find('k', 'r-1')).toMatchObject({ requestId: 'r-1', state: 'queued', position: 1, holder: { pid: process.ppid } })
    second.update({ state: 'active', turn: 3 })
    expect(a.find('k', 'r-1')).toMatchObject({ state: 'active', turn: 3 })
    expect(a.find('k', 'r-3')).toBeUndefined()
    expect(a.find('other', 'r-1')).toBeUndefined()
  })

  test('of a dead process is not found; its turn is listed as interrupted until the next one begins', () => {
    const queues = new Queues()
    const [gone, board] = [queues.board(dead), queues.board()]
    gone.draw(facts('r-1')).update({ state: 'active', sessionId: 's', turn: 4 })
    expect(board.find('k', 'r-1')).toBeUndefined()
    const interrupted = { requestId: 'r-1', state: 'interrupted', turn: 4, position: undefined, holder: { pid: deadPid, verdict: 'dead' } }
    expect(board.list()).toMatchObject([interrupted])
    const card = board.draw(facts('r-2'))
    expect(board.ahead(card)).toBe(0)
    expect(board.list('k')).toMatchObject([{ requestId: 'r-2', position: 1 }, interrupted])
    card.update({ state: 'active', turn: 5 })
    expect(board.list('k')).toMatchObject([{ requestId: 'r-2', state: 'active' }])
    card.remove()
    expect(queues.left()).toEqual([])
  })
})

describe('an interruption', () => {
  test('is asked of the active turn, whoever has it, and of none that waits or comes later', () => {
    const queues = new Queues()
    const [a, b] = [queues.board(), queues.board(stranger)]
    expect(b.requestInterrupt('k', 'somebody')).toBe(false)
    const [first, second] = [a.draw(facts('r-1')), a.draw(facts('r-2'))]
    expect(b.requestInterrupt('k', 'somebody')).toBe(false)
    first.update({ state: 'active', turn: 1 })
    expect(first.interruption()).toBeUndefined()
    expect(b.requestInterrupt('k', 'pid 17, request r-9')).toBe(true)
    expect(first.interruption()).toEqual({ by: 'pid 17, request r-9', since: expect.any(Number) })
    expect(second.interruption()).toBeUndefined()
    first.update({ turn: 1 })
    expect(first.interruption()).toBeDefined()
    first.remove()
    second.update({ state: 'active', turn: 2 })
    expect(second.interruption()).toBeUndefined()
    second.remove()
    expect(queues.left()).toEqual([])
  })

  test('of a turn that ends in that very moment leaves nothing behind', () => {
    const queues = new Queues()
    const card = queues.board().draw(facts('r-1'))
    card.update({ state: 'active' })
    const disk = {
      ...nodeDisk,
      rename(from: string, to: string) {
        if (path.basename(to).startsWith('interrupt.')) card.remove()
        nodeDisk.rename(from, to)
      },
    }
    expect(queues.board({ disk }).requestInterrupt('k', 'somebody')).toBe(false)
    expect(queues.left()).toEqual([])
  })

  test('is not asked of the dead', () => {
    const queues = new Queues()
    queues.board(dead).draw(facts('r-1')).update({ state: 'active' })
    expect(queues.board().requestInterrupt('k', 'somebody')).toBe(false)
  })
})

describe('watching', () => {
  test('calls back soon after something has changed, and after the watch has been called off not any more', async () => {
    const queues = new Queues()
    const [a, b] = [queues.board(), queues.board()]
    a.draw(facts('r-0'))
    let calls = 0
    const stop = a.watch('k', () => calls++, 60_000)
    await pause(20)
    const before = calls
    b.draw(facts('r-1'))
    await expect.poll(() => calls, { timeout: 1_000, interval: 1 }).toBeGreaterThan(before)
    stop()
    const after = calls
    b.draw(facts('r-2'))
    await pause(50)
    expect(calls).toBe(after)
  })

  test('a card tells its owner when it is next, and the active one when it is asked to stop; the others sleep on', async () => {
    const queues = new Queues()
    const board = queues.board()
    const cards = [0, 1, 2].map((at) => board.draw(facts(`r-${at}`)))
    cards[0]!.update({ state: 'active' })
    const calls = [0, 0, 0]
    const stops = cards.map((card, at) => board.watchCard(card, () => calls[at]!++, 60_000))
    const told = (at: number) => expect.poll(() => calls[at], { timeout: 1_000, interval: 1 }).toBeGreaterThan(0)
    await pause(20)
    expect(calls).toEqual([0, 0, 0])
    board.draw(facts('r-3')).remove()
    queues.board(stranger).requestInterrupt('k', 'somebody')
    await told(0)
    expect(calls.slice(1)).toEqual([0, 0])
    cards[0]!.remove()
    await told(1)
    expect(calls[2]).toBe(0)
    expect(board.list('k').map(({ requestId }) => requestId)).toEqual(['r-1', 'r-2'])
    for (const stop of stops) stop()
  })

  test('calls back also where the system gives no hints, and where there is no queue yet', async () => {
    const queues = new Queues()
    let calls = 0
    const stop = queues.board({ watch: () => () => {} }).watch('k', () => calls++)
    await pause(180)
    stop()
    expect(calls).toBeGreaterThanOrEqual(2)
    expect(calls).toBeLessThanOrEqual(4)
    const after = calls
    await pause(120)
    expect(calls).toBe(after)
  })
})

describe('sweeping', () => {
  test('removes the cards of the dead, marks without a card, and what was never finished; nothing of the living', () => {
    // F4
    const queues = new Queues()
    const [gone, board] = [queues.board(dead), queues.board()]
    const living = board.draw(facts('r-1'))
    living.update({ state: 'active' })
    board.requestInterrupt('k', 'somebody')
    gone.draw(facts('r-2')).update({ state: 'active' })
    gone.draw(facts('r-3', { key: 'other' }))
    fs.mkdirSync(queues.queue('empty'))
    fs.writeFileSync(path.join(queues.queue(), `interrupt.${'0'.repeat(20)}`), '{}')
    const killed = () => {
      throw new Error('killed')
    }
    for (const changes of [dead, {}])
      expect(() => queues.board({ ...changes, disk: { ...nodeDisk, rename: killed } }).requestInterrupt('k', 'somebody')).toThrow()
    expect(queues.names()).toHaveLength(6)
    board.sweep()
    expect(queues.left()).toEqual([path.basename(queues.queue())])
    expect(queues.names()).toHaveLength(3)
    expect(living.interruption()).toBeDefined()
    expect(board.list()).toMatchObject([{ requestId: 'r-1', state: 'active' }])
  })

  test('and listing do not mind files that are none of theirs, nor one that is no card inside', () => {
    const queues = new Queues()
    const board = queues.board()
    board.sweep()
    const card = board.draw(facts('r-1'))
    fs.writeFileSync(path.join(queues.queue(), 'notes.txt'), 'mine')
    fs.mkdirSync(path.join(queues.path, 'something else'))
    const [name] = queues.names()!.filter((each) => each.startsWith('held.'))
    for (const text of ['', '{', '[]', '{"state":"queued","key":7}', 'null', '\0\0\n\n']) {
      fs.writeFileSync(path.join(queues.queue(), name!), text)
      expect(board.list()).toEqual([])
      board.sweep()
    }
    expect(queues.names()).toHaveLength(2)
    card.remove()
    expect(queues.names()).toEqual(['notes.txt'])
  })
})

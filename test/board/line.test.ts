/** Standing in line for a lease, within one process and among many that are killed and frozen: in order, bounded, woken soon, never stuck. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemHost } from '../../src/file/host.js'
import type { LeaseOptions } from '../../src/file/lock/lease.js'
import { Board, leaseNameOf } from '../../src/file/turns/board.js'
import { leaseInTurn } from '../../src/file/turns/waiting.js'
import { Wanting } from '../lock/lease-holders.js'
import { compiled, freshDirectory, freshSeed, longer } from '../processes/trials.js'
import { seededRandom } from '../simulation/seeded-random.js'
import type { TurnTimes } from './line-program.js'
import { facts, Queues } from './queues.js'

const wanted: LeaseOptions = { maxHoldMs: 60_000, does: 'turn', onLost: () => {} }

function inLine(queues: Queues) {
  const { host, leases } = new Wanting(queues.path, {})
  const board = queues.board()
  return {
    board,
    leases,
    draw: (requestId: string) => board.draw(facts(requestId)),
    wait: (card: ReturnType<typeof board.draw>, waitMs = 10_000, signal?: AbortSignal) =>
      leaseInTurn({ clock: host.clock, board, leases }, card, wanted, { waitMs, signal }),
  }
}

describe('who waits', () => {
  test('gets it in the order of the cards, one after the other', async () => {
    const queues = new Queues()
    const order: number[] = []
    await Promise.all(
      Array.from({ length: 6 }, async (_, at) => {
        const { draw, wait } = inLine(queues)
        const card = draw(`r-${at}`)
        const { lease } = await wait(card)
        card.update({ state: 'active' })
        order.push(at)
        await pause(5)
        await lease.release()
        card.remove()
      }),
    )
    expect(order).toEqual([0, 1, 2, 3, 4, 5])
    expect(queues.left()).toEqual(['.floor'])
  })

  test('and is aborted is told the reason as it is, and does not get it later', async () => {
    // F41
    const queues = new Queues()
    const [a, b] = [inLine(queues), inLine(queues)]
    const held = await a.wait(a.draw('r-1'))
    const stop = new AbortController()
    const card = b.draw('r-2')
    const aborted = b.wait(card, 10_000, stop.signal)
    await pause(20)
    stop.abort('enough')
    await expect(aborted).rejects.toBe('enough')
    await held.lease.release()
    await pause(80)
    expect(b.leases.look(leaseNameOf('k'))).toBe('free')
    await expect(b.wait(card, 10_000, AbortSignal.abort('before'))).rejects.toBe('before')
  })

  test('and is aborted while it is getting the lease gives it back', async () => {
    // F41
    const { leases, draw, wait } = inLine(new Queues())
    const stop = new AbortController()
    const aborted = wait(draw('r-1'), 10_000, stop.signal)
    stop.abort('in the last moment')
    await expect(aborted).rejects.toBe('in the last moment')
    expect(leases.look(leaseNameOf('k'))).toBe('free')
  })

  test('behind one that does not come leaves it a moment, then goes', async () => {
    const { draw, wait } = inLine(new Queues())
    draw('r-1')
    const startedMs = performance.now()
    const { lease } = await wait(draw('r-2'))
    expect(performance.now() - startedMs).toBeGreaterThan(45)
    expect(performance.now() - startedMs).toBeLessThan(300)
    await lease.release()
  })

  test('too long is told who has it, since when it has not moved, and what to do', async () => {
    // F10, F40
    const queues = new Queues()
    const [a, b] = [inLine(queues), inLine(queues)]
    const held = await a.wait(a.draw('r-1'))
    b.draw('r-2')
    for (const waitMs of [120, 0]) {
      const startedMs = performance.now()
      const error = await b.wait(b.draw('r-3'), waitMs).catch((reason: unknown) => reason)
      expect(performance.now() - startedMs).toBeLessThan(waitMs + 80)
      expect(error).toMatchObject({ code: 'TURN_BUSY', kind: 'busy', effect: 'none', retryable: true })
      const holder = { pid: process.pid, verdict: 'alive', token: held.lease.token }
      expect(error).toMatchObject({ details: { key: 'k', waitMs, holder, retryAfterMs: expect.any(Number) } })
      for (const said of [`waited ${waitMs} ms`, '"k"', `pid ${process.pid}`, 'alive', 'Try again']) expect(String(error)).toContain(said)
    }
    await held.lease.release()
    // With a wait of 0 it is taken although others wait: now or not at all.
    const { lease } = await b.wait(b.draw('r-4'), 0)
    await lease.release()
  })
})

function expectNothingLeft(dir: string): void {
  const board = new Board(systemHost(), dir)
  board.sweep()
  new Wanting(dir).leases.sweep()
  expect(fs.readdirSync(dir)).toEqual(['.floor'])
  expect(board.list()).toEqual([])
}

describe('eight processes in one line', () => {
  interface Run {
    readonly dir: string
    readonly turns: readonly TurnTimes[]
  }

  async function run(
    seconds: number,
    maxHoldMs: number,
    fault?: (child: ChildProcess, replace: () => void, random: () => number) => void,
  ): Promise<Run> {
    const seed = freshSeed()
    const random = seededRandom(Number.parseInt(seed, 16))
    const dir = freshDirectory()
    const turns: TurnTimes[] = []
    const start = () => {
      const child = fork(fileURLToPath(new URL('test/board/line-program.js', compiled)), [dir, String(maxHoldMs)], { execArgv: [] })
      child.on('message', (message) => turns.push(message as TurnTimes))
      onTestFinished(() => void child.kill('SIGKILL'))
      return child
    }
    const children = Array.from({ length: 8 }, start)
    // Starting eight processes may take longer than all that follows.
    await expect.poll(() => new Set(turns.map(({ pid }) => pid)).size, { timeout: 20_000 }).toBe(8)
    turns.length = 0
    const startedMs = performance.now()
    const goesOn = () => {
      const passedMs = performance.now() - startedMs
      return passedMs < seconds * 1_000 || (passedMs < seconds * 4_000 && turns.length < 150)
    }
    while (goesOn()) {
      await pause(100)
      const at = Math.floor(random() * children.length)
      const replace = () => {
        children[at] = start()
      }
      fault?.(children[at]!, replace, random)
    }
    await pause(300)
    const ended = children.map((child) => once(child, 'exit'))
    for (const child of children) child.disconnect()
    expect(await Promise.all(ended)).toEqual(children.map(() => [0, null]))
    turns.sort((a, b) => a.begunMs - b.begunMs)
    console.log(`seed ${seed}: ${turns.length} turns`)
    return { dir, turns }
  }

  const quantile = (values: readonly number[], at: number) => [...values].sort((a, b) => a - b)[Math.floor(values.length * at)]!

  test('have their turns fairly, and are woken soon after a release', async () => {
    // F48
    const { dir, turns } = await run(3 * longer, 60_000)
    const handOvers = turns.slice(1).flatMap((turn, at) => (turn.drawnMs < turns[at]!.endedMs ? [turn.begunMs - turns[at]!.endedMs] : []))
    console.log(
      `hand-over of ${handOvers.length}: p50 ${quantile(handOvers, 0.5).toFixed(1)} ms, p99 ${quantile(handOvers, 0.99).toFixed(1)} ms`,
    )
    expect(turns.length).toBeGreaterThan(100)
    expect(quantile(handOvers, 0.5)).toBeLessThan(25)
    expect(Math.min(...handOvers)).toBeGreaterThan(0)
    const pids = new Set(turns.map(({ pid }) => pid))
    const counts = [...pids].map((pid) => turns.filter((turn) => turn.pid === pid).length)
    expect(counts).toHaveLength(8)
    expect(Math.min(...counts)).toBeGreaterThan(Math.max(...counts) / 3)
    expect(turns.map(({ token }) => token)).toEqual([...new Set(turns.map(({ token }) => token))].sort((a, b) => a - b))
    // They have ended at once, and left their locks to whoever comes later.
    expectNothingLeft(dir)
  })

  test('go on although some are killed and some are frozen, waiting or active; what the dead have left can be swept up', async () => {
    // F6, F34
    let faults = 0
    const { dir, turns } = await run(5 * longer, 150, (child, replace, random) => {
      faults++
      if (random() < 0.4) {
        child.kill('SIGKILL')
        replace()
      } else {
        child.kill('SIGSTOP')
        void pause(100 + random() * 300).then(() => child.kill('SIGCONT'))
      }
    })
    expect(faults).toBeGreaterThan(20)
    expect(turns.length).toBeGreaterThan(50)
    const gapsMs = turns.slice(1).map((turn, at) => turn.begunMs - turns[at]!.begunMs)
    console.log(`${faults} faults; longest pause between two turns ${Math.max(...gapsMs).toFixed(0)} ms`)
    expect(Math.max(...gapsMs)).toBeLessThan(3_000)
    expectNothingLeft(dir)
  })
})

/** Eight processes back up into one directory, forget and prune, and are killed and frozen at any moment. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createRepository, openRepository } from '../../../src/backup/repository/open.js'
import { contentsOf, digested, objectsIn, temporaryDirectory, transcript } from './depot.js'

const program = join(import.meta.dirname, '../../../.build/test/backup/repository/backing-up-program.js')

interface Said {
  readonly committed?: string
  readonly seed?: number
  readonly round?: number
  readonly givenUp?: number
  readonly packsRemoved?: number
  readonly refused?: true
}

test('of eight processes that back up, prune, are killed and frozen, every snapshot that was acknowledged is whole or was forgotten', async () => {
  const place = temporaryDirectory()
  const seed = Date.now() % 100_000
  const [leastMs, mostMs] = process.env.HOLDFAST_SOAK ? [60_000, 80_000] : [2_500, 12_000]
  await (await createRepository(place, { packBytes: 15_000 })).repository.close()
  const acknowledged = new Map<string, Said>()
  const totals = { killed: 0, frozen: 0, givenUp: 0, packsRemoved: 0, refused: 0 }
  const failures: string[] = []
  let ends = false
  const start = (who: number): ChildProcess => {
    const child = fork(program, [place, String(who)], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    child.stderr!.on('data', (text) => failures.push(String(text)))
    child.on('message', (said: Said) => {
      if (said.committed) acknowledged.set(said.committed, said)
      totals.givenUp += said.givenUp ?? 0
      totals.packsRemoved += said.packsRemoved ?? 0
      totals.refused += said.refused ? 1 : 0
    })
    child.on('exit', () => {
      if (!ends) children[who % 8] = start(who + 8)
    })
    return child
  }
  const children: ChildProcess[] = []
  for (let who = 0; who < 8; who++) children.push(start(who))
  let state = seed
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  const beganMs = performance.now()
  const hasHappened = () => totals.killed >= 3 && totals.frozen >= 3 && acknowledged.size >= 10
  for (;;) {
    const ranMs = performance.now() - beganMs
    if (ranMs > mostMs || (ranMs > leastMs && hasHappened())) break
    await new Promise((resolve) => setTimeout(resolve, 100 + random() * 200))
    const child = children[Math.floor(random() * 8)]!
    if (random() < 0.35) {
      totals.killed += child.kill('SIGKILL') ? 1 : 0
    } else if (child.kill('SIGSTOP')) {
      totals.frozen++
      setTimeout(() => child.kill('SIGCONT'), 200 + random() * 600)
    }
  }
  ends = true
  await Promise.all(
    children.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    }),
  )
  expect(failures, `seed ${seed}`).toEqual([])
  const repository = await openRepository(place)
  const snapshots = await repository.snapshots()
  const report = await repository.check({ deep: true })
  expect(
    report.snapshots.filter(({ ok }) => !ok),
    `seed ${seed}`,
  ).toEqual([])
  for (const { id } of snapshots) {
    const said = acknowledged.get(id)
    if (!said) continue // Killed between the commit and the word of it.
    const expected = { shared: transcript(60_000, 1 + (said.round! % 3)), own: transcript(30_000, said.seed! + 1) }
    expect(await contentsOf(repository, id), `seed ${seed}`).toEqual(digested(expected))
  }
  // The newest twelve are never forgotten, whoever forgets.
  const newest = [...acknowledged.keys()].sort().slice(-12)
  expect(
    newest.filter((id) => !snapshots.some((it) => it.id === id)),
    `seed ${seed}`,
  ).toEqual([])
  await new Promise((resolve) => setTimeout(resolve, 20))
  await repository.prune({ staleMs: 1, repackBelow: 1 })
  await repository.prune({ staleMs: 1, repackBelow: 1 })
  expect(await repository.check({ deep: true })).toMatchObject({ ok: true, unusedBytes: 0 })
  expect(objectsIn(place).filter((name) => /^(running|condemned)/.test(name))).toEqual([])
  expect(hasHappened(), JSON.stringify({ ...totals, acknowledged: acknowledged.size })).toBe(true)
  if (process.env.HOLDFAST_SOAK) console.log(seed, totals, acknowledged.size)
  await repository.close()
  fs.rmSync(place, { recursive: true, force: true })
})

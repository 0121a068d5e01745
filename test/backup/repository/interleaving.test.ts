/** Backups and prunes of several machines, every call to the target at a moment that a lot decides: no complete snapshot ever lacks a
 *  chunk, whoever is overtaken, given up, or stands still anywhere. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { plainKeyring } from '../../../src/backup/encryption/keyring.js'
import { ObjectRepository } from '../../../src/backup/repository/object-repository.js'
import type { FileRow, Repository } from '../../../src/backup/repository/repository.js'
import { isStoreError } from '../../../src/errors.js'
import { factsOf, piecesOf, plainFacts } from './depot.js'
import { type Before, MemoryTarget, type Shared } from './memory-target.js'

function lot(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

interface World {
  readonly shared: Shared
  readonly events: Record<string, number>
  open(who: string): Repository
  /** Runs all of them to their ends. */
  run(actors: readonly Promise<void>[]): Promise<void>
}

function makeWorld(seed: number): World {
  const random = lot(seed)
  const shared: Shared = { objects: new Map(), nowMs: 0 }
  const events: Record<string, number> = {}
  const waiting: { readonly go: () => void; readonly call: string; readonly name: string; patience: number }[] = []
  const before: Before = (call, name) =>
    new Promise((go) => {
      // Some stand still for a long time: frozen just before this call; most often where it is worst.
      const isWorst = (call === 'put' && name.startsWith('snapshots/')) || (call === 'delete' && name.startsWith('packs/'))
      const isFrozen = random() < (isWorst ? 0.3 : 0.03)
      waiting.push({ go, call, name, patience: isFrozen ? 40 + random() * 1_000 : random() * 12 })
    })
  const vaultOver = (target: MemoryTarget) => ({ repositoryId: 'r', target, keyring: plainKeyring(), packBytes: 3_000 })
  const onlooker = new ObjectRepository(vaultOver(new MemoryTarget(shared)))
  const assertWhole = async (after: string) => {
    const { snapshots } = await onlooker.check()
    const broken = snapshots.filter(({ ok }) => !ok)
    expect(broken, `seed ${seed}, after ${after}, step ${shared.nowMs}`).toEqual([])
  }
  return {
    shared,
    events,
    open: (who) => new ObjectRepository(vaultOver(new MemoryTarget(shared, who, before))),
    async run(actors) {
      let ended = false
      const all = Promise.all(actors).finally(() => {
        ended = true
      })
      all.catch(() => {})
      while (!ended) {
        await nextTurn()
        shared.nowMs++
        for (const it of waiting) it.patience--
        const ready = waiting.filter(({ patience }) => patience <= 0)
        const chosen = ready[Math.floor(random() * ready.length)]
        if (!chosen) continue
        waiting.splice(waiting.indexOf(chosen), 1)
        chosen.go()
        const isMoment =
          (chosen.call === 'delete' && chosen.name.startsWith('packs/')) || (chosen.call === 'put' && chosen.name.startsWith('snapshots/'))
        events[chosen.call] = (events[chosen.call] ?? 0) + 1
        if (!isMoment) continue
        await nextTurn()
        await assertWhole(`${chosen.call} ${chosen.name}`)
      }
      await all
    },
  }
}

/** Few contents, over and over: what one backup stores, another finds there, and what was forgotten comes back. */
const contents = Array.from({ length: 10 }, (_, number) => Buffer.from(`content ${number} `.repeat(40 + number)))

async function backups(repository: Repository, rounds: number, random: () => number, events: Record<string, number>): Promise<void> {
  let earlier: readonly FileRow[] = []
  for (let round = 0; round < rounds; round++) {
    try {
      const writer = await repository.begin({ storeId: 's', host: 'h' })
      const rows: FileRow[] = []
      for (let number = 0; number < 4; number++) {
        const pick = contents[Math.floor(random() * contents.length)]!
        const path = `file${number}`
        const row = earlier.find((it) => it.path === path)
        const isKept = row && random() < 0.5
        const previous = isKept ? { row, keepBytes: row.bytes, whole: true } : undefined
        const bytes = isKept ? contents.find((it) => it.length === row.bytes)! : pick
        rows.push((await writer.file(factsOf(path), piecesOf(bytes), previous)).row)
      }
      if (random() < 0.15) await writer.abandon()
      else await writer.commit(plainFacts)
      earlier = rows
      events.committed = (events.committed ?? 0) + 1
    } catch (error) {
      if (!isStoreError(error, 'LOCK_LOST')) throw error
      events.refused = (events.refused ?? 0) + 1
    }
  }
}

async function prunes(repository: Repository, rounds: number, staleMs: number, events: Record<string, number>): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    await repository.forget({ keepLast: 2 })
    const report = await repository.prune({ staleMs, repackBelow: 0.7 })
    for (const name of ['packsRemoved', 'packsRepacked', 'packsWaiting'] as const) events[name] = (events[name] ?? 0) + report[name]
    events.givenUp = (events.givenUp ?? 0) + report.givenUp.length
  }
}

const seeds = process.env.HOLDFAST_SEED ? [Number(process.env.HOLDFAST_SEED)] : [Date.now() % 1_000_000]
if (process.env.HOLDFAST_SOAK) for (let more = 1; more < 40; more++) seeds.push(seeds[0]! + more)

test.each(seeds)('no interleaving of three backups and two prunes leaves a snapshot without its chunks (seed %i)', async (seed) => {
  const totals: Record<string, number> = {}
  for (let world = 0; world < 8; world++) {
    const random = lot(seed * 1_000 + world)
    const { events, open, run, shared } = makeWorld(seed * 1_000 + world)
    // From "nobody is ever given up" to "everybody is, all the time".
    const staleMs = [20, 200, 2_000, 1_000_000][world % 4]!
    await run([
      ...['a', 'b', 'c'].map((who) => backups(open(who), 4, random, events)),
      ...['x', 'y'].map((who) => prunes(open(who), 4, staleMs, events)),
    ])
    const last = new ObjectRepository({
      repositoryId: 'r',
      target: new MemoryTarget(shared),
      keyring: plainKeyring(),
      packBytes: 3_000,
    })
    shared.nowMs += 2_000_000
    // With everybody gone, two prunes leave nothing over: no mark, no sign, nothing that no snapshot needs.
    await last.prune({ repackBelow: 1, staleMs: 1 })
    await last.prune({ repackBelow: 1, staleMs: 1 })
    const { ok, snapshots, unusedBytes } = await last.check({ deep: true })
    expect({ ok, unusedBytes, seed, world }).toEqual({ ok: true, unusedBytes: 0, seed, world })
    expect([...shared.objects.keys()].filter((name) => /^(running|condemned)/.test(name))).toEqual([])
    for (const { info } of snapshots)
      for (const row of (await last.manifest(info!.id)).files) {
        const parts: Buffer[] = []
        for await (const part of last.read(row)) parts.push(part)
        expect(contents.some((it) => it.equals(Buffer.concat(parts)))).toBe(true)
      }
    for (const [name, value] of Object.entries(events)) totals[name] = (totals[name] ?? 0) + value
  }
  // It has happened what it is about.
  expect(Object.keys(totals).filter((name) => totals[name]! > 0)).toEqual(
    expect.arrayContaining(['committed', 'givenUp', 'packsRemoved', 'packsRepacked']),
  )
  if (process.env.HOLDFAST_SOAK) console.log(seed, totals)
})

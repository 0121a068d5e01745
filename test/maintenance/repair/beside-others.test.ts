/** A repair beside others (P1, P3, P8): who appends meanwhile loses nothing; who takes the lock away, or was frozen in the middle of a write,
 *  does no harm; what changed since the plan was made is refused. */
import { spawnSync } from 'node:child_process'
import { appendFileSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openFileBackend } from '../../../src/file/backend.js'
import { encodeBatch } from '../../../src/file/batch.js'
import { nodeDisk } from '../../../src/file/durable.js'
import { systemHost } from '../../../src/file/host.js'
import { bootTag } from '../../../src/file/log/chain.js'
import { LogFile } from '../../../src/file/log/log-file.js'
import { newCounters } from '../../../src/file/stats.js'
import type { RepairPlan } from '../../../src/repair-plan.js'
import { SessionStore } from '../../../src/store.js'
import { careOf } from '../../backend/care.js'
import { bin } from '../../cli/run.js'
import { encoded, storeOptions } from '../../simulation/store-on-disk.js'
import { damagedKey as key, linesOf, type Made, templateStore, writeLines } from './damaged-store.js'

/** More than is read from the end to append. */
const fresh = templateStore(200, '.'.repeat(1_000))
const options = { durability: 'process' } as const

/** Far before the end: whoever opens it to append does not see it. */
function breakLine(made: Made, line = 5): void {
  const lines = linesOf(made.path)
  const copy = Buffer.from(lines[line]!)
  copy[copy.indexOf('text')]! ^= 1
  lines[line] = copy
  writeLines(made.path, lines)
}

async function opened(made: Made): Promise<SessionStore> {
  const store = await SessionStore.open(made.dir, options)
  onTestFinished(() => store.close())
  return store
}

async function seqsIn(store: SessionStore): Promise<number[]> {
  const seqs: number[] = []
  for await (const { seq } of store.session(key).read()) seqs.push(seq)
  return seqs
}

describe('beside writers', () => {
  test('what is appended between plan and repair, and while it goes on, is in the new log; every append is acknowledged once', async () => {
    const made = fresh()
    breakLine(made)
    const [writer, mender] = [await opened(made), await opened(made)]
    const acknowledged: number[] = []
    let stop = false
    const writing = (async () => {
      while (!stop) acknowledged.push((await writer.session(key).append({ late: acknowledged.length })).seq)
    })()
    const plan = await mender.planRepair()
    const report = await mender.repair(plan)
    stop = true
    await writing
    expect(report.actions).toMatchObject([{ outcome: 'done' }])
    expect(acknowledged.length).toBeGreaterThan(2)
    const seqs = await seqsIn(mender)
    expect(seqs).toEqual([...new Set(seqs)])
    for (const seq of acknowledged) expect(seqs).toContain(seq)
    expect(seqs).toHaveLength(199 + acknowledged.length)
    expect((await mender.verify()).damage).toEqual([])
  })

  test('a writer that is frozen between its look and its write finds that it came too late, and writes to the new log', async () => {
    const made = fresh()
    breakLine(made)
    let repaired = false
    // The whole of a repair, by another process, between the look and the write. The lock was taken away, as when it has expired.
    const disk = {
      ...nodeDisk,
      write(fd: number, bytes: Uint8Array) {
        if (!repaired && Buffer.from(bytes).includes('"frozen"')) {
          repaired = true
          stealLocks(made)
          const { status, stdout } = spawnSync(process.execPath, [bin, 'repair', '--apply', '--store', made.dir], { encoding: 'utf8' })
          expect({ status, stdout }).toMatchObject({ status: 0, stdout: expect.stringContaining('1 of 1 action done') })
        }
        return nodeDisk.write(fd, bytes)
      },
    }
    const backend = await openFileBackend(made.dir, { ...storeOptions, durability: 'process' }, { ...systemHost(), disk })
    onTestFinished(() => backend.close())
    const { seq } = await backend.append(key, encoded('frozen'), {})
    expect(repaired).toBe(true)
    const store = await opened(made)
    expect((await store.verify()).damage).toEqual([])
    expect((await store.session(key).tail(1))[0]).toMatchObject({ seq, record: { name: 'frozen' } })
    expect(await seqsIn(store)).toHaveLength(200)
  })

  test('a writer that wakes in the last moment before the new log is in place is not told that its record is in', async () => {
    const made = fresh()
    breakLine(made)
    const host = systemHost()
    const place = { disk: nodeDisk, path: made.path, label: 'log', tag: bootTag(host.identity.boot), counters: newCounters() }
    // It has looked, and was frozen; its lock has expired.
    const looked = LogFile.open(place, 'appendExisting', 'tail')
    const batch = encodeBatch(host, looked, ['{"frozen":true}'], true)
    let landed: boolean | undefined
    const disk = {
      ...nodeDisk,
      rename(from: string, to: string) {
        if (from.endsWith('rebuilt.part')) {
          nodeDisk.write(looked.fd, batch.bytes)
          landed = looked.landed(batch)
        }
        nodeDisk.rename(from, to)
      },
    }
    const backend = await openFileBackend(made.dir, { ...storeOptions, durability: 'process' }, { ...host, disk })
    onTestFinished(() => backend.close())
    const care = careOf(backend)
    expect(await care.repair(await care.planRepair({}), {})).toMatchObject({ ok: true })
    const [last] = await backend.tail(key, 1)
    expect({ landed, isIn: last?.record.frozen === true }).toEqual({ landed: false, isIn: false })
  })

  test('a repair whose lock is taken away before it puts the file in place tries again, and nothing is lost', async () => {
    const made = fresh()
    breakLine(made)
    const before = readFileSync(made.path)
    let stolen = 0
    const disk = {
      ...nodeDisk,
      rename(from: string, to: string) {
        if (from.endsWith('rebuilt.part') && stolen++ === 0) stealLocks(made)
        nodeDisk.rename(from, to)
      },
    }
    const backend = await openFileBackend(made.dir, { ...storeOptions, durability: 'process' }, { ...systemHost(), disk })
    onTestFinished(() => backend.close())
    const care = careOf(backend)
    const report = await care.repair(await care.planRepair({}), {})
    expect(stolen).toBe(2)
    expect(report).toMatchObject({ ok: true, actions: [{ outcome: 'done' }] })
    expect((await care.verify({})).damage).toEqual([])
    // One folder for what was removed, none for the try that came to nothing.
    expect(readdirSync(join(made.dir, 'quarantine'))).toHaveLength(1)
    expect(before.length).toBeGreaterThan(0)
  })
})

describe('what is not as planned is refused, and not touched', () => {
  const refused = async (made: Made, store: SessionStore, plan: RepairPlan) => {
    const before = readFileSync(made.path)
    const { actions } = await store.repair(plan)
    expect(actions).toMatchObject([{ outcome: 'refused', error: { code: 'SEQ_CONFLICT', effect: 'none' } }])
    expect(readFileSync(made.path).equals(before)).toBe(true)
    expect(readdirSync(join(made.dir, 'quarantine'))).toEqual([])
  }

  test.each<[string, (made: Made) => void]>([
    ['another byte has changed', (made) => breakLine(made, 20)],
    ['it has become shorter', (made) => writeFileSync(made.path, readFileSync(made.path).subarray(0, -100))],
    ['something else was appended', (made) => appendFileSync(made.path, 'garbage\n')],
    ['it is gone', (made) => renameSync(made.path, `${made.path}.away`)],
  ])('%s', async (_how, change) => {
    const made = fresh()
    breakLine(made)
    const store = await opened(made)
    const plan = await store.planRepair()
    change(made)
    if (_how === 'it is gone') {
      const { actions } = await store.repair(plan)
      expect(actions).toMatchObject([{ outcome: 'refused' }])
    } else await refused(made, store, plan)
  })

  test('a plan of another store, or none at all', async () => {
    const [one, other] = [fresh(), fresh()]
    breakLine(one)
    const store = await opened(one)
    const plan = await store.planRepair()
    await expect(store.repair({ ...plan, storeId: '00000000-0000-7000-8000-000000000000' })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    await expect(store.repair({} as RepairPlan)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    const escaping = { ...plan, actions: plan.actions.map((action) => ({ ...action, file: 'transcripts/../../etc' })) }
    await expect(store.repair(escaping)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    expect(other.dir).not.toBe(one.dir)
  })

  test('a handle that only reads makes plans, and applies none', async () => {
    const made = fresh()
    breakLine(made)
    const store = await SessionStore.open(made.dir, { readOnly: true })
    onTestFinished(() => store.close())
    const plan = await store.planRepair()
    expect(plan.actions).toHaveLength(1)
    await expect(store.repair(plan)).rejects.toMatchObject({ code: 'INVALID_OPTION', effect: 'none' })
  })
})

/** As somebody does who has found the holder expired. */
function stealLocks({ dir }: Made): void {
  const locks = join(dir, 'locks', 'transcripts')
  for (const slot of readdirSync(locks)) {
    const [held] = readdirSync(join(locks, slot)).filter((name) => name.startsWith('held.'))
    if (!held) continue
    const token = Number(held.split('.')[1])
    renameSync(join(locks, slot, held), join(locks, slot, `free.${token + 1}`))
    for (const name of readdirSync(join(locks, slot, `free.${token + 1}`)))
      renameSync(join(locks, slot, `free.${token + 1}`, name), join(dir, `stolen-${name}`))
  }
}

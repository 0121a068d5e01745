/** Turns while others do nothing but maintenance. F4: what a gateway's own maintenance holds, it must not wait for. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import type { Role, Told } from './beside-maintenance-program.js'
import { compiled } from './trials.js'

const forMs = 5_000
const keys = 24
/** Of one commit, with many times the room that a busy machine needs. */
const commitMsMax = 1_500

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-maintenance-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

async function start(role: Role, name: string): Promise<ChildProcess> {
  const child = fork(fileURLToPath(new URL('test/processes/beside-maintenance-program.js', compiled)), [dir, role, name], { execArgv: [] })
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child, 'message')
  return child
}

async function stop(child: ChildProcess): Promise<Told> {
  const told = once(child, 'message')
  child.send('stop')
  return (await told)[0] as Told
}

// F4
test('maintenance of every kind all the time: no turn waits longer than a commit, none sees LOCK_TIMEOUT, nothing is lost', async () => {
  const roles: Role[] = ['turns', 'synced turns', 'turns', 'always', 'checkpoint', 'rotate', 'compact', 'care']
  // Those with conversations to prepare first.
  const turners = await Promise.all(roles.slice(0, 3).map((role, at) => start(role, String(at))))
  const others = await Promise.all(roles.slice(3).map((role, at) => start(role, String(at + 3))))
  const children = [...turners, ...others]
  await sleep(forMs)
  const told = await Promise.all(children.map(stop))

  expect(told.flatMap(({ failures }) => failures)).toEqual([])
  // Care of the store gives way where it would have to wait; nobody else is to know of it.
  expect(told.filter((_, at) => roles[at] !== 'care').map(({ lockTimeouts }) => lockTimeouts)).toEqual(roles.slice(1).map(() => 0))
  const isTurns = (at: number) => roles[at]!.endsWith('turns')
  const turns = told.filter((_, at) => isTurns(at))
  const maintenance = told.filter((_, at) => !isTurns(at))
  for (const { rounds } of [...turns, ...maintenance]) expect(rounds).toBeGreaterThan(0)
  for (const { lockWaitMsMax, stepMsMax } of turns) {
    expect(lockWaitMsMax).toBeLessThan(commitMsMax)
    expect(stepMsMax).toBeLessThan(commitMsMax)
  }
  await everythingIsThere(roles, told)
}, 60_000)

/** Each turn's input and answer, in order, and nothing else; in the archive, what a summary stands for. */
async function everythingIsThere(roles: readonly Role[], told: readonly Told[]): Promise<void> {
  const store = await SessionStore.open(dir, { readOnly: true })
  onTestFinished(() => store.close())
  const archives = await store.archives()
  expect(archives.filter(({ reason }) => reason === 'compacted').length).toBeGreaterThan(2)
  for (const [at, { rounds }] of told.entries()) {
    if (!roles[at]!.endsWith('turns')) continue
    for (let key = 0; key < keys; key++) {
      const name = `turns:${at}:${key}`
      const found = new Map<number, object>()
      for (const { archive, key: whose } of archives)
        if (whose === name) for await (const { seq, record } of store.readArchive(archive)) found.set(seq, record)
      for await (const { seq, record } of store.session(name).read()) found.set(seq, record)
      const records = [...found].sort(([one], [other]) => one - other).map(([, record]) => record)
      const own = Array.from({ length: rounds }, (_, n) => n).filter((n) => n % keys === key)
      expect(records.slice(1)).toEqual(own.flatMap((n) => [{ asked: n }, { answered: n }]))
    }
  }
  expect((await store.verify()).damage).toEqual([])
}

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

const forMs = 6_000
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
test('checkpoints all the time, rotations and deletions: no turn waits longer than a commit, none sees LOCK_TIMEOUT', async () => {
  const roles: Role[] = ['turns', 'turns', 'turns', 'always', 'checkpoint', 'checkpoint', 'rotate', 'rotate']
  const children = await Promise.all(roles.map((role, at) => start(role, String(at))))
  await sleep(forMs)
  const told = await Promise.all(children.map(stop))

  expect(told.flatMap(({ failures }) => failures)).toEqual([])
  expect(told.map(({ lockTimeouts }) => lockTimeouts)).toEqual(roles.map(() => 0))
  const turns = told.filter((_, at) => roles[at] === 'turns')
  const maintenance = told.filter((_, at) => roles[at] !== 'turns')
  for (const { rounds } of [...turns, ...maintenance]) expect(rounds).toBeGreaterThan(2)
  for (const { lockWaitMsMax, stepMsMax } of turns) {
    expect(lockWaitMsMax).toBeLessThan(commitMsMax)
    expect(stepMsMax).toBeLessThan(commitMsMax)
  }
  await everythingIsThere(roles, told)
}, 60_000)

/** Each turn's input and answer, in order, and nothing else. */
async function everythingIsThere(roles: readonly Role[], told: readonly Told[]): Promise<void> {
  const store = await SessionStore.open(dir, { readOnly: true })
  onTestFinished(() => store.close())
  for (const [at, { rounds }] of told.entries()) {
    if (roles[at] !== 'turns') continue
    for (let key = 0; key < 3; key++) {
      const found: object[] = []
      for await (const { record } of store.session(`turns:${at}:${key}`).read()) found.push(record)
      const own = Array.from({ length: rounds }, (_, n) => n).filter((n) => n % 3 === key)
      expect(found.slice(1)).toEqual(own.flatMap((n) => [{ asked: n }, { answered: n }]))
    }
  }
  expect((await store.verify()).damage).toEqual([])
}

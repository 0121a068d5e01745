/** `holdfast repair` (P5, F22): shows first, does only when asked, and says with its exit code what is left to do. */
import fs from 'node:fs'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import type { RepairPlan, RepairReport } from '../../src/repair-plan.js'
import { holdfast, scratch } from './run.js'

const place = scratch()
const store = place.path('store')
let transcript = ''

beforeEach(async () => {
  fs.rmSync(store, { recursive: true, force: true })
  const opened = await SessionStore.open(store, { durability: 'process' })
  const session = opened.session('agent:main:main')
  for (let n = 1; n <= 5; n++) await session.append({ n, text: `text ${n}` })
  transcript = `transcripts/${(await opened.get('agent:main:main'))!.sessionId}.jsonl`
  await opened.close()
  const path = `${store}/${transcript}`
  fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('text 3', 'text X'))
})
afterAll(() => place.remove())

const on = (...args: string[]) => holdfast([...args, '--store', store])

describe('repair', () => {
  test('shows what it would do, changes nothing, and leaves with 1', async () => {
    const before = fs.readFileSync(`${store}/${transcript}`)
    const { code, stdout } = await on('repair')
    expect(code).toBe(1)
    expect(stdout).toContain(`rewrite-log\t${transcript}\tagent:main:main`)
    expect(stdout).toContain('lost\t1 record: seq 3')
    expect(stdout).toContain('nothing has been changed')
    expect(fs.readFileSync(`${store}/${transcript}`).equals(before)).toBe(true)
    expect(fs.readdirSync(`${store}/quarantine`)).toEqual([])
  })

  test('--apply does it and leaves with 0; then there is nothing to do', async () => {
    const { code, stdout } = await on('repair', '--apply')
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringMatching(/^1\tdone\t.*\tremoved bytes: quarantine\//m) })
    expect(await on('repair')).toMatchObject({ code: 0, stdout: 'ok\tnothing to repair\n' })
    expect((await on('verify')).code).toBe(0)
    expect((await on('tail', 'agent:main:main')).stdout).toContain('text 5')
  })

  test('a plan that was kept is applied as it is, and refused once the file is another', async () => {
    const { stdout } = await on('repair', '--json')
    const plan = JSON.parse(stdout) as RepairPlan
    expect(plan.actions).toMatchObject([{ kind: 'rewrite-log', file: transcript, loses: { seqs: [{ from: 3, to: 3 }] } }])
    const kept = place.path('plan.json')
    fs.writeFileSync(kept, stdout)
    const none = await on('repair', '--apply', '--plan', kept, '--only', 'set-permissions', '--json')
    expect(JSON.parse(none.stdout)).toMatchObject({ actions: [] })
    const done = await on('repair', '--apply', '--plan', kept, '--only', 'altered-line', '--json')
    expect(done.code).toBe(0)
    expect((JSON.parse(done.stdout) as RepairReport).actions).toMatchObject([{ outcome: 'done' }])
    const again = await on('repair', '--apply', '--plan', kept, '--json')
    expect(again.code).toBe(1)
    expect((JSON.parse(again.stdout) as RepairReport).actions).toMatchObject([
      { outcome: 'refused', error: { code: 'SEQ_CONFLICT', effect: 'none' } },
    ])
  })

  test('what is no plan is wrong use', async () => {
    expect(await on('repair', '--apply', '--plan', `${store}/${transcript}`)).toMatchObject({ code: 2, stdout: '' })
    expect(await on('repair', '--apply', '--plan', `${store}/holdfast.json`)).toMatchObject({ code: 2, stdout: '' })
  })

  test('works on a store that nothing else can open, and then everything can', async () => {
    const before = fs.readFileSync(`${store}/sessions.json`)
    fs.writeFileSync(`${store}/sessions.json`, before.subarray(0, 40))
    fs.writeFileSync(`${store}/holdfast.json`, '')
    expect((await on('list')).code).toBe(1)
    const shown = await on('repair')
    expect(shown.code).toBe(1)
    expect(shown.stdout).toMatch(/^1\tremake-format\tholdfast.json$/m)
    expect(shown.stdout).toMatch(/^2\trebuild-metadata\tsessions.json$/m)
    expect(fs.readFileSync(`${store}/sessions.json`)).toHaveLength(40)
    expect(await on('repair', '--apply')).toMatchObject({ code: 0, stdout: expect.stringContaining('3 of 3 actions done') })
    expect(fs.readFileSync(`${store}/sessions.json`).equals(before)).toBe(true)
    expect((await on('verify')).code).toBe(0)
    expect((await on('list')).stdout).toContain('agent:main:main')
  })
})

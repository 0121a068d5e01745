/** `holdfast retain` and `holdfast maintain`, as a shell runs them. */
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { duration, size } from '../../../src/cli/quantity.js'
import { prefixRule } from '../../../src/cli/retention-options.js'
import { SessionStore } from '../../../src/index.js'
import { holdfast, jsonLines, scratch, start } from '../../cli/run.js'

const place = scratch()
afterAll(() => place.remove())

let dir: string
let made = 0
beforeEach(async () => {
  dir = place.path(`store-${made++}`)
  const store = await SessionStore.open(dir)
  for (const key of ['cron:1', 'cron:2', 'main']) await store.session(key).append({ said: key })
  await store.update('cron:1', () => ({ pinned: true }))
  await store.close()
  await sleep(15)
})

describe('quantities', () => {
  test.each([
    ['30d', 30 * 86_400_000],
    ['1.5h', 5_400_000],
    ['90min', 5_400_000],
    ['90m', 5_400_000],
    ['45 s', 45_000],
    ['500ms', 500],
    ['2w', 14 * 86_400_000],
  ])('%s is a duration', (text, ms) => expect(duration(text)).toBe(ms))

  test.each([
    ['500MB', 500_000_000],
    ['2GiB', 2 ** 31],
    ['10B', 10],
    ['1.5KiB', 1_536],
  ])('%s is a size', (text, bytes) => expect(size(text)).toBe(bytes))

  test.each(['30', 'd', '-1d', '1e3d', '30 days', '', '1y', '30D', 'toString'])('%j is no duration', (text) => {
    expect(() => duration(text)).toThrow('such as 30d')
  })

  test.each(['500', '5mb', '5 bytes', '1M'])('%j is no size', (text) => expect(() => size(text)).toThrow('such as 500MB'))

  test('a prefix may hold colons, and its rules may be none', () => {
    expect(prefixRule('agent:main::max-age=none,max-count=3', { x: {} })).toEqual({ x: {}, 'agent:main:': { maxAgeMs: null, maxCount: 3 } })
    expect(prefixRule('x:max-bytes=1KiB', undefined)).toEqual({ x: { maxBytes: 1_024 } })
    for (const wrong of ['x', 'x:', ':max-age=1d', 'x:max-age', 'x:max-size=1', 'x:max-age=1d,y'])
      expect(() => prefixRule(wrong, undefined)).toThrow()
  })
})

test('retain shows, and with --apply does; what stays is said', async () => {
  const rules = ['--prefix', 'cron::max-age=1ms', '--store', dir]
  const shown = await holdfast(['retain', ...rules])
  expect(shown).toMatchObject({ code: 0, stderr: '' })
  expect(shown.stdout).toMatch(
    /^would be archived\tcron:2\t\S+\t\S+\t\d+ B\tage of cron:\nstays\tcron:1\tpinned\n3 sessions, 2 would stay; nothing has been changed\. --apply does it\.\n$/,
  )
  const done = await holdfast(['retain', ...rules, '--apply', '--json'])
  expect(jsonLines(done.stdout)).toMatchObject([
    { dryRun: false, sessions: 3, kept: 2, archived: [{ key: 'cron:2' }], protected: [{ key: 'cron:1', why: 'pinned' }] },
  ])
  expect(fs.readdirSync(`${dir}/archive`)).toHaveLength(1)
})

test('rules from a file are checked; a cap that cannot be kept is exit 1; no rules is wrong use', async () => {
  const file = place.path('rules.json')
  fs.writeFileSync(file, '{"maxAge":1}')
  const [wrong, unkept, none] = await Promise.all([
    holdfast(['retain', '--rules', file, '--store', dir]),
    holdfast(['retain', '--max-count', '0', '--store', dir]),
    holdfast(['retain', '--store', dir]),
  ])
  expect(wrong).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('maxAge') })
  expect(unkept).toMatchObject({ code: 1, stdout: expect.stringContaining('cannot be kept\tcount\tat most 0, but 1 may not go') })
  expect(none).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('There are no rules') })
})

test('maintain does a round with a line for each thing; --watch goes on until Ctrl-C', async () => {
  const once = await holdfast(['maintain', '--max-count', '2', '--store', dir])
  expect(once).toMatchObject({ code: 0, stderr: '' })
  expect(once.stdout).toMatch(/^retain\tarchived\tcron:2\t/m)
  expect(once.stdout).toMatch(/^sweep\tdone\t/m)
  const watching = start(['maintain', '--watch', '--every', '200ms', '--json', '--store', dir])
  await watching.until(/"step":"sweep","outcome":"done"[\s\S]*"step":"sweep","outcome":"done"/)
  watching.child.kill('SIGINT')
  const { code, stdout, stderr } = await watching.ended
  expect({ code, stderr }).toEqual({ code: 130, stderr: '' })
  expect(jsonLines(stdout).at(-1)).toMatchObject({ event: 'leader', outcome: 'gave' })
})

/** compact, rotate, archives, show --archive, restore-archive (F51). */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { holdfast, jsonLines, scratch } from './run.js'

let place: ReturnType<typeof scratch>
const run = (...args: string[]) => holdfast([...args, '--store', place.path('s')])

beforeEach(async () => {
  place = scratch()
  const store = await SessionStore.open(place.path('s'), { durability: 'process' })
  for (const text of ['one', 'two \u001b[31m', 'three'])
    await store.session('k').append({ type: 'message', message: { role: 'user', content: text } })
  await store.close()
})
afterEach(() => place.remove())

test('a session is summarized, compacted, rotated; nothing of it is hidden, and it is brought back', async () => {
  const summarized = await run('compact', 'k', '--summary', 'they count', '--keep', '1', '--json')
  expect(jsonLines(summarized.stdout)).toMatchObject([{ key: 'k', compacted: true, upTo: 2, records: 2 }])
  const compacted = await run('compact', 'k')
  expect(compacted).toMatchObject({ code: 0, stdout: expect.stringMatching(/^compacted\tk\t.*before: archive\/.*\.jsonl\n$/) })
  expect((await run('compact', 'k')).stdout).toBe('nothing to remove\tk\n')
  const [rotated] = jsonLines((await run('rotate', 'k', '--reason', 'reset', '--json')).stdout)
  expect(rotated).toMatchObject({ key: 'k', sessionId: expect.any(String), previousSessionId: expect.any(String) })

  const listed = jsonLines((await run('archives', 'k', '--json')).stdout)
  expect(listed).toMatchObject([
    { key: 'k', reason: 'rotated', why: 'reset', next: rotated!.sessionId, compressed: false },
    { key: 'k', reason: 'compacted', firstSeq: 1 },
  ])
  expect((await run('archives')).stdout.split('\n')).toHaveLength(3)
  const archive = String(listed[1]!.archive)
  const shown = await run('show', '--archive', archive)
  expect(shown).toMatchObject({ code: 0 })
  expect(shown.stdout).toContain('one')
  expect(shown.stdout).not.toContain('\u001b')
  expect(jsonLines((await run('show', '--archive', archive, '--json')).stdout).map(({ seq }) => seq)).toEqual([1, 2, 3])

  const restored = await run('restore-archive', archive, '--key', 'back', '--json')
  expect(jsonLines(restored.stdout)).toMatchObject([{ key: 'back', archive, records: 3 }])
  expect(jsonLines((await run('tail', 'back', '--json')).stdout)).toHaveLength(3)
})

test('what is asked wrongly is refused with 2, and nothing is done', async () => {
  for (const args of [
    ['compact', 'none'],
    ['compact', 'none', '--summary', 'x'],
    ['compact', 'k', '--keep', '2'],
    ['compact', 'k', '--summary', ''],
    ['rotate', 'none'],
    ['show'],
    ['show', 'k', '--archive', 'x'],
    ['show', '--archive', '../sessions'],
    ['restore-archive', 'x'],
    ['restore-archive', 'x', '--key', 'y'],
  ])
    expect((await run(...args)).code, args.join(' ')).toBe(2)
  await run('rotate', 'k')
  const [archive] = jsonLines((await run('archives', '--json')).stdout)
  expect(await run('restore-archive', String(archive!.archive), '--key', 'k')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('INVALID_KEY'),
  })
})

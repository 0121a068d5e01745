import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { entryOf, importing, recordsOf, userMessage } from './importing.js'
import { scratch, writeLines } from './run.js'

const place = scratch()
afterAll(() => place.remove())

describe('an OpenClaw sessions directory', () => {
  const header = (id: string) => ({ type: 'session', version: 3, id, timestamp: 't', cwd: '/ws' })
  function makeDirectory(name: string): string {
    const dir = place.path(name)
    writeLines(path.join(dir, 's1.jsonl'), [header('s1'), userMessage(1), userMessage(2)])
    writeLines(path.join(dir, 's2-topic-42.jsonl'), [header('s2'), userMessage(1)])
    writeLines(path.join(dir, 'old.jsonl'), [header('old'), userMessage(5)])
    writeLines(path.join(dir, 'gone.jsonl.deleted.2026-01-02T03-04-05.678Z'), [header('gone')])
    writeLines(path.join(dir, 'older.jsonl.reset.2026-01-02T03-04-05.678Z'), [header('older'), userMessage(6)])
    fs.writeFileSync(
      path.join(dir, 'sessions.json'),
      JSON.stringify({
        'agent:main:main': {
          sessionId: 's1',
          updatedAt: 5,
          sessionFile: '/root/elsewhere/s1.jsonl',
          model: 'opus',
          origin: { provider: 'telegram' },
        },
        'agent:main:telegram:group:-1:topic:42': { sessionId: 's2', updatedAt: 6 },
        'agent:main:missing': { sessionId: 's3', updatedAt: 7, label: 'kept' },
        'agent:main:broken': { updatedAt: 8 },
      }),
    )
    return dir
  }

  test('keys, fields and records come in; what is missing is named; again adds nothing', async () => {
    const [store, dir] = [place.path('claw-store'), makeDirectory('claw')]
    const first = await importing(store, dir)
    expect(first).toMatchObject({ code: 1, finished: true, added: 5, leftOut: 2 })
    expect(first.problems).toEqual([
      { path: path.join(dir, 'sessions.json'), line: null, key: 'agent:main:broken', why: expect.stringContaining('no sessionId') },
      { path: path.join(dir, 's3.jsonl'), line: null, key: 'agent:main:missing', why: expect.stringContaining('transcript is missing') },
    ])
    expect(first.notes).toEqual([expect.stringMatching(/^2 transcripts in .* are named by no session key/)])
    const entry = await entryOf(store, 'agent:main:main')
    expect(entry).toMatchObject({
      model: 'opus',
      origin: { provider: 'telegram' },
      imported: { format: 'openclaw', sessionId: 's1', updatedAt: 5, version: 3, records: 3 },
    })
    expect(entry).not.toHaveProperty('sessionFile')
    expect(entry?.sessionId).not.toBe('s1')
    expect(await entryOf(store, 'agent:main:missing')).toMatchObject({ label: 'kept' })
    expect(await recordsOf(store, 'agent:main:telegram:group:-1:topic:42')).toHaveLength(2)

    expect(await importing(store, path.join(dir, 'sessions.json'))).toMatchObject({ code: 1, added: 0, present: 5, leftOut: 2 })
    expect(await entryOf(store, 'agent:main:main')).toEqual(entry)
    expect(await recordsOf(store, 'agent:main:main')).toHaveLength(3)
  })

  test('--unreferenced brings earlier conversations, not deleted ones', async () => {
    const [store, dir] = [place.path('claw-all'), makeDirectory('claw-all-source')]
    const { sessions } = await importing(store, dir, '--unreferenced')
    expect(sessions.map(({ key }) => key).filter((key) => key.startsWith('openclaw:'))).toEqual(['openclaw:old', 'openclaw:older'])
  })

  test('a key that was reset at the source begins anew here too, and the old conversation is archived', async () => {
    const [store, dir] = [place.path('claw-reset'), makeDirectory('claw-reset-source')]
    await importing(store, dir)
    writeLines(path.join(dir, 's9.jsonl'), [header('s9'), userMessage(9)])
    fs.writeFileSync(
      path.join(dir, 'sessions.json'),
      JSON.stringify({ 'agent:main:main': { sessionId: 's9', updatedAt: 50, model: 'opus' } }),
    )
    const before = (await entryOf(store, 'agent:main:main'))?.sessionId
    expect(await importing(store, dir)).toMatchObject({ code: 0, added: 2 })
    expect((await recordsOf(store, 'agent:main:main')).map(({ record }) => record)).toEqual([header('s9'), userMessage(9)])
    expect(await entryOf(store, 'agent:main:main')).toMatchObject({ imported: { sessionId: 's9' } })
    expect((await entryOf(store, 'agent:main:main'))?.sessionId).not.toBe(before)
    expect((await importing(store, dir)).added).toBe(0)
  })

  test('fields changed here are left alone; fields changed only there are taken', async () => {
    const [store, dir] = [place.path('claw-fields'), makeDirectory('claw-fields-source')]
    await importing(store, dir)
    const change = (fields: object) =>
      fs.writeFileSync(
        path.join(dir, 'sessions.json'),
        JSON.stringify({ 'agent:main:main': { sessionId: 's1', updatedAt: 60, ...fields } }),
      )
    change({ model: 'sonnet' })
    await importing(store, dir)
    expect(await entryOf(store, 'agent:main:main')).toMatchObject({ model: 'sonnet' })
    const opened = await SessionStore.open(store)
    await opened.update('agent:main:main', (entry) => ({ ...entry, model: 'mine' }))
    await opened.close()
    change({ model: 'haiku' })
    const { notes } = await importing(store, dir)
    expect(notes).toContainEqual(expect.stringContaining('changed here'))
    expect(await entryOf(store, 'agent:main:main')).toMatchObject({ model: 'mine' })
  })

  // F19
  test.each(['', '[]', '{"agent:main:main":{"sess', '\0\0\0'])(
    'a damaged sessions.json (%j) is reported, never taken for an empty one',
    async (text) => {
      const dir = makeDirectory(`claw-damaged-${Buffer.from(text).toString('hex')}`)
      fs.writeFileSync(path.join(dir, 'sessions.json'), text)
      const report = await importing(`${dir}-store`, dir)
      expect(report).toMatchObject({ code: 1, added: 0, leftOut: 1 })
      expect(report.problems[0]?.why).toMatch(/^damaged: .*--unreferenced/)
    },
  )
})

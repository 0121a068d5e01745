/** A conversation whose transcript is damaged gets a clear answer, and the others go on (F29, F21, P5). */
import fs from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { setUp, user } from './setting.js'

test.each<[how: string, damage: (path: string) => void]>([
  ['has lost its end', (path) => fs.truncateSync(path, fs.readFileSync(path).indexOf(10) + 1)],
  ['is gone', (path) => fs.unlinkSync(path)],
  ['has an altered line', (path) => fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('first question', 'first Question'))],
])('a conversation whose transcript %s: a 500 that says so, not to be tried again, and all others are answered', async (_, damage) => {
  const first = await setUp()
  onTestFinished(first.close)
  const ask = ({ ask }: typeof first, key: string, text: string, stream = false) =>
    ask({ model: 'echo', stream, messages: [user(text)] }, { 'x-session-key': key })
  for (const key of ['hurt', 'well']) expect((await ask(first, key, 'first question')).status).toBe(200)
  const dir = join(first.dir, 'store')
  const { sessionId } = (await first.store.get('hurt'))!
  await first.store.close()
  damage(join(dir, `transcripts/${sessionId}.jsonl`))

  const store = await SessionStore.open(dir, { durability: 'process', closeMs: 1_000 })
  const again = await setUp({ store })
  onTestFinished(() => again.close())
  onTestFinished(() => store.close())
  for (const stream of [false, true]) {
    const refused = await ask(again, 'hurt', 'second question', stream)
    expect(refused.status).toBe(500)
    expect(refused.headers.get('x-should-retry')).toBe('false')
    expect(await refused.json()).toMatchObject({
      error: { type: 'server_error', code: 'LOG_CORRUPT', message: expect.stringContaining('damaged'), retryable: false, effect: 'none' },
    })
    expect((await ask(again, 'well', 'second question', stream)).status).toBe(200)
  }
  expect((await ask(again, 'new', 'first question')).status).toBe(200)
  expect((await again.look('/healthz')).status).toBe(200)
})

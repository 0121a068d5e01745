/** Retention of sessions whose transcript has no header yet: a writer was killed over its first write, or the lines are another program's. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freshStore, said, textsOf } from '../../turns/conversation.js'

async function recordsIn<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

test.each([
  ['nothing', '', []],
  ['the beginning of its first line', '{"$$":{"header":{"log":"tran', []],
  ['lines of another program', '{"text":"f1"}\n{"text": "f2" }\r\n', ['f1', 'f2']],
  ['lines of another program, the last without its end', '{"text":"f1"}\n{"text":"f2"}', ['f1', 'f2']],
])('a transcript that has %s in it and no header is archived as any other, and not damaged by it', async (_, left, texts) => {
  // F49, P5
  const { directory, store } = await freshStore()
  const { sessionId } = await store.update('k', () => ({ model: 'm' }))
  writeFileSync(join(directory, 'transcripts', `${sessionId}.jsonl`), left)
  const { archived } = await store.retain({ rules: { maxCount: 0 } })
  expect(archived).toMatchObject([{ key: 'k', sessionId }])
  const [info] = await store.archives('k')
  expect(info).toMatchObject({ archive: sessionId, reason: 'deleted', entry: { model: 'm' } })
  expect(textsOf(await recordsIn(store.readArchive(sessionId)))).toEqual(texts)
  await store.session('k').append(said('a'))
  expect((await store.verify()).damage).toEqual([])
})

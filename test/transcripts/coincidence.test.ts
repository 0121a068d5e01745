/** A file that was cut by exactly as many bytes as are then written has its old size again. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { opened, storeDirectory } from '../metadata/store-directory.js'

// Found: the landing check fails, the re-run sees size and inode as remembered (nobody else has had the lock, so no change time is compared),
// and writes the batch again. The second copy is acknowledged and chained on, but by the chain rule the first one is in the log: everything
// acknowledged from there on is void for every reader, and stays so when the missing line is put back.
test('when the missing line is put back, what was acknowledged afterwards is in the log', async () => {
  // P1, F15, F29
  const directory = storeDirectory()
  const store = await opened(directory)
  for (let n = 11; n <= 22; n++) await store.session('k').append({ n })
  const path = join(directory, 'transcripts', `${(await store.get('k'))!.sessionId}.jsonl`)
  const whole = readFileSync(path, 'latin1')
  const lines = whole.split('\n')
  const missing = lines[11]!
  await new Promise((resolve) => setTimeout(resolve, 15))
  writeFileSync(path, lines.toSpliced(11, 1).join('\n'), 'latin1')
  let acknowledged = 0
  for (const n of [90, 91])
    await store
      .session('k')
      .append({ n })
      .then(
        () => acknowledged++,
        () => {},
      )
  await store.close()
  const mended = readFileSync(path, 'latin1').split('\n').toSpliced(11, 0, missing).join('\n')
  expect(mended.startsWith(whole)).toBe(true)
  writeFileSync(path, mended, 'latin1')
  const fresh = await opened(directory)
  expect((await fresh.verify()).damage).toEqual([])
  expect((await fresh.session('k').tail(50)).length).toBe(12 + acknowledged)
})

/** docs/errors.md: "effect none: nothing of this call is in the store, nor will be." Calls of several steps that fail between two of them. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isStoreError } from '../../src/errors.js'
import { systemHost } from '../../src/file/host.js'
import { Baton } from '../../src/file/lock/baton.js'
import { newCounters } from '../../src/file/stats.js'
import { SessionStore } from '../../src/index.js'

const key = 'agent:main:main'
const waitMs = 100
let dir: string
let store: SessionStore

beforeEach(async () => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-effects-'))
  store = await SessionStore.open(dir)
  await store.session(key).append({ n: 1 })
})
afterEach(async () => {
  await store.close()
  fs.rmSync(dir, { recursive: true, force: true })
})

/** While somebody else holds the lock of the metadata. */
async function whileMetadataIsHeld(work: () => Promise<unknown>): Promise<unknown> {
  const host = systemHost()
  const baton = new Baton(host, join(dir, 'locks/metadata'), { maxHoldMs: 60_000, counters: newCounters(), label: 'metadata' })
  const held = await baton.acquire({ does: 'commit', waitMs, deadlineMs: host.clock.monotonicMs() + waitMs })
  try {
    return await work().then(
      () => undefined,
      (error: unknown) => error,
    )
  } finally {
    baton.release(held)
  }
}

/** The conversation that the key names, after everybody has brought to an end what they found. */
async function conversation(): Promise<unknown[]> {
  await store.session(key).append({ n: 2 })
  return (await store.session(key).tail(10)).map(({ record }) => record.n)
}

// Found: the seal has landed, the metadata cannot be reached in time, LOCK_TIMEOUT says none; the next append makes the rotation.
test('a rotation that fails with effect none is not made later by somebody else', async () => {
  const error = await whileMetadataIsHeld(() => store.session(key).rotate({ waitMs }))
  const after = await conversation()
  if (isStoreError(error) && error.effect === 'none') expect(after).toEqual([1, 2])
})

test('a deletion that fails with effect none is not made later by somebody else', async () => {
  const error = await whileMetadataIsHeld(() => store.delete(key, { waitMs }))
  const after = await conversation()
  if (isStoreError(error) && error.effect === 'none') expect(after).toEqual([1, 2])
})

test('a mutator whose changes are committed is not told that nothing was written', async () => {
  const { sessionId } = (await store.get(key))!
  await store.session(key).append({ n: 2 })
  await store.close()
  const path = join(dir, 'transcripts', `${sessionId}.jsonl`)
  fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('"n":1', '"n":7'))
  store = await SessionStore.open(dir)
  const error = await store
    .withStoreLock((sessions) => sessions.delete(key))
    .then(
      () => undefined,
      (failure: unknown) => failure,
    )
  if (isStoreError(error) && error.effect === 'none') expect(await store.get(key)).toBeDefined()
})

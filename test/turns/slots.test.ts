/** A turn that has its key waits for a slot of its lane. */
import { setTimeout as pause } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { isStoreError, SessionStore } from '../../src/index.js'
import { storeDirectory } from '../metadata/store-directory.js'

test('waiting for a slot is no lack of progress: the key stays this request’s, and its input is in the log meanwhile', async () => {
  // F33, F35
  const directory = storeDirectory()
  const [store, other] = [await SessionStore.open(directory, { lanes: { main: 1 } }), await SessionStore.open(directory)]
  onTestFinished(async () => {
    await store.close()
    await other.close()
  })
  let letGo = () => {}
  const slow = store.runTurn(
    'slow',
    {},
    () =>
      new Promise<void>((resolve) => {
        letGo = resolve
      }),
  )
  const waiting = store.runTurn('k', { maxTurnMs: 120, input: { n: 1 } }, (turn) => turn.signal.aborted)
  await pause(200)
  const refused = await other.runTurn('k', { waitMs: 400, input: { n: 2 } }, () => 'in').catch((error: unknown) => error)
  expect(isStoreError(refused, 'TURN_BUSY')).toBe(true)
  expect((await other.session('k').tail(9))[0]?.record).toEqual({ n: 1 })
  letGo()
  await slow
  expect(await waiting).toMatchObject({ outcome: 'completed', value: false })
})

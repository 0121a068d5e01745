// Calls made one after another on one handle land in that order, whether awaited or not (P1): `holdfast stress` found the first two the other
// way round where two sessions were new at once.
import { expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { freshDirectory } from './trials.js'

test.each(['power', 'process'] as const)(
  'appends stand in the order of their calls, also where several sessions are new, %s',
  async (durability) => {
    for (let round = 0; round < 5; round++) {
      const store = await SessionStore.open(freshDirectory(), { durability })
      onTestFinished(() => store.close())
      const calls = ['x', 'k', 'k', 'y', 'k', 'x', 'y'].map((key, n) => store.session(key).append({ n }))
      await Promise.all(calls)
      const order = async (key: string) => (await store.session(key).tail(10)).map(({ record }) => record.n)
      expect([await order('x'), await order('k'), await order('y')]).toEqual([
        [0, 5],
        [1, 2, 4],
        [3, 6],
      ])
    }
  },
)

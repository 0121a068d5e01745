/** A conversation that was compacted goes on through the gateway: the model is shown the summary in the place of what it stands for. */
import { expect, onTestFinished, test } from 'vitest'
import { assistant, contentOf, heldModel, setUp, user } from './setting.js'

test('the model is shown the summary as a system message, then what stands behind it', async () => {
  const { model, call } = heldModel()
  const { ask, store, close } = await setUp({ model })
  onTestFinished(close)
  const say = async (text: string, reply: string, n: number) => {
    const answer = ask({ messages: [{ role: 'system', content: 'be kind' }, user(text)] }, { 'x-session-key': 'k' })
    const asked = await call(n)
    asked.finish(reply)
    expect(await contentOf(await answer)).toBe(reply)
    return asked.messages
  }
  await say('one', 'ein', 0)
  await say('two', 'zwei', 1)
  await store.session('k').compact({ keepLast: 2, summarize: () => 'they count' })
  expect(await say('three', 'drei', 2)).toEqual([
    { role: 'system', content: 'be kind' },
    { role: 'system', content: 'Summary of the conversation before:\n\nthey count' },
    user('two'),
    assistant('zwei'),
    user('three'),
  ])
})

/** One process that does everything that changes a store, at random, until it is told to stop. */
import { SessionStore } from '../../../src/index.js'
import { seededRandom } from '../../simulation/seeded-random.js'

const [dir, seed] = process.argv.slice(2) as [string, string]
const random = seededRandom(Number(seed))
const upTo = (count: number) => Math.floor(random() * count)
const store = await SessionStore.open(dir, { durability: 'process', checkpoint: upTo(4) === 0 ? 'always' : 'auto' })
let stopped = false
let done = 0
const failures: string[] = []

const works: ((key: string) => Promise<unknown>)[] = [
  (key) => store.session(key).append({ type: 'note', n: done }),
  (key) => store.session(key).append(Array.from({ length: 40 }, (_, n) => ({ n, text: 'x'.repeat(300) }))),
  (key) => store.session(key).append({ text: 'long'.repeat(100_000) }),
  (key) => store.session(key).append({ n: done }, { id: `evt-${process.pid}-${done}` }),
  (key) => store.update(key, () => ({ n: done, filler: 'x'.repeat(400) })),
  (key) =>
    store.runTurn(key, { input: { role: 'user', content: 'Hi.' }, whenBusy: 'coalesce' }, (turn) =>
      turn.append({ role: 'assistant', content: 'Hi.' }),
    ),
  (key) => store.session(key).rotate({ reason: 'test' }),
  (key) => store.delete(key),
  (key) => store.withStoreLock((sessions) => sessions.delete(key)),
  (key) => store.session(key).compactBytes(),
  () => store.checkpoint(),
]
/** What may happen to anybody when others do the same. */
const usual = new Set(['NOT_FOUND', 'LOCK_LOST', 'TURN_LOST', 'TURN_BUSY', 'LOCK_TIMEOUT', 'SEQ_CONFLICT'])

process.on('message', () => {
  stopped = true
})
process.send!('ready')
while (!stopped) {
  const key = `agent:${upTo(12)}`
  try {
    await works[upTo(works.length)]!(key)
    done++
  } catch (error) {
    const { code = '' } = error as { code?: string }
    if (!usual.has(code)) failures.push(`${code} ${String(error)}`)
  }
  await new Promise((resolve) => setImmediate(resolve))
}
await store.close()
process.send!({ done, failures })
process.disconnect()

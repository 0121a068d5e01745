// A chat bot's memory. Run it again with the same directory: the conversation goes on.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SessionStore } from 'holdfast'

const dir = process.argv[2] ?? join(mkdtempSync(join(tmpdir(), 'holdfast-chat-')), 'sessions')
const store = await SessionStore.open(dir)

// What a gateway would do for each message that comes in. `messageId` is the channel's own, so a message that is delivered twice, or again
// after a crash half-way, is written once and answered once.
async function receive(key, messageId, text) {
  const session = store.session(key)
  const asked = await session.append({ role: 'user', text }, { id: `in:${messageId}` })
  if (asked.duplicate && (await store.get(key))?.answered === messageId) return undefined

  const history = await session.tail(20)
  const answer = `You said "${text}". That was message ${history.filter(({ record }) => record.role === 'user').length} from you.`

  const answered = await session.append({ role: 'assistant', text: answer }, { id: `out:${messageId}` })
  if (answered.duplicate) return undefined
  await store.update(key, (entry) => ({ ...entry, answered: messageId, messages: (entry?.messages ?? 0) + 1 }))
  return answer
}

const key = 'agent:main:telegram:direct:42'
console.log(await receive(key, 'm1', 'Hello'))
console.log(await receive(key, 'm2', 'How are you?'))
console.log(await receive(key, 'm2', 'How are you?'), '(delivered twice)')

console.log('the transcript:')
for await (const { seq, record } of store.session(key).read()) console.log(` ${seq} ${record.role}: ${record.text}`)

// "/new": the same key, a new conversation. The old one is kept in archive/.
await store.session(key).rotate({ reason: 'the user asked for a new conversation' })
console.log(await receive(key, 'm3', 'Do you remember me?'))
console.log((await store.get(key)).messages, 'messages in all')

await store.close()

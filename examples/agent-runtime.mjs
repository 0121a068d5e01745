// An agent runtime in thirty lines: one turn at a time per conversation, however many requests and processes there are.
import { setTimeout as sleep } from 'node:timers/promises'
import { SessionStore } from 'holdfast'

const store = await SessionStore.open(process.argv[2] ?? './sessions')

// Stands for a call of a model. It gets the signal: when the turn is interrupted or lost, or its time is over, there is nobody to answer.
async function model(history, signal) {
  await sleep(400, undefined, { signal })
  const heard = history.filter(({ record }) => record.role === 'user').map(({ record }) => record.text)
  return `I have heard: ${heard.join(' / ')}`
}

// One message comes in. Its id is the channel's own: delivered twice, it is answered once.
async function receive(key, messageId, text) {
  const options = { requestId: messageId, channelId: 'telegram', whenBusy: 'coalesce', input: { role: 'user', text } }
  const { outcome, turn, value } = await store.runTurn(key, options, async (turn) => {
    await turn.pending() // What waited when this turn began is in its tail from now on.
    let reply
    do {
      reply = await model(await turn.tail(50), turn.signal)
      await turn.append({ role: 'assistant', text: reply })
    } while ((await turn.pending()).length > 0) // What has come meanwhile is answered by this turn, too.
    return reply
  })
  console.log(messageId, outcome, turn, value)
}

const key = 'agent:main:telegram:direct:42'
await receive(key, 'm1', 'Hello')
const second = receive(key, 'm2', 'How are you?')
await sleep(100)
await receive(key, 'm3', 'One more thing')
await second
await receive(key, 'm1', 'Hello')
await store.close()

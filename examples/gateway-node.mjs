// The chat gateway behind node:http, with a model of your own.
//   node examples/gateway-node.mjs ./store
//   curl -N localhost:8787/v1/chat/completions -H 'content-type: application/json' -H 'x-session-key: agent:main:demo' \
//     -d '{"stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
import { mkdtempSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SessionStore } from 'holdfast'
import { createChatHandler, nodeListener } from 'holdfast/gateway'

const dir = process.argv[2] ?? join(mkdtempSync(join(tmpdir(), 'holdfast-gateway-')), 'sessions')
const store = await SessionStore.open(dir)

// Gets the whole conversation, the new message at its end. Whatever it says through `onToken` is streamed; what it returns is stored.
async function model(messages, { signal, onToken }) {
  const answer = `I have ${messages.length} messages of you and me. The last one is: ${messages.at(-1).content}`
  for (const word of answer.split(/(?<= )/)) {
    await sleep(30, undefined, { signal }) // Ends at once when the client goes.
    onToken(word)
  }
  return answer
}

const handler = createChatHandler({ store, model, log: (line) => console.error(JSON.stringify(line)) })
const server = createServer(nodeListener(handler))
server.listen(Number(process.env.PORT ?? 8787), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))

process.on('SIGTERM', () => {
  server.close(() => store.close())
  server.closeAllConnections()
})

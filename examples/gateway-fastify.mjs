// The chat gateway as a part of a Fastify app. Needs `npm install fastify`.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import { SessionStore } from 'holdfast'
import { createChatHandler, echoModel, nodeListener } from 'holdfast/gateway'

const dir = process.argv[2] ?? join(mkdtempSync(join(tmpdir(), 'holdfast-gateway-')), 'sessions')
const store = await SessionStore.open(dir)
const listener = nodeListener(createChatHandler({ store, model: echoModel({ delayMs: 30 }) }))

const app = Fastify({ forceCloseConnections: true })
app.get('/', async () => 'A page of the app.')
app.register(async (scope) => {
  // The gateway reads the body itself, within its own bounds, and writes the response itself.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
  const handOver = (request, reply) => {
    reply.hijack()
    listener(request.raw, reply.raw)
  }
  for (const path of ['/v1/*', '/sessions', '/sessions/*', '/healthz']) scope.all(path, handOver)
})

console.log(await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 8787) }))

process.on('SIGTERM', async () => {
  await app.close()
  await store.close()
})

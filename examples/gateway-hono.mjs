// The chat gateway as a part of a Hono app: its handler takes a Request and returns a Response, so it is a route like any other.
// Needs `npm install hono @hono/node-server`.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { serve } from '@hono/node-server'
import { SessionStore } from 'holdfast'
import { createChatHandler, echoModel } from 'holdfast/gateway'
import { Hono } from 'hono'

const dir = process.argv[2] ?? join(mkdtempSync(join(tmpdir(), 'holdfast-gateway-')), 'sessions')
const store = await SessionStore.open(dir)
const handler = createChatHandler({ store, model: echoModel({ delayMs: 30 }) })

const app = new Hono()
app.get('/', (c) => c.text('A page of the app.'))
for (const path of ['/v1/*', '/sessions/*', '/healthz']) app.all(path, (c) => handler(c.req.raw))

const server = serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(process.env.PORT ?? 8787) }, ({ port }) =>
  console.log(`http://127.0.0.1:${port}`),
)

process.on('SIGTERM', () => {
  server.close(() => store.close())
  server.closeAllConnections()
})

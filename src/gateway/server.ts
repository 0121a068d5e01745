/** The gateway behind node:http. Between the two stands srvx: it turns the request into a `Request` whose signal aborts when the client goes, and
 *  reads the response's stream only as fast as the client takes it. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { toNodeHandler } from 'srvx/node'
import type { ChatHandler } from './handler.js'

/** For `http.createServer`, Express, Fastify (`request.raw`, `reply.raw`) and whatever else speaks node:http. */
export function nodeListener(handler: ChatHandler): (request: IncomingMessage, response: ServerResponse) => void {
  // Its type asks for what is both HTTP/1 and HTTP/2; it takes either.
  const listener = toNodeHandler(handler) as (request: IncomingMessage, response: ServerResponse) => unknown
  return (request, response) => {
    void listener(request, response)
  }
}

export interface ServeOptions {
  /** Default 8787; 0 for any that is free. */
  readonly port?: number | undefined
  /** Default 127.0.0.1: this machine only. */
  readonly host?: string | undefined
}

export interface GatewayServer {
  readonly server: Server
  readonly url: string
  /** Takes no more requests, waits for those under way for at most `drainMs` (default 10,000), then breaks them off: their turns end as interrupted,
   *  with what was said. Does not close the store. */
  close(options?: { readonly drainMs?: number | undefined }): Promise<void>
}

/** @throws what `listen` throws, such as EADDRINUSE. */
export async function serveGateway(handler: ChatHandler, { port = 8787, host = '127.0.0.1' }: ServeOptions = {}): Promise<GatewayServer> {
  const server = createServer(nodeListener(handler))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  const { address, family, port: bound } = server.address() as AddressInfo
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`
  return { server, url, close: ({ drainMs = 10_000 } = {}) => drain(server, drainMs) }
}

const idleLookMs = 50

function drain(server: Server, drainMs: number): Promise<void> {
  return new Promise((resolve) => {
    // A connection that has just finished its last request is kept alive by its client, not by us.
    const idle = setInterval(() => server.closeIdleConnections(), idleLookMs)
    const late = setTimeout(() => server.closeAllConnections(), drainMs)
    server.close(() => {
      clearInterval(idle)
      clearTimeout(late)
      resolve()
    })
  })
}

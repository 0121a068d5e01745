/** An S3 server in a process of its own, and a proxy in front of it: it adds conditional writes, which that server lacks, and does harm. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'

const program = `
const S3rver = require('@20minutes/s3rver')
const server = new S3rver({ port: 0, address: '127.0.0.1', silent: true, directory: process.argv[1], configureBuckets: [{ name: 'backups' }] })
server.run().then((address) => process.send({ port: address.port }))
process.on('disconnect', () => process.exit(0))
`

export interface S3Server {
  readonly port: number
  stop(): Promise<void>
}

export async function startS3Server(directory: string): Promise<S3Server> {
  // It enciphers the tokens of its listings with DES.
  const child: ChildProcess = spawn(process.execPath, ['--openssl-legacy-provider', '-e', program, directory], {
    cwd: join(import.meta.dirname, '../../..'),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const [{ port }] = (await once(child, 'message')) as [{ port: number }]
  return {
    port,
    async stop() {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** What becomes of a request: nothing special · the connection breaks before it arrives, or after it has taken effect · an answer instead of
 *  the server's · the answer is cut short, arrives slowly, or never. */
export type Harm = 'none' | 'dropBefore' | 'dropAfter' | 'error500' | 'slowDown' | 'cut' | 'stall'

export interface SeenRequest {
  readonly method: string
  /** Of the object, after the bucket; empty for listings. */
  readonly key: string
  readonly bytes: number
  readonly authorization: string
}

export interface HarmfulProxy {
  readonly endpoint: string
  readonly seen: SeenRequest[]
  harm: (request: SeenRequest) => Harm
  /** no: passes over If-None-Match without a word · refuses: answers 501 to it. */
  conditions: 'yes' | 'no' | 'refuses'
  stop(): Promise<void>
}

export async function startProxy(port: number): Promise<HarmfulProxy> {
  const sockets = new Set<Socket>()
  let line: Promise<unknown> = Promise.resolve()
  const proxy: HarmfulProxy = { endpoint: '', seen: [], harm: () => 'none', conditions: 'yes', stop: async () => {} }
  const server = http.createServer(async (request, response) => {
    const parts: Buffer[] = []
    try {
      for await (const part of request) parts.push(part as Buffer)
    } catch {
      return // The client has given up.
    }
    const body = Buffer.concat(parts)
    const key = decodeURIComponent(request.url!.split('?')[0]!.replace(/^\/backups\/?/, ''))
    const seen = { method: request.method!, key, bytes: body.length, authorization: request.headers.authorization ?? '' }
    proxy.seen.push(seen)
    const harm = proxy.harm(seen)
    if (harm === 'dropBefore') return void request.socket.destroy()
    if (harm === 'error500') return void answer(response, 500, 'InternalError')
    if (harm === 'slowDown') return void answer(response, 503, 'SlowDown')
    const isConditional = request.method === 'PUT' && request.headers['if-none-match'] === '*'
    if (isConditional && proxy.conditions === 'refuses') return void answer(response, 501, 'NotImplemented')
    const decide = async () => {
      if (isConditional && proxy.conditions === 'yes' && (await exists(port, request.url!, request.headers))) return undefined
      return forward(port, request, body)
    }
    // One at a time: that is what makes the condition one.
    const deciding = line.then(decide)
    line = deciding.catch(() => {})
    const got = await deciding.catch(() => null)
    if (got === null) return void answer(response, 502, 'BadGateway')
    if (got === undefined) return void answer(response, 412, 'PreconditionFailed')
    if (harm === 'dropAfter') return void request.socket.destroy()
    if (harm === 'stall') return // Until the client gives up.
    response.writeHead(got.status, got.headers)
    if (harm === 'cut') {
      response.write(got.body.subarray(0, got.body.length >> 1), () => request.socket.destroy())
      return
    }
    response.end(got.body)
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return Object.assign(proxy, {
    endpoint,
    async stop() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  })
}

function answer(response: http.ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/xml' })
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code></Error>`)
}

async function exists(port: number, path: string, headers: http.IncomingHttpHeaders): Promise<boolean> {
  // Signed for a PUT, so asked without a signature: that server lets everybody read.
  const asked = http.request({ port, host: '127.0.0.1', method: 'HEAD', path, headers: { host: headers.host } })
  asked.end()
  const [got] = (await once(asked, 'response')) as [http.IncomingMessage]
  got.resume()
  return got.statusCode === 200
}

async function forward(port: number, request: http.IncomingMessage, body: Buffer) {
  const sent = http.request({ port, host: '127.0.0.1', method: request.method, path: request.url, headers: request.headers })
  sent.end(body)
  const [got] = (await once(sent, 'response')) as [http.IncomingMessage]
  const parts: Buffer[] = []
  for await (const part of got) parts.push(part as Buffer)
  const { 'transfer-encoding': _, ...headers } = got.headers
  const bytes = Buffer.concat(parts)
  return {
    status: got.statusCode!,
    headers: { ...headers, ...(bytes.length > 0 ? { 'content-length': String(bytes.length) } : {}) },
    body: bytes,
  }
}

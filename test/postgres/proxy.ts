/** Stands between a client and the server, knows where messages of the protocol begin and end, and cuts the connection between two of them. */
import net from 'node:net'

export interface Cut {
  /** to: what the client says · from: what the server answers. */
  readonly direction: 'to' | 'from'
  /** How many messages of that direction are let through before, counted from the arming. */
  readonly after: number
  /** to: what the client has said by then, and what it says in the same breath, is held, and handed to the server when it is released; the
   *  client sees its connection break at once. */
  readonly late?: boolean
}

export class CuttingProxy {
  readonly #server: net.Server
  readonly #sockets = new Set<net.Socket>()
  #armed: Cut | undefined
  /** Messages of the type and direction since the arming. */
  #counted = { to: 0, from: 0 }
  #release: (() => Promise<void>) | undefined
  cuts = 0
  #refusing = false

  private constructor(target: { host: string; port: number }) {
    this.#server = net.createServer((client) => this.#serve(client, net.connect(target.port, target.host)))
  }

  static async before(url: string): Promise<{ proxy: CuttingProxy; url: string }> {
    const to = new URL(url)
    const proxy = new CuttingProxy({ host: to.hostname, port: Number(to.port || 5432) })
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    const through = new URL(url)
    through.hostname = '127.0.0.1'
    through.port = String((proxy.#server.address() as net.AddressInfo).port)
    return { proxy, url: through.href }
  }

  arm(cut: Cut): void {
    this.#armed = cut
    this.#counted = { to: 0, from: 0 }
  }

  /** Cuts all, and lets nobody in, until told otherwise. */
  refuse(refusing: boolean): void {
    this.#refusing = refusing
    if (refusing) for (const socket of this.#sockets) socket.destroy()
  }

  /** What was held comes to the server now. Resolves when the server has answered it, or closed. */
  async release(): Promise<void> {
    await this.#release?.()
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #serve(client: net.Socket, server: net.Socket): void {
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
    }
    if (this.#refusing) {
      client.destroy()
      server.destroy()
      return
    }
    let held = false
    const both = () => {
      if (held) return
      client.destroy()
      server.destroy()
    }
    client.on('close', both)
    server.on('close', both)
    const pass = (direction: 'to' | 'from', out: net.Socket, first: boolean) => {
      const messages = new Messages(first)
      return (chunk: Buffer) => {
        for (const message of messages.take(chunk)) {
          const cut = this.#armed
          if (cut?.direction === direction && this.#counted[direction] >= cut.after) {
            this.#armed = undefined
            this.cuts++
            if (!cut.late) return both()
            held = true
            client.destroy()
            const rest = [message, ...messages.take(Buffer.alloc(0))]
            this.#release = () => deliver(server, [...rest, ...later])
            return
          }
          if (held && direction === 'to') later.push(message)
          else out.write(message)
          this.#counted[direction]++
        }
      }
    }
    const later: Buffer[] = []
    client.on('data', pass('to', server, true))
    server.on('data', pass('from', client, false))
  }
}

async function deliver(server: net.Socket, messages: readonly Buffer[]): Promise<void> {
  const answered = new Promise<void>((resolve) => {
    server.once('close', () => resolve())
    server.on('data', (chunk: Buffer) => {
      // Ready for the next query: it is done with this one.
      if (chunk.includes(Buffer.from([0x5a, 0, 0, 0, 5]))) resolve()
    })
  })
  for (const message of messages) server.write(message)
  await answered
  server.destroy()
}

/** Cuts a stream into messages: a type and a length; the client's first one has a length only. */
class Messages {
  #rest = Buffer.alloc(0)
  #untyped: boolean

  constructor(untyped: boolean) {
    this.#untyped = untyped
  }

  *take(chunk: Buffer): Generator<Buffer> {
    this.#rest = Buffer.concat([this.#rest, chunk])
    for (;;) {
      const start = this.#untyped ? 0 : 1
      if (this.#rest.length < start + 4) return
      const end = start + this.#rest.readUInt32BE(start)
      if (this.#rest.length < end) return
      const message = this.#rest.subarray(0, end)
      this.#rest = this.#rest.subarray(end)
      this.#untyped = false
      yield message
    }
  }
}

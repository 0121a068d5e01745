/** One request, byte for byte: what no client library would send. */
import net from 'node:net'

/** Sends, and gives back everything until the other side closes, or `waitMs` after the last byte. */
export function rawRequest(port: number, bytes: string | Buffer, waitMs = 500): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1')
    let heard = ''
    let timer: NodeJS.Timeout | undefined
    const done = () => {
      socket.destroy()
      resolve(heard)
    }
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => {
      heard += text
      clearTimeout(timer)
      timer = setTimeout(done, waitMs)
    })
    socket.on('close', done)
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') done()
      else reject(error)
    })
    timer = setTimeout(done, 5_000)
    socket.write(bytes)
  })
}

export function postBytes(body: string | Buffer, headers: Record<string, string> = {}): Buffer {
  const all = {
    host: 'localhost',
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    connection: 'close',
    ...headers,
  }
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.concat([Buffer.from(`POST /v1/chat/completions HTTP/1.1\r\n${head.join('')}\r\n`, 'latin1'), Buffer.from(body)])
}

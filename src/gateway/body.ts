/** The body of a request as JSON, within a number of bytes and a time. */
import { ChatError } from './failure.js'

export interface BodyBounds {
  readonly bodyBytesMax: number
  readonly bodyMs: number
}

/** Media types that a page of another site may send without asking first; so JSON has to be called JSON. */
const jsonType = /^application\/(?:[\w.+-]+\+)?json *(?:;|$)/i

/** @throws ChatError  413, 408, 415, 400. */
export async function readJson(request: Request, bounds: BodyBounds): Promise<unknown> {
  if (!jsonType.test(request.headers.get('content-type') ?? ''))
    throw new ChatError(415, 'unsupported_media_type', 'The body must be JSON: Content-Type: application/json')
  const text = decode(await readBytes(request, bounds))
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ChatError(400, 'invalid_json', `The body is not JSON: ${(error as Error).message}`)
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new ChatError(400, 'invalid_json', 'The body is not UTF-8.')
  }
}

async function readBytes(request: Request, { bodyBytesMax, bodyMs }: BodyBounds): Promise<Uint8Array> {
  const reader = request.body?.getReader()
  if (!reader) return new Uint8Array()
  const late = lateness(bodyMs)
  const announced = Number(request.headers.get('content-length') ?? 0)
  const chunks: Uint8Array[] = []
  let bytes = 0
  try {
    while (announced <= bodyBytesMax && bytes <= bodyBytesMax) {
      const { done, value } = await Promise.race([reader.read(), late.promise])
      if (done) return Buffer.concat(chunks)
      bytes += value.byteLength
      chunks.push(value)
    }
    await dropRest(reader)
    throw new ChatError(413, 'body_too_large', `The body has more than ${bodyBytesMax} bytes.`, { headers: { connection: 'close' } })
  } catch (error) {
    if (error instanceof ChatError) throw error
    throw new ChatError(400, 'body_cut_short', 'The body ended before its end.', { cause: error })
  } finally {
    late.stop()
    // Not cancelled: that would close the connection under the answer.
    reader.releaseLock()
  }
}

const dropMs = 1_000
const dropBytesMax = 64 << 20

/** A client that is cut off while it sends finds its connection broken, and does not hear why. So what it still sends is let in and dropped, for a while. */
async function dropRest(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const over = lateness(dropMs)
  try {
    for (let bytes = 0; bytes <= dropBytesMax; ) {
      const { done, value } = await Promise.race([reader.read(), over.promise])
      if (done) return
      bytes += value.byteLength
    }
  } catch {
    // It was told for long enough, or has gone.
  } finally {
    over.stop()
  }
}

function lateness(ms: number): { readonly promise: Promise<never>; stop(): void } {
  let timer: NodeJS.Timeout | undefined
  const promise = new Promise<never>((_, reject) => {
    const late = () =>
      reject(new ChatError(408, 'body_too_slow', `The body did not arrive within ${ms} ms.`, { headers: { connection: 'close' } }))
    timer = setTimeout(late, ms)
  })
  return { promise, stop: () => clearTimeout(timer) }
}

/** Requests to S3-compatible storage: signed, bounded in number and time, tried again where that can help.
 *
 *  Tried again: no connection, a broken one, no byte for `requestMs`, a body shorter than announced, and the answers 408, 429, 500, 502,
 *  503, 504. Between tries a random part of a time that doubles, so that many clients do not come back all at once. */
import { createHash } from 'node:crypto'
import { AwsClient } from 'aws4fetch'
import { systemClock } from '../../clock.js'
import { StoreError } from '../../errors.js'
import { Slots } from '../repository/slots.js'
import type { S3Settings } from './s3-options.js'

export interface S3Request {
  readonly method: 'GET' | 'PUT' | 'DELETE'
  /** Of the object; empty for the bucket. */
  readonly key: string
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
  readonly signal?: AbortSignal | undefined
  readonly bytesMax: number
  /** For people. */
  readonly doing: string
}

export interface S3Answer {
  readonly status: number
  readonly body: Buffer
  /** The error's name in S3's own words, where it is one. */
  readonly code: string | undefined
  readonly date: string | null
  /** An earlier try may have taken effect, although its answer never came. */
  readonly isRepeated: boolean
}

const passing = new Set([408, 429, 500, 502, 503, 504])
const backoffMsMax = 10_000
/** Nobody sees an upload's progress: it is given a second for so many bytes. */
const uploadBytesPerSecondMin = 64 << 10

export class S3Requests {
  readonly #settings: S3Settings
  readonly #client: AwsClient
  readonly #slots: Slots

  constructor(settings: S3Settings) {
    const { accessKeyId, secretAccessKey, sessionToken, region } = settings
    this.#settings = settings
    this.#client = new AwsClient({ accessKeyId, secretAccessKey, region, service: 's3', ...(sessionToken ? { sessionToken } : {}) })
    this.#slots = new Slots(settings.concurrentMax)
  }

  /** The answer, whatever it says, unless it may be another one later.
   *  @throws BACKEND_UNAVAILABLE  after `triesMax` tries; effect unknown unless it only reads · the signal's reason. */
  async send(request: S3Request): Promise<S3Answer> {
    const { triesMax } = this.#settings
    let failure: unknown
    for (let tries = 0; tries < triesMax; tries++) {
      request.signal?.throwIfAborted()
      let waitMs = this.#waitMs(tries)
      try {
        const { retryAfterMs, ...answer } = await this.#slots.run(() => this.#once(request))
        if (!passing.has(answer.status) && answer.code !== 'RequestTimeout') return { ...answer, isRepeated: tries > 0 }
        failure = new Error(`it answered ${answer.status}${answer.code ? ` ${answer.code}` : ''}`)
        waitMs = Math.max(waitMs, retryAfterMs)
      } catch (error) {
        request.signal?.throwIfAborted()
        if (error instanceof StoreError) throw error
        failure = error
      }
      if (tries + 1 < triesMax) await systemClock.sleep(waitMs, request.signal)
    }
    request.signal?.throwIfAborted()
    throw this.#unavailable(request, failure)
  }

  async #once({ method, key, query = {}, headers = {}, body, signal, bytesMax }: S3Request) {
    const url = new URL(this.#settings.baseUrl + key.split('/').map(encodeURIComponent).join('/'))
    // The bucket itself is named without a slash: some servers sign it so.
    if (key === '' && url.pathname !== '/') url.pathname = url.pathname.slice(0, -1)
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
    // The server compares it: what arrives otherwise than it was sent is refused.
    const sha256 = createHash('sha256')
      .update(body ?? '')
      .digest('hex')
    const signed = await this.#client.sign(url, { method, headers: { ...headers, 'x-amz-content-sha256': sha256 } })
    const patience = new Patience(this.#settings.requestMs, signal)
    try {
      patience.wait(((body?.length ?? 0) / uploadBytesPerSecondMin) * 1000)
      const init = { method, headers: signed.headers, redirect: 'manual', signal: patience.signal, ...(body ? { body } : {}) } as const
      const response = await fetch(url, init)
      const bytes = await readBody(response, bytesMax, patience)
      const code = response.ok ? undefined : /<Code>([A-Za-z0-9]{1,64})<\/Code>/.exec(bytes.toString('utf8'))?.[1]
      const retryAfterMs = Math.min(30_000, 1000 * Number(response.headers.get('retry-after') ?? 0)) || 0
      return { status: response.status, body: bytes, code, date: response.headers.get('date'), retryAfterMs }
    } finally {
      patience.end()
    }
  }

  #waitMs(tries: number): number {
    return Math.random() * Math.min(backoffMsMax, this.#settings.backoffMs * 2 ** tries)
  }

  #unavailable({ doing, method }: S3Request, cause: unknown): StoreError {
    const { place, triesMax } = this.#settings
    return new StoreError('BACKEND_UNAVAILABLE', `${doing} in ${place} failed ${triesMax} times: ${reasonOf(cause)}.`, {
      effect: method === 'GET' ? 'none' : 'unknown',
      cause,
      details: { place, doing, tries: triesMax },
      hint: 'Look whether the service can be reached, then try again: what has been stored is not sent a second time.',
    })
  }
}

/** Aborts when nothing has come for so long. */
class Patience {
  readonly signal: AbortSignal
  readonly #ms: number
  readonly #controller = new AbortController()
  #timer: NodeJS.Timeout | undefined

  constructor(ms: number, signal: AbortSignal | undefined) {
    this.#ms = ms
    this.signal = signal ? AbortSignal.any([signal, this.#controller.signal]) : this.#controller.signal
  }

  /** Begins anew. */
  wait(moreMs = 0): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#controller.abort(new Error(`nothing came for ${this.#ms} ms`)), this.#ms + moreMs)
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}

async function readBody(response: Response, bytesMax: number, patience: Patience): Promise<Buffer> {
  const announced = response.headers.get('content-length')
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of response.body ?? []) {
    patience.wait()
    length += part.length
    if (length > bytesMax)
      throw new StoreError('BACKUP_MISMATCH', `An object is larger than ${bytesMax} bytes: it is none of a repository.`, {
        details: { why: 'it is too large' },
      })
    parts.push(part)
  }
  const isEncoded = response.headers.get('content-encoding') !== null
  if (announced !== null && !isEncoded && Number(announced) !== length)
    throw new Error(`the answer ended after ${length} of ${announced} bytes`)
  return Buffer.concat(parts)
}

/** What went wrong, without anything of the request. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const inner = error.cause instanceof Error ? error.cause : undefined
  return inner ? `${error.message} (${inner.message})` : error.message
}

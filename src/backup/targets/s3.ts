/** S3-compatible storage as a target: AWS, Cloudflare R2, MinIO and the like. What is assumed of it: a put is all or nothing, and whoever
 *  lists or gets after a put has been answered sees it (true of all of them since 2020). */

import { randomBytes } from 'node:crypto'
import { StoreError } from '../../errors.js'
import type { S3Settings } from './s3-options.js'
import { type S3Answer, S3Requests } from './s3-requests.js'
import { type GetOptions, type ObjectFacts, objectBytesMax, type PutOptions, type Target } from './target.js'

const listingBytesMax = 16 << 20

export class S3Target implements Target {
  readonly place: string
  readonly concurrentMax: number
  readonly #settings: S3Settings
  readonly #requests: S3Requests
  #exclusive: Promise<boolean> | undefined

  constructor(settings: S3Settings) {
    this.place = settings.place
    this.concurrentMax = settings.concurrentMax
    this.#settings = settings
    this.#requests = new S3Requests(settings)
  }

  async get(name: string, { range, signal, bytesMax = objectBytesMax }: GetOptions = {}): Promise<Buffer | undefined> {
    if (range?.length === 0) return Buffer.alloc(0)
    const headers = range ? { range: `bytes=${range.from}-${range.from + range.length - 1}` } : {}
    const doing = `reading ${name}`
    const answer = await this.#requests.send({ method: 'GET', key: this.#key(name), headers, bytesMax, signal, doing })
    if (answer.status === 206 && range) return answer.body.subarray(0, range.length)
    if (answer.status === 200) return range ? answer.body.subarray(range.from, range.from + range.length) : answer.body
    if (answer.status === 416) return Buffer.alloc(0)
    if (answer.status === 404 && answer.code !== 'NoSuchBucket') return undefined
    throw this.#refused(answer, doing)
  }

  async put(name: string, bytes: Uint8Array, { ifAbsent = false, signal }: PutOptions = {}): Promise<boolean> {
    if (!ifAbsent) return this.#put(name, bytes, {}, signal)
    if (await this.isExclusive(signal)) return this.#put(name, bytes, { 'if-none-match': '*' }, signal)
    if ((await this.get(name, { signal })) !== undefined) return false
    return this.#put(name, bytes, {}, signal)
  }

  async list(prefix: string, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<ObjectFacts[]> {
    const found: ObjectFacts[] = []
    let token: string | undefined
    do {
      const page = await this.#page(prefix, token, signal)
      for (const object of page.objects) found.push({ ...object, name: object.name.slice(this.#settings.prefix.length) })
      token = page.next
    } while (token !== undefined)
    return found
  }

  async delete(name: string, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    const doing = `removing ${name}`
    const answer = await this.#requests.send({ method: 'DELETE', key: this.#key(name), bytesMax: listingBytesMax, signal, doing })
    if (answer.status >= 300 && !(answer.status === 404 && answer.code !== 'NoSuchBucket')) throw this.#refused(answer, doing)
  }

  async isEmpty(signal?: AbortSignal): Promise<boolean> {
    return (await this.#page('', undefined, signal)).objects.every(({ name }) => name.startsWith(`${this.#settings.prefix}tmp/`))
  }

  async nowMs(signal?: AbortSignal): Promise<number> {
    const { date } = await this.#listed('running/', undefined, 1, signal)
    const nowMs = Date.parse(date ?? '')
    if (Number.isNaN(nowMs)) throw new StoreError('BACKEND_UNAVAILABLE', `${this.place} does not say what time it is.`)
    return nowMs
  }

  /** Found out by trying: some services refuse the condition, some pass over it without a word. */
  isExclusive(signal?: AbortSignal): Promise<boolean> {
    this.#exclusive ??= this.#tryExclusive(signal).catch((error: unknown) => {
      this.#exclusive = undefined
      throw error
    })
    return this.#exclusive
  }

  async sweep(olderThanMs: number): Promise<void> {
    const nowMs = await this.nowMs()
    for (const { name, modifiedMs } of await this.list('tmp/')) if (nowMs - modifiedMs > olderThanMs) await this.delete(name)
  }

  async close(): Promise<void> {}

  async #tryExclusive(signal?: AbortSignal): Promise<boolean> {
    const name = `tmp/${randomBytes(16).toString('hex')}`
    try {
      await this.#put(name, Buffer.of(1), {}, signal)
      return !(await this.#put(name, Buffer.of(2), { 'if-none-match': '*' }, signal))
    } catch (error) {
      if (error instanceof StoreError && error.details.status === 501) return false
      throw error
    } finally {
      await this.delete(name, { signal })
    }
  }

  /** False: there is one already. */
  async #put(name: string, bytes: Uint8Array, headers: Record<string, string>, signal?: AbortSignal): Promise<boolean> {
    const doing = `writing ${name}`
    const request = { method: 'PUT' as const, key: this.#key(name), body: bytes, bytesMax: listingBytesMax, doing, signal }
    for (let tries = 1; ; tries++) {
      const answer = await this.#requests.send({ ...request, headers: { ...headers, 'content-type': 'application/octet-stream' } })
      if (answer.status >= 200 && answer.status < 300) return true
      // Somebody puts the same name at this very moment, and it is not decided yet.
      if (answer.status === 409 && answer.code === 'ConditionalRequestConflict' && tries < this.#settings.triesMax) continue
      if (answer.status !== 412) throw this.#refused(answer, doing)
      // What stands there may be what an earlier try of ours has put, whose answer was lost.
      return answer.isRepeated && Buffer.compare((await this.get(name, { signal })) ?? Buffer.alloc(0), bytes) === 0
    }
  }

  async #page(prefix: string, token: string | undefined, signal?: AbortSignal) {
    const { body } = await this.#listed(prefix, token, this.#settings.pageMax, signal)
    const page = parsePage(body.toString('utf8'))
    if (!page) throw new StoreError('BACKEND_UNAVAILABLE', `${this.place} gave a list of objects that cannot be read.`)
    return page
  }

  async #listed(prefix: string, token: string | undefined, most: number, signal?: AbortSignal): Promise<S3Answer> {
    const doing = `listing ${prefix}`
    const query = {
      'list-type': '2',
      prefix: this.#settings.prefix + prefix,
      'max-keys': String(most),
      ...(token === undefined ? {} : { 'continuation-token': token }),
    }
    const answer = await this.#requests.send({ method: 'GET', key: '', query, bytesMax: listingBytesMax, signal, doing })
    if (answer.status !== 200) throw this.#refused(answer, doing)
    return answer
  }

  #key(name: string): string {
    return this.#settings.prefix + name
  }

  #refused({ status, code }: S3Answer, doing: string): StoreError {
    const said = `${doing} in ${this.place} was refused: ${status}${code ? ` ${code}` : ''}.`
    const details = { place: this.place, doing, status, code }
    if (status === 507 || code === 'XMinioStorageFull' || code === 'QuotaExceeded')
      return new StoreError('DISK_FULL', said, { details, hint: 'The storage is full: free space, then try again.' })
    if (code === 'RequestTimeTooSkewed')
      return new StoreError('INVALID_OPTION', said, { details, hint: 'The clock of this machine is wrong: set it, then try again.' })
    if (status === 401 || status === 403)
      return new StoreError('INVALID_OPTION', said, {
        details,
        hint: 'Look at the credentials, the region, and what they may do: list, get, put and delete objects in this place.',
      })
    if (code === 'NoSuchBucket')
      return new StoreError('INVALID_OPTION', said, { details, hint: 'Make the bucket first, or look at its name.' })
    return new StoreError('IO_FAILED', said, { details, retryable: false, hint: 'Look whether the endpoint and the region are right.' })
  }
}

interface Page {
  readonly objects: ObjectFacts[]
  readonly next: string | undefined
}

/** A page of ListObjectsV2. Names of ours need no more of XML than this. */
export function parsePage(xml: string): Page | undefined {
  if (!/<ListBucketResult[\s>]/.test(xml)) return undefined
  const objects: ObjectFacts[] = []
  for (const [, entry = ''] of xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
    const name = fieldOf(entry, 'Key')
    const bytes = Number(fieldOf(entry, 'Size') ?? Number.NaN)
    const modifiedMs = Date.parse(fieldOf(entry, 'LastModified') ?? '')
    if (name === undefined || !Number.isSafeInteger(bytes) || Number.isNaN(modifiedMs)) return undefined
    objects.push({ name, bytes, modifiedMs })
  }
  const isTruncated = fieldOf(xml, 'IsTruncated') === 'true'
  const next = isTruncated ? fieldOf(xml, 'NextContinuationToken') : undefined
  return isTruncated && next === undefined ? undefined : { objects, next }
}

const entities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function fieldOf(xml: string, tag: string): string | undefined {
  const text = new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(xml)?.[1]
  return text?.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (whole, decimal, hex, name) =>
    decimal || hex ? String.fromCodePoint(Number.parseInt(decimal ?? hex, decimal ? 10 : 16)) : (entities[name] ?? whole),
  )
}

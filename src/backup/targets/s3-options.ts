/** What a connection to S3-compatible storage needs, from options and the environment. */
import { z } from 'zod'
import { StoreError } from '../../errors.js'
import type { S3TargetOptions } from '../repository/access.js'

export interface S3Settings {
  readonly bucket: string
  /** Empty, or with a slash at its end. */
  readonly prefix: string
  /** Where the bucket's objects are, with a slash at its end. */
  readonly baseUrl: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string | undefined
  readonly concurrentMax: number
  readonly requestMs: number
  readonly triesMax: number
  readonly backoffMs: number
  readonly pageMax: number
  /** For people: bucket, prefix and host; no credentials. */
  readonly place: string
}

const bounds = z.object({
  concurrentMax: z.int().min(1).max(64).default(8),
  requestMs: z.int().min(1).max(3_600_000).default(30_000),
  triesMax: z.int().min(1).max(100).default(6),
  backoffMs: z.int().min(0).max(60_000).default(250),
  pageMax: z.int().min(1).max(1_000).default(1_000),
})

/** @throws INVALID_OPTION  something is missing or malformed; never says what a credential is. */
export function s3SettingsOf(options: S3TargetOptions, env: Readonly<Record<string, string | undefined>> = process.env): S3Settings {
  const { bucket, prefix } = placeOf(options)
  const endpoint = options.endpoint ?? env.AWS_ENDPOINT_URL_S3 ?? env.AWS_ENDPOINT_URL
  const region = options.region ?? env.AWS_REGION ?? env.AWS_DEFAULT_REGION ?? (endpoint ? 'auto' : 'us-east-1')
  const accessKeyId = options.accessKeyId ?? env.AWS_ACCESS_KEY_ID
  const secretAccessKey = options.secretAccessKey ?? env.AWS_SECRET_ACCESS_KEY
  if (!accessKeyId || !secretAccessKey)
    throw misuse(
      'There are no credentials for S3.',
      'Give accessKeyId and secretAccessKey, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.',
    )
  const limits = bounds.safeParse({ ...options })
  if (!limits.success) throw misuse(`An option of the S3 target is out of bounds: ${z.prettifyError(limits.error)}.`)
  const baseUrl = baseUrlOf(bucket, endpoint, region)
  return {
    bucket,
    prefix,
    baseUrl,
    region,
    accessKeyId,
    secretAccessKey,
    // A token belongs to the key that it came with.
    sessionToken: options.sessionToken ?? (options.accessKeyId === undefined ? env.AWS_SESSION_TOKEN : undefined),
    ...limits.data,
    place: `s3://${bucket}/${prefix}${endpoint ? ` at ${new URL(baseUrl).host}` : ''}`,
  }
}

function placeOf(options: S3TargetOptions): { bucket: string; prefix: string } {
  const [, urlBucket, urlPrefix] = options.url === undefined ? [] : (/^s3:\/\/([^/]+)\/?(.*)$/.exec(options.url) ?? [])
  if (options.url !== undefined && urlBucket === undefined) throw misuse('The place of an S3 target is s3://bucket/prefix.')
  const bucket = options.bucket ?? urlBucket ?? ''
  if (!/^[a-z0-9][a-z0-9._-]{1,62}$/i.test(bucket)) throw misuse(`${JSON.stringify(bucket)} is no name of a bucket.`)
  const prefix = (options.prefix ?? urlPrefix ?? '').replace(/^\/+|\/+$/g, '')
  if (!/^[A-Za-z0-9!_.'()/-]*$/.test(prefix) || prefix.split('/').some((part) => part === '.' || part === '..'))
    throw misuse(`The prefix ${JSON.stringify(prefix)} may have letters, digits, slashes and - _ . ! ' ( ).`)
  return { bucket, prefix: prefix && `${prefix}/` }
}

function baseUrlOf(bucket: string, endpoint: string | undefined, region: string): string {
  if (endpoint === undefined) {
    const host = `s3.${region}.amazonaws.com`
    // A name with dots has no certificate.
    return bucket.includes('.') ? `https://${host}/${bucket}/` : `https://${bucket}.${host}/`
  }
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash)
    throw misuse('The endpoint must be https://host or http://host, without credentials.')
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}/${bucket}/`
}

function misuse(message: string, hint?: string): StoreError {
  return new StoreError('INVALID_OPTION', message, hint === undefined ? {} : { hint })
}

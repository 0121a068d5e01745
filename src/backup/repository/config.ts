/** What a repository says of itself, readable without a key, twice, since nothing can be read without it. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { StoreError } from '../../errors.js'
import type { Target } from '../targets/target.js'

export const configNames = ['holdfast-backup.json', 'holdfast-backup.copy.json'] as const

const configSchema = z.object({
  format: z.literal(1),
  repository: z.string().regex(/^[0-9a-f]{32}$/),
  createdAt: z.string(),
  packBytes: z
    .int()
    .min(1024)
    .max(32 << 20),
  encryption: z
    .object({
      kind: z.literal('age'),
      /** Who reads everything. */
      recipients: z.array(z.string().max(4096)).min(1).max(100).readonly(),
      /** Who reads the catalogue, besides them. */
      catalogue: z.string().max(4096),
      /** age files in their text form. */
      keys: z.object({
        /** The identity of `catalogue`, for the recipients. */
        catalogue: z.string().max(1 << 16),
        /** Two identities, for the passphrase: one of the recipients, and that of `catalogue`. */
        passphrase: z
          .string()
          .max(1 << 16)
          .optional(),
      }),
      /** With the repository's key: proves that nobody else has changed any of this. */
      proof: z.string().regex(/^[0-9a-f]{64}$/),
    })
    .nullable(),
})
export type Config = z.infer<typeof configSchema>

export const isConfig = (config: unknown): boolean => configSchema.safeParse(config).success

/** One line of JSON, and its SHA-256 as a second one. */
export function encodeConfig(config: Config): Buffer {
  const line = `${JSON.stringify(config)}\n`
  return Buffer.from(`${line}{"seal":"${createHash('sha256').update(line).digest('hex')}"}\n`)
}

export async function putConfig(target: Target, config: Config, signal?: AbortSignal): Promise<void> {
  const bytes = encodeConfig(config)
  // The first name decides whose repository it is; crash before the copy: `check` says that it is missing.
  if (!(await target.put(configNames[0], bytes, { ifAbsent: true, signal })))
    throw new StoreError('INVALID_OPTION', `There is a repository in ${target.place} already.`, {
      hint: 'Open it, or choose another place.',
    })
  await target.put(configNames[1], bytes, { signal })
}

/** @returns damaged  names of copies that are missing or not what was stored.
 *  @throws NOT_FOUND · BACKUP_MISMATCH  both are damaged · STORE_FORMAT_UNSUPPORTED */
export async function readConfig(target: Target, signal?: AbortSignal): Promise<{ config: Config; damaged: string[] }> {
  const found: Config[] = []
  const damaged: string[] = []
  const missing: string[] = []
  for (const name of configNames) {
    const bytes = await target.get(name, { signal, bytesMax: 1 << 20 })
    const config = bytes && decodeConfig(bytes, target.place)
    if (config) found.push(config)
    else if (bytes) damaged.push(name)
    else missing.push(name)
  }
  const [config] = found
  if (config) return { config, damaged: [...damaged, ...missing] }
  if (damaged.length === 0)
    throw new StoreError('NOT_FOUND', `There is no repository of holdfast in ${target.place}.`, {
      hint: 'Make one with `holdfast backup init`, or look whether the place is right (and mounted).',
    })
  throw new StoreError('BACKUP_MISMATCH', `${damaged.join(' and ')} in ${target.place} are not what was stored.`, {
    details: { objects: damaged, place: target.place },
    hint: 'Both copies are damaged: bring one back from elsewhere (they never change).',
  })
}

function decodeConfig(bytes: Buffer, place: string): Config | undefined {
  const [line = '', sealLine = ''] = bytes.toString('utf8').split('\n')
  if (sealLine !== `{"seal":"${createHash('sha256').update(`${line}\n`).digest('hex')}"}`) return undefined
  const value: unknown = JSON.parse(line)
  const { format } = z.object({ format: z.number() }).safeParse(value).data ?? {}
  if (format !== undefined && format > 1)
    throw new StoreError('STORE_FORMAT_UNSUPPORTED', `The repository ${place} has format ${format}; this version knows format 1.`, {
      hint: 'Use the version of holdfast that wrote it, or a newer one.',
    })
  return configSchema.safeParse(value).data
}

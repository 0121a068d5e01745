/** The two ways to a repository. */
import { randomBytes } from 'node:crypto'
import { StoreError } from '../../errors.js'
import { plainKeyring } from '../encryption/keyring.js'
import { DirectoryTarget } from '../targets/directory.js'
import type { Target } from '../targets/target.js'
import type { CreatedRepository, CreateRepositoryOptions, OpenRepositoryOptions, TargetLocation } from './access.js'
import { type Config, putConfig, readConfig } from './config.js'
import { ObjectRepository } from './object-repository.js'
import type { Repository } from './repository.js'

/** Stored bytes after which a pack is closed: few enough to keep several in memory, and large enough that a call to S3 is worth it. */
const packBytesDefault = 8 << 20

/** Makes a repository where there is none.
 *  @throws INVALID_OPTION  there is a repository already · BACKEND_UNAVAILABLE, IO_FAILED, DISK_FULL. */
export async function createRepository(where: TargetLocation, options: CreateRepositoryOptions = {}): Promise<CreatedRepository> {
  const target = openTarget(where)
  const config: Config = {
    format: 1,
    repository: randomBytes(16).toString('hex'),
    createdAt: new Date().toISOString(),
    packBytes: options.packBytes ?? packBytesDefault,
    encryption: null,
  }
  await putConfig(target, config, options.signal)
  return { repository: await openRepository(where, options), key: undefined }
}

/** @throws NOT_FOUND  there is none · INVALID_OPTION  no key, or one that does not fit · STORE_FORMAT_UNSUPPORTED  made by a newer
 *  version · BACKUP_MISMATCH  its own files are damaged · BACKEND_UNAVAILABLE, IO_FAILED. */
export async function openRepository(where: TargetLocation, options: OpenRepositoryOptions = {}): Promise<Repository> {
  const target = openTarget(where)
  const { config, damaged } = await readConfig(target, options.signal)
  const vault = { repositoryId: config.repository, target, keyring: plainKeyring(), packBytes: config.packBytes }
  return new ObjectRepository(vault, damaged)
}

function openTarget(where: TargetLocation): Target {
  if (typeof where === 'string' && !where.startsWith('s3:')) return new DirectoryTarget(where)
  if (typeof where === 'object' && 'directory' in where) return new DirectoryTarget(where.directory)
  throw new StoreError('INVALID_OPTION', 'S3 is not there yet.')
}

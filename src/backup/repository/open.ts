/** The ways to a repository. */
import { randomBytes } from 'node:crypto'
import { isStoreError, StoreError } from '../../errors.js'
import { plainKeyring } from '../encryption/keyring.js'
import { createKeys, openKeys } from '../encryption/repository-keys.js'
import { openTarget } from '../targets/open-target.js'
import type { Target } from '../targets/target.js'
import type { CreatedRepository, CreateRepositoryOptions, OpenOrCreateOptions, OpenRepositoryOptions, TargetLocation } from './access.js'
import { type Config, isConfig, putConfig, readConfig } from './config.js'
import { ObjectRepository } from './object-repository.js'
import type { Repository } from './repository.js'

/** Stored bytes after which a pack is closed: few enough to keep several in memory, and large enough that a call to S3 is worth it. */
const packBytesDefault = 8 << 20

/** Makes a repository where there is none.
 *  @throws INVALID_OPTION  there is a repository already · BACKEND_UNAVAILABLE, IO_FAILED, DISK_FULL. */
export async function createRepository(where: TargetLocation, options: CreateRepositoryOptions = {}): Promise<CreatedRepository> {
  const target = openTarget(where)
  const repository = randomBytes(16).toString('hex')
  const keys = options.encryption && (await createKeys(repository, options.encryption))
  const config: Config = {
    format: 1,
    repository,
    createdAt: new Date().toISOString(),
    packBytes: options.packBytes ?? packBytesDefault,
    encryption: keys?.stored ?? null,
  }
  if (!isConfig(config)) throw new StoreError('INVALID_OPTION', 'packBytes must be from 1,024 to 33,554,432, and recipients at most 100.')
  await putConfig(target, config, options.signal)
  const vault = { repositoryId: repository, target, keyring: keys?.keyring ?? plainKeyring(), packBytes: config.packBytes }
  return { repository: new ObjectRepository(vault), key: keys?.key }
}

/** @throws NOT_FOUND  there is none · INVALID_OPTION  no key, or one that does not fit · STORE_FORMAT_UNSUPPORTED  made by a newer
 *  version · BACKUP_MISMATCH  its own files are damaged · BACKEND_UNAVAILABLE, IO_FAILED. */
export async function openRepository(where: TargetLocation, options: OpenRepositoryOptions = {}): Promise<Repository> {
  const target = openTarget(where)
  const { config, keys, damaged } = await openConfig(target, options)
  const vault = { repositoryId: config.repository, target, keyring: keys?.keyring ?? plainKeyring(), packBytes: config.packBytes }
  return new ObjectRepository(vault, damaged)
}

/** The repository that is there; where nothing is, neither of holdfast nor of anybody else, a new one, encrypted when keys are given.
 *  @throws NOT_FOUND  no repository, and the place is not empty, or a key file says that one should be there; else as the other two. */
export async function openOrCreateRepository(where: TargetLocation, options: OpenOrCreateOptions = {}): Promise<Repository> {
  try {
    return await openRepository(where, options)
  } catch (error) {
    // A key file belongs to a repository that was there: a disk that is not mounted looks the same as an empty one.
    if (!isStoreError(error, 'NOT_FOUND') || options.encryption?.key !== undefined || !(await isEmpty(where, options.signal))) throw error
  }
  let made: CreatedRepository
  try {
    made = await createRepository(where, options)
  } catch (error) {
    // Somebody else was faster: theirs will do, if the keys open it.
    const found = isStoreError(error, 'INVALID_OPTION') && (await openRepository(where, options).catch(() => undefined))
    if (found) return found
    throw error
  }
  const { repository, key } = made
  try {
    await options.onCreated?.({ id: repository.id, isEncrypted: key !== undefined, key })
    return repository
  } catch (error) {
    await repository.close()
    throw error
  }
}

async function isEmpty(where: TargetLocation, signal: AbortSignal | undefined): Promise<boolean> {
  const target = openTarget(where)
  try {
    return await target.isEmpty(signal)
  } finally {
    await target.close()
  }
}

/** The text of a key file for another machine that is to back up; undefined without encryption. Needs a passphrase, an identity, or a
 *  key file itself. */
export async function repositoryKey(where: TargetLocation, options: OpenRepositoryOptions = {}): Promise<string | undefined> {
  const target = openTarget(where)
  try {
    return (await openConfig(target, options)).keys?.key
  } finally {
    await target.close()
  }
}

async function openConfig(target: Target, { encryption, signal }: OpenRepositoryOptions) {
  const { config, damaged } = await readConfig(target, signal)
  if (config.encryption)
    return { config, damaged, keys: await openKeys(config.repository, config.encryption, encryption ?? {}, target.place) }
  // Whoever has keys thinks that it is encrypted. Somebody may have put another description there, to be sent the plain text.
  if (encryption && Object.values(encryption).some((it) => it !== undefined))
    throw new StoreError('INVALID_OPTION', `The repository ${target.place} is not encrypted, although keys were given for it.`, {
      hint: 'If it should be, somebody has replaced it. If not, leave the keys out.',
    })
  return { config, damaged, keys: undefined }
}

import { StoreError } from '../../errors.js'
import type { TargetLocation } from '../repository/access.js'
import { DirectoryTarget } from './directory.js'
import { S3Target } from './s3.js'
import { s3SettingsOf } from './s3-options.js'
import type { Target } from './target.js'

/** A scheme before `://`; a drive letter of Windows is none. */
const schemePattern = /^([a-z][a-z0-9+.-]+):\/\//i

export function openTarget(where: TargetLocation): Target {
  if (typeof where !== 'string') {
    if ('directory' in where) return new DirectoryTarget(where.directory)
    return new S3Target(s3SettingsOf(where))
  }
  const scheme = schemePattern.exec(where)?.[1]?.toLowerCase()
  if (scheme === 's3') return new S3Target(s3SettingsOf({ url: where }))
  // A directory called "s3:" is more likely a mistake.
  if (scheme !== undefined || where === '')
    throw new StoreError('INVALID_OPTION', `${JSON.stringify(where)} is neither a directory nor s3://bucket/prefix.`)
  return new DirectoryTarget(where)
}
